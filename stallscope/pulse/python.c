/* CPython, by those of its functions that every version since 3.8 exports. The structures are never looked into.
 *
 * The stack of a slow call is taken by the interpreter itself: Py_AddPendingCall is asked as the call returns, and runs
 * our function before the next bytecode of the very frame that made it. The GIL is never taken inside a hook: there a
 * lock may be held that another thread wants while it has the GIL. */
#include "pulse.h"
#include "python.h"

#include <dlfcn.h>

struct python py;
void *captured;  /* a list of the agent's: (token, late_ns, [code, line, code, line, ...], task's name or None) is appended */

_Atomic bool muted;

static _Atomic uint64_t next_token = 1;
static struct task_names {
    void *running;  /* () -> the running loop, or None */
    void *tasks;    /* {loop: task that runs in it}, or NULL */
    void *current;  /* (loop) -> that task; where there is no such dict */
    void *name;     /* (task) -> its name */
} task_names;
static void *name_code, *name_line, *name_back;

bool python_find_one(void *to, const char *name)
{
    return (*(void **)to = dlsym(RTLD_DEFAULT, name)) != NULL;
}

bool python_find(void)
{
    bool all = python_find_one(&py.None, "_Py_NoneStruct") && python_find_one(&py.ImportError, "PyExc_ImportError");
#define FUNCTION(returns, name, parameters) all &= python_find_one(&py.name, "Py" #name);
#include "python.def"
#undef FUNCTION
    return all;
}

void *none(void)
{
    py._IncRef(py.None);
    return py.None;
}

bool named(void **to, const char *name)
{
    if (*to == NULL)
        *to = py.Unicode_InternFromString(name);
    return *to != NULL;
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

/* The name of the task that runs now, by asyncio's own functions, all of them in C; None where there is none. */
static void *task_name(void)
{
    void *loop = task_names.running != NULL ? py.Object_CallObject(task_names.running, NULL) : NULL, *name = NULL;
    if (loop != NULL && loop != py.None) {
        void *task = task_names.current != NULL ? py.Object_CallFunctionObjArgs(task_names.current, loop, NULL)
                                             : py.Dict_GetItem(task_names.tasks, loop);
        if (task != NULL && task != py.None)
            name = py.Object_CallFunctionObjArgs(task_names.name, task, NULL);
        if (task != NULL && task_names.current != NULL)
            py._DecRef(task);
    }
    if (loop != NULL)
        py._DecRef(loop);
    if (name == NULL)
        py.Err_Clear();
    return name != NULL ? name : none();
}

void *python_know_asyncio(void *self, void *arguments)
{
    struct task_names given = {0};
    (void)self;
    if (!py.Arg_ParseTuple(arguments, "OOOO", &given.running, &given.tasks, &given.current, &given.name))
        return NULL;
    for (void **each = (void **)&given; each < (void **)(&given + 1); each++) {
        if (*each == py.None)
            *each = NULL;
        else
            py._IncRef(*each);
    }
    if (given.tasks != NULL || given.current != NULL)
        task_names = given;
    return none();
}

/* An address says which code it is, as long as that runs. */
uint64_t python_code(void)
{
    void *frame = py.Eval_GetFrame(), *code = frame != NULL ? py.Object_GetAttr(frame, name_code) : NULL;
    if (code != NULL)
        py._DecRef(code);
    return (uintptr_t)code;
}

static void capture(uint64_t token)
{
    void *stack = walked();
    void *entry = stack != NULL ? py._BuildValue("(KKNN)", (unsigned long long)token, 0ull, stack, task_name()) : NULL;
    append(captured, entry);
}

/* Runs in the main thread, with the GIL, between two bytecodes. */
static int on_pending(void *token)
{
    struct thread *t = thread_self();
    if (captured == NULL || !atomic_load(&pulse_active))
        return 0;
    unsigned depth = t != NULL ? t->depth : 0;
    if (t != NULL)
        t->depth = 1;
    capture((uintptr_t)token);
    if (py.Err_Occurred() != NULL)
        py.Err_Clear();
    if (t != NULL)
        t->depth = depth;
    return 0;
}

static bool wanted(void)
{
    return captured != NULL && !atomic_load_explicit(&muted, memory_order_relaxed);
}

/* A signal handler written in C may have interrupted the interpreter while it held the lock of its pending calls. */
uint64_t stack_wanted(struct thread *t)
{
    if (!t->main || !wanted() || kernel_in_signal_handler(t))
        return 0;
    uint64_t token = atomic_fetch_add(&next_token, 1);
    bool is_full = py._AddPendingCall(on_pending, (void *)(uintptr_t)token) != 0;
    return is_full ? 0 : token;
}

/* One at a time: as long as the last of this iteration was not answered, C code holds the GIL. The agent's own thread is
 * woken, asks for the GIL, and takes the stack of the main thread, which has stopped for it.
 *
 * Py_AddPendingCall from here was tried, and must not be. CPython 3.8 raises an exception when it is asked as the
 * interpreter goes down, which a thread without the GIL does not survive. CPython 3.9 to 3.12 do not interrupt the main
 * thread for what another thread asks, and take back what the main thread has asked for itself. And in every version a
 * main thread that had to wait for us behind the lock of the pending calls comes out of that wait with the lock, through
 * a hook that would ask for its stack: which takes the same lock. */
uint64_t stack_wanted_by_watchdog(struct thread *t)
{
    if (!wanted())
        return 0;
    if (!t->main) {  /* the agent looks at its stack as it wakes, and keeps it */
        nudge();
        return 0;
    }
    if (atomic_load(&t->held_since_ns) > atomic_load(&t->started_ns))
        return atomic_load(&t->held_token);
    uint64_t token = atomic_fetch_add(&next_token, 1);
    atomic_store(&t->held_token, token);  /* before it can be answered */
    atomic_store(&t->held_since_ns, now_ns());
    nudge_for_stack();
    return token;
}

/* The token that a nudged thread, which has the GIL now, is to answer; 0: none. `late_ns`: for how long it could not.
 * When the iteration has ended, the stack is another's; a thread that had to wait for a CPU may come that late, and woke
 * up late. One that was asked before it rested was at work, and has lost the GIL there. */
uint64_t stack_wanted_of_nudged(uint64_t rested_ns, uint64_t woken_ns, uint64_t *late_ns, bool *has_ended)
{
    for (int i = 0; i < THREADS && atomic_load(&threads[i]) != NULL; i++) {
        struct thread *t = atomic_load(&threads[i]);
        uint64_t since = t->main ? atomic_exchange(&t->held_since_ns, 0) : 0;
        uint64_t started = atomic_load(&t->started_ns);
        if (since == 0)
            continue;
        *late_ns = now_ns() - (rested_ns <= since && since < woken_ns ? woken_ns : since);
        *has_ended = since <= started || started == 0 || started != atomic_load(&t->overdue);
        if (*has_ended)
            return atomic_load(&t->held_token);
        atomic_store(&t->met_token, atomic_load(&t->held_token));  /* as we have the GIL it stays in the call's line */
        atomic_store(&t->met_in_ns, atomic_load(&t->call) != 0 ? atomic_load(&t->call_since_ns) : 0);
        return atomic_load(&t->held_token);
    }
    return 0;
}

bool python_names(void)
{
    return named(&name_code, "f_code") && named(&name_line, "f_lineno") && named(&name_back, "f_back");
}
