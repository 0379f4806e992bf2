/* Python's audit events (PEP 578), passed on to a hook in Python: those it wants, and no others. An interpreter raises
 * hundreds of thousands of them in a session of tests, and to call Python for each took a per cent of it. */
#include "pulse.h"
#include "python.h"

#include <string.h>

#define NAMES 64
#define NAMES_BYTES 2048

static char names[NAMES_BYTES];
static const char *wanted[NAMES + 1];  /* into those; after the last one NULL */
static void *listener, *interpreter;   /* whose: a hook in C is called in every interpreter of the process */

static struct {  /* since CPython 3.9, and 3.11 */
    void *(*interpreter)(void);
    void (*enter_tracing)(void *), (*leave_tracing)(void *);
    void *(*thread)(void);
} known;

static bool find_all(void)
{
    return python_find_one(&known.interpreter, "PyInterpreterState_Get") &&
           python_find_one(&known.thread, "PyThreadState_Get") &&
           python_find_one(&known.enter_tracing, "PyThreadState_EnterTracing") &&
           python_find_one(&known.leave_tracing, "PyThreadState_LeaveTracing");
}

static bool is_wanted(const char *event)
{
    for (const char **name = wanted; *name != NULL; name++)
        if (**name == *event && strcmp(*name, event) == 0)
            return true;
    return false;
}

/* Like a hook in Python it is traced by nobody: a debugger must not step into it. What it raises the program gets. */
static int on_audit(const char *event, void *arguments, void *unused)
{
    (void)unused;
    if (listener == NULL || !is_wanted(event) || known.interpreter() != interpreter)
        return 0;
    void *hook = listener, *thread = known.thread(), *name = py.Unicode_InternFromString(event);
    py._IncRef(hook);
    known.enter_tracing(thread);
    void *result = name != NULL ? py.Object_CallFunctionObjArgs(hook, name, arguments, NULL) : NULL;
    known.leave_tracing(thread);
    py._DecRef(result);
    py._DecRef(name);
    py._DecRef(hook);
    return result != NULL ? 0 : -1;
}

static bool keep_names(const char *given, size_t size)
{
    size_t count = 0;
    if (size > sizeof names)
        return false;
    memcpy(names, given, size);
    for (size_t at = 0; at < size && count < NAMES; at += strlen(names + at) + 1)
        wanted[count++] = names + at;
    wanted[count] = NULL;
    return count < NAMES;
}

/* A hook stays for as long as the process: it is added once. */
static bool is_hooked(void)
{
    static bool is;
    is = is || py.Sys_AddAuditHook(on_audit, NULL) == 0;
    if (!is)
        py.Err_Clear();
    return is;
}

void *audit_listen(void *self, void *arguments)
{
    struct buffer given;
    void *hook = NULL;
    (void)self;
    if (!py.Arg_ParseTuple(arguments, "y*O", &given, &hook))
        return NULL;
    bool can = find_all() && keep_names(given.at, (size_t)given.size) && is_hooked();
    py.Buffer_Release(&given);
    if (can) {
        audit_stop();
        py._IncRef(hook);
        interpreter = known.interpreter();
        listener = hook;
    }
    return py.Long_FromUnsignedLongLong(can);
}

void audit_stop(void)
{
    void *hook = listener;
    listener = NULL;
    if (hook != NULL)
        py._DecRef(hook);
}
