/* CPython, by those of its functions that every version since 3.8 exports. The structures are never looked into.
 *
 * The stack of a slow call is taken by the interpreter itself: Py_AddPendingCall is asked as the call returns, and runs
 * our function before the next bytecode of the very frame that made it. The GIL is never taken inside a hook: there a
 * lock may be held that another thread wants while it has the GIL. */
#include "pulse.h"
#include "python.h"

#include <dlfcn.h>
#include <stdlib.h>

struct python py;
void *captured;  /* a list of the agent's: (token, when, late_ns, [code, line, code, line, ...]) is appended */

static _Atomic uint64_t next_token = 1;
static bool needs_nudging;
static void *name_code, *name_line, *name_back;

static bool find(void *to, const char *name)
{
    return (*(void **)to = dlsym(RTLD_DEFAULT, name)) != NULL;
}

bool python_find(void)
{
    bool all = find(&py.None, "_Py_NoneStruct");
#define FUNCTION(returns, name, parameters) all &= find(&py.name, "Py" #name);
#include "python.def"
#undef FUNCTION
    return all;
}

void *none(void)
{
    py._IncRef(py.None);
    return py.None;
}

/* --- the stack ------------------------------------------------------------------------------------------------------ */

static bool append(void *list, void *owned)
{
    int failed = owned == NULL || py.List_Append(list, owned) != 0;
    if (owned != NULL)
        py._DecRef(owned);
    return !failed;
}

/* Appends code and line of `frame`, gives the frame up and returns the one that called it. */
static void *outward(void *stack, void *frame)
{
    void *back = NULL;
    if (append(stack, py.Object_GetAttr(frame, name_code)) && append(stack, py.Object_GetAttr(frame, name_line)))
        back = py.Object_GetAttr(frame, name_back);
    py._DecRef(frame);
    if (back == py.None) {
        py._DecRef(back);
        return NULL;
    }
    return back;
}

static void *walked(void)
{
    void *stack = py.List_New(0), *frame = py.Eval_GetFrame();
    if (stack == NULL || frame == NULL)
        return stack;
    py._IncRef(frame);
    for (int depth = 0; frame != NULL && depth < 64; depth++)
        frame = outward(stack, frame);
    if (frame != NULL)
        py._DecRef(frame);
    return stack;
}

static void capture(uint64_t token, uint64_t late)
{
    void *stack = walked();
    void *entry = stack != NULL ? py._BuildValue("(KKKN)", (unsigned long long)token, (unsigned long long)now_ns(),
                                                 (unsigned long long)late, stack) : NULL;
    append(captured, entry);
}

/* For how long the answer was wanted. Where only a wish for the GIL interrupts the main thread (see module.c), that
 * begins as the agent's thread wakes; it may not have come to run at all. */
static uint64_t late_ns(const struct thread *t, uint64_t token)
{
    uint64_t since = t != NULL && atomic_load(&t->held_token) == token ? atomic_load(&t->held_since_ns) : 0;
    uint64_t woken = atomic_load(&woken_ns), now = now_ns();
    if (since != 0 && needs_nudging)
        since = woken > since ? woken : 0;
    return since != 0 && since < now ? now - since : 0;
}

/* Runs in the main thread, with the GIL, between two bytecodes. */
static int on_pending(void *token)
{
    struct thread *t = thread_self();
    uint64_t late = late_ns(t, (uintptr_t)token);
    if (t != NULL && atomic_load(&t->held_token) == (uintptr_t)token)
        atomic_store(&t->held_since_ns, 0);
    if (captured == NULL || !atomic_load(&pulse_active))
        return 0;
    unsigned depth = t != NULL ? t->depth : 0;
    if (t != NULL)
        t->depth = 1;
    capture((uintptr_t)token, late);
    if (py.Err_Occurred() != NULL)
        py.Err_Clear();
    if (t != NULL)
        t->depth = depth;
    return 0;
}

/* False: too many pending calls wait already. */
static bool asked(uint64_t token)
{
    return py._AddPendingCall(on_pending, (void *)(uintptr_t)token) == 0;
}

/* A signal handler written in C may have interrupted the interpreter while it held the lock of its pending calls. */
uint64_t stack_wanted(struct thread *t)
{
    if (!t->main || captured == NULL || kernel_in_signal_handler(t))
        return 0;
    uint64_t token = atomic_fetch_add(&next_token, 1);
    return asked(token) ? token : 0;
}

/* One at a time: as long as the last has not run, C code holds the GIL. */
uint64_t stack_wanted_by_watchdog(struct thread *t)
{
    if (!t->main || captured == NULL)
        return 0;
    if (atomic_load(&t->held_since_ns) != 0)
        return atomic_load(&t->held_token);
    uint64_t token = atomic_fetch_add(&next_token, 1);
    atomic_store(&t->held_token, token);  /* before it can run */
    atomic_store(&t->held_since_ns, now_ns());
    if (asked(token))
        return token;
    atomic_store(&t->held_since_ns, 0);
    return 0;
}

bool python_names(void)
{
    name_code = py.Unicode_InternFromString("f_code");
    name_line = py.Unicode_InternFromString("f_lineno");
    name_back = py.Unicode_InternFromString("f_back");
    int minor = atoi(py._GetVersion() + 2);  /* "3.11.7 (main, ..." */
    needs_nudging = minor >= 9 && minor <= 12;
    return name_code != NULL && name_line != NULL && name_back != NULL;
}
