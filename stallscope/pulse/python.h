/* CPython's functions, and the little of its C structures that never changed. */
#ifndef PULSE_PYTHON_H
#define PULSE_PYTHON_H

#include <stdbool.h>
#include <sys/types.h>

#define METH_VARARGS 0x0001
#define METH_NOARGS 0x0004
#define METH_O 0x0008

typedef void *(*method_function)(void *self, void *arguments);

struct method {  /* PyMethodDef, part of the stable ABI */
    const char *name;
    method_function function;
    int flags;
    const char *doc;
};

struct buffer {  /* Py_buffer: its beginning, and room for the rest of it */
    void *at, *owner;
    ssize_t size;
    void *rest[32];
};

struct python {
#define FUNCTION(returns, name, parameters) returns (*name) parameters;
#include "python.def"
#undef FUNCTION
    void *None, **ImportError;
};

extern struct python py;
extern void *captured;
extern _Atomic bool muted;  /* no stacks any more */

/* asyncio(running, tasks, current, name): how to find the name of the task that runs; see struct task_names. */
void *python_know_asyncio(void *self, void *arguments);
/* listen(names, hook) -> whether hook(event, arguments) is called for these audit events from now on; `names` are bytes, each
 * name ends with a zero byte. Not on CPython before 3.11. */
void *audit_listen(void *self, void *arguments);
void audit_stop(void);    /* with the GIL */

bool python_find_one(void *to, const char *name);  /* that symbol's address into the pointer at `to`; false: there is none */
bool python_names(void);  /* with the GIL, once */
void *none(void);         /* None, as a new reference */
bool named(void **to, const char *name);  /* make a string, unless it is there; false: no memory */

#endif
