/* Handle._run as a builtin: every handler's duration, under the identity of what it called, for less than what the Python
 * function costs whose place it takes.
 *
 * What asyncio does with an exception stays asyncio's: its own _run is then called, on a handle whose context raises
 * that exception again. So the traceback has asyncio's own frame, where it always was, and none of ours; message,
 * handler of exceptions, SystemExit and KeyboardInterrupt go their usual way. The same _run is called for everything out
 * of the ordinary: subclasses, debug mode, foreign contexts, and when nobody measures.
 *
 * All of this runs with the GIL; a build without one uses the agent's wrapper. */
#include "runner.h"
#include "pulse.h"
#include "python.h"

#include <string.h>

#define FLOOR 64   /* calls of at least threshold / FLOOR are counted exactly, */
#define ONE_IN 16  /* shorter ones when they are drawn, as so many */
#define ASK_AGAIN_NS 1000000000u

struct asyncio asyncio;
bool armed;
static void *name_context, *name_args, *name_loop, *name_run;

/* --- the fields of a handle ----------------------------------------------------------------------------------------------
 *
 * They are slots, so each stands at one offset in every handle; PyObject_GetAttr in their place made a handler
 * 100 to 150 ns dearer. Where it is, is found by putting a known object into one handle: no version's structures are
 * taken for granted. */

enum field { CONTEXT, CALLBACK, ARGS, SOURCE_TRACEBACK, FIELDS };
static const char *const field_names[FIELDS] = {"_context", "_callback", "_args", "_source_traceback"};
static size_t offset_of[FIELDS];

/* Borrowed; NULL: not set. */
static void *field(const char *handle, enum field which)
{
    void *value;
    memcpy(&value, handle + offset_of[which], sizeof value);
    return value;
}

static bool only_place_of(const void *wanted, const char *object, size_t size, size_t *offset)
{
    unsigned found = 0;
    for (size_t at = 2 * sizeof(void *); at + sizeof(void *) <= size; at += sizeof(void *)) {
        if (memcmp(object + at, &wanted, sizeof wanted) != 0)
            continue;
        *offset = at;
        found++;
    }
    return found == 1;
}

static bool probed(void *handle, size_t size, enum field which)
{
    void *mark = py.List_New(0), *name = NULL;
    bool found = mark != NULL && named(&name, field_names[which]) && py.Object_SetAttr(handle, name, mark) == 0 &&
                 only_place_of(mark, handle, size, &offset_of[which]);
    py._DecRef(name);
    py._DecRef(mark);
    return found;
}

/* `handle`: a fresh one that belongs to nobody; `size`: its __basicsize__. */
static bool all_probed(void *handle, size_t size)
{
    return probed(handle, size, CONTEXT) && probed(handle, size, CALLBACK) && probed(handle, size, ARGS) &&
           probed(handle, size, SOURCE_TRACEBACK);
}

/* --- counting -------------------------------------------------------------------------------------------------------------- */

void *asked(void *function, void *about)
{
    struct thread *t = thread_self();
    unsigned depth = t != NULL ? t->depth : 0;
    if (t != NULL)
        t->depth = 1;
    py._IncRef(function);  /* the agent may leave meanwhile */
    void *answer = py.Object_CallFunctionObjArgs(function, about, NULL);
    py._DecRef(function);
    if (t != NULL && t == thread_self()) {
        t->depth = depth;
        t->last_handler_ns = now_ns();
    }
    return answer;
}

/* Whether the thread's state is what it was: the agent may have left, or the process forked. */
static bool still(const struct thread *t)
{
    return t != NULL && t == thread_self() && armed && atomic_load_explicit(&pulse_active, memory_order_relaxed);
}

static bool counted(struct thread *t, void *callback, uint64_t spent_ns, uint64_t weight, bool overdue)
{
    uint64_t base = 0, *cells = (uint64_t *)(void *)shared;
    if (!identified(callback, &base))
        return false;
    if (base == 0 || !still(t) || base + OCTAVES * SUB_BUCKETS > cells[H_SIZE] / CELL)
        return true;
    uint64_t *cell = &cells[base + bucket_of(spent_ns)];
    __atomic_store_n(cell, *cell + weight, __ATOMIC_RELAXED);
    if (overdue)
        note_handler(t, base, spent_ns);
    return true;
}

/* Xorshift (Marsaglia 2003). The clock's own noise would not do: handlers as short as these end at almost even distances,
 * and with `now % 17` up to a third too many or too few were drawn. */
static bool is_drawn(void)
{
    static uint64_t state = 0x9E3779B97F4A7C15ull;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state >> 60 == 0;
}

/* The handler begins where the one before it ended, so that one look at the clock is enough. */
static bool timed(struct thread *t, uint64_t begun, void *callback)
{
    uint64_t now = now_ns(), spent = now - t->last_handler_ns;
    t->last_handler_ns = now;
    if (callback == NULL)
        return true;
    bool overdue = atomic_load_explicit(&t->overdue, memory_order_relaxed) == begun;
    if (overdue || spent >= threshold_ns / FLOOR)
        return counted(t, callback, spent, 1, overdue);
    return !is_drawn() || counted(t, callback, spent, ONE_IN, false);
}

static THREAD_LOCAL const void *adopted;  /* the loop that the agent was last asked to adopt; never looked into */
static THREAD_LOCAL uint64_t adopted_ns;

/* A loop that is not observed in this thread: it runs by unusual means, or found no room, or the process has forked. */
static bool offered(void *handle)
{
    void *answer = py.None, *loop = py.Object_GetAttr(handle, name_loop);
    if (loop == NULL) {
        py.Err_Clear();
        return true;
    }
    uint64_t now = now_ns();
    if (loop != adopted || now - adopted_ns >= ASK_AGAIN_NS) {
        adopted = loop;
        adopted_ns = now;
        answer = asked(asyncio.adopt, loop);
        py._DecRef(answer);
    }
    py._DecRef(loop);
    return answer != NULL;
}

static uint64_t iteration_of(const struct thread *t)
{
    return still(t) ? atomic_load_explicit(&t->started_ns, memory_order_relaxed) : 0;
}

/* After a handler; `callback` NULL: nobody can say who it was. False: an error is set that is the program's. */
static bool ran(void *handle, void *callback)
{
    struct thread *t = thread_self();
    if (!armed)
        return true;
    uint64_t begun = iteration_of(t);
    if ((t == NULL || t->cells == NULL || !t->declared) && !offered(handle))
        return false;
    return begun == 0 || iteration_of(t) != begun || timed(t, begun, callback);  /* it was adopted meanwhile */
}

/* --- exceptions: asyncio's way ------------------------------------------------------------------------------------------ */

static void *passed_on(void *handle)
{
    return py.Object_CallFunctionObjArgs(asyncio.original, handle, NULL);
}

enum { OF_HANDLE, OF_CONTEXT, OF_ARGS, RAISED_TYPE, RAISED, RAISED_TRACEBACK, PARTS };

static void put_back(void *saved)
{
    void *handle = py.Tuple_GetItem(saved, OF_HANDLE);
    if (py.Object_SetAttr(handle, name_context, py.Tuple_GetItem(saved, OF_CONTEXT)) != 0 ||
        py.Object_SetAttr(handle, name_args, py.Tuple_GetItem(saved, OF_ARGS)) != 0)
        py.Err_Clear();
}

/* As a new reference; NULL for None. */
static void *part_of(void *saved, ssize_t which)
{
    void *part = py.Tuple_GetItem(saved, which);
    part = part != py.None ? part : NULL;
    py._IncRef(part);
    return part;
}

/* The context's `run`, for once. */
static void *raise_again(void *saved, void *unused)
{
    (void)unused;
    put_back(saved);
    py.Err_Restore(part_of(saved, RAISED_TYPE), part_of(saved, RAISED), part_of(saved, RAISED_TRACEBACK));
    return NULL;
}

static struct method raising = {"run", raise_again, METH_VARARGS, NULL};

static void *raising_context(void *saved)
{
    void *run = py.CFunction_NewEx(&raising, saved, NULL);
    void *context = run != NULL ? py.Object_CallFunctionObjArgs(asyncio.namespace, NULL) : NULL;
    if (context != NULL && py.Object_SetAttr(context, name_run, run) != 0) {
        py._DecRef(context);
        context = NULL;
    }
    py._DecRef(run);
    return context;
}

static void *or_none(void *object)
{
    return object != NULL ? object : py.None;
}

/* The error that is set, and the handle as it is now: a callback may have cancelled it. NULL: the error is set still. */
static void *saved_error(void *handle)
{
    void *type, *value, *traceback;
    py.Err_Fetch(&type, &value, &traceback);
    void *saved = py.Tuple_Pack(PARTS, handle, or_none(field(handle, CONTEXT)), or_none(field(handle, ARGS)), type,
                                or_none(value), or_none(traceback));
    if (saved == NULL) {
        py.Err_Restore(type, value, traceback);
        return NULL;
    }
    py._DecRef(type);
    py._DecRef(value);
    py._DecRef(traceback);
    return saved;
}

/* As Python does where an exception comes up while another is handled. Both are given up. */
static void raise_during(void *saved, void *type, void *value, void *traceback)
{
    void *of_saved[] = {part_of(saved, RAISED_TYPE), part_of(saved, RAISED), part_of(saved, RAISED_TRACEBACK)};
    py.Err_NormalizeException(&of_saved[0], &of_saved[1], &of_saved[2]);
    py.Err_NormalizeException(&type, &value, &traceback);
    if (of_saved[2] != NULL)
        py.Exception_SetTraceback(of_saved[1], of_saved[2]);
    if (of_saved[1] != value)
        py.Exception_SetContext(value, of_saved[1]);
    else
        py._DecRef(value);  /* raised anew */
    py._DecRef(of_saved[0]);
    py._DecRef(of_saved[2]);
    py.Err_Restore(type, value, traceback);
}

/* A signal or a tracer may have kept asyncio's _run from calling its context's `run`. */
static void put_back_unless_done(void *handle, void *context, void *saved)
{
    if (field(handle, CONTEXT) != context)
        return;
    void *type, *value, *traceback;
    py.Err_Fetch(&type, &value, &traceback);
    put_back(saved);
    if (type != NULL)
        raise_during(saved, type, value, traceback);
}

/* Where the callback has cancelled its own handle there are no arguments any more, which asyncio's _run would stumble
 * over: it has the callback's until it has called `run`. */
static void *through_asyncio(void *handle, void *args)
{
    void *result = NULL, *saved = saved_error(handle), *context = saved != NULL ? raising_context(saved) : NULL;
    if (context != NULL && py.Object_SetAttr(handle, name_context, context) == 0 &&
        py.Object_SetAttr(handle, name_args, args) == 0) {
        result = passed_on(handle);
        put_back_unless_done(handle, context, saved);
    } else if (saved != NULL) {
        raise_again(saved, NULL);  /* no memory for the detour */
    }
    py._DecRef(context);
    py._DecRef(saved);
    return result;
}

/* --- Handle._run ---------------------------------------------------------------------------------------------------------- */

static bool is_ordinary(void *handle)
{
    void *type = py.Object_Type(handle), *args = field(handle, ARGS);
    py._DecRef(type);
    if (type != asyncio.handle && type != asyncio.timer)
        return false;  /* its fields may be properties of its own */
    if (field(handle, SOURCE_TRACEBACK) != py.None)
        return false;  /* debug mode, where stacks are kept and shown: asyncio's frame belongs to them */
    if (args == NULL || field(handle, CONTEXT) == NULL || field(handle, CALLBACK) == NULL)
        return false;
    if (py.Tuple_Size(args) >= 0)
        return true;
    py.Err_Clear();
    return false;
}

/* context.run(callback, *args), with what asyncio does if that fails. */
static void *run_ordinary(void *handle, void *context, void *callback, void *args)
{
    if (py.Context_Enter(context) != 0) {  /* it is no context, or entered already: asyncio will find out by itself */
        py.Err_Clear();
        return passed_on(handle);
    }
    void *result = py.Object_Call(callback, args, NULL);
    if (py.Context_Exit(context) != 0 && result != NULL) {
        py._DecRef(result);
        result = NULL;
    }
    return result != NULL ? result : through_asyncio(handle, args);
}

/* The handle may let go of all of it while it runs. */
static void *run_held(void *handle, void *callback)
{
    if (!is_ordinary(handle))
        return passed_on(handle);
    void *context = field(handle, CONTEXT), *args = field(handle, ARGS);
    py._IncRef(context);
    py._IncRef(args);
    void *result = run_ordinary(handle, context, callback, args);
    py._DecRef(args);
    py._DecRef(context);
    return result;
}

static void *run(void *handle, void *unused)
{
    (void)unused;
    if (!armed)
        return passed_on(handle);
    void *callback = field(handle, CALLBACK);
    py._IncRef(callback);
    void *result = run_held(handle, callback);
    bool well = result != NULL;
    py._DecRef(result);
    well = well && ran(handle, callback);
    py._DecRef(callback);
    return well ? none() : NULL;
}

static struct method run_method = {"_run", run, METH_NOARGS, "_run($self, /)\n--\n\n"};

/* --- coming and going ------------------------------------------------------------------------------------------------------- */

static void take(void **to, void *object)
{
    void *before = *to;
    py._IncRef(object);
    *to = object;
    py._DecRef(before);
}

static void disarm(void)
{
    armed = false;
    identities_forget();
    for (void **owned = &asyncio.handle; owned < (void **)(&asyncio + 1); owned++)
        take(owned, NULL);
}

void *runner_on(void *self, void *arguments)
{
    void *fresh = NULL, *given[sizeof asyncio / sizeof(void *)];
    ssize_t size = 0;
    (void)self;
    if (!py.Arg_ParseTuple(arguments, "OnOOOOOOOOOOOOOO", &fresh, &size, &given[0], &given[1], &given[2], &given[3],
                           &given[4], &given[5], &given[6], &given[7], &given[8], &given[9], &given[10], &given[11],
                           &given[12], &given[13]))
        return NULL;
    disarm();
    if (!named(&name_context, "_context") || !named(&name_args, "_args") || !named(&name_loop, "_loop") ||
        !named(&name_run, "run") || !identities_begin())
        return NULL;
    if (!all_probed(fresh, (size_t)size)) {
        py.Err_Clear();
        return none();
    }
    for (size_t i = 0; i < sizeof given / sizeof *given; i++)
        take((void **)&asyncio + i, given[i]);
    void *builtin = py.Descr_NewMethod(asyncio.handle, &run_method);
    armed = builtin != NULL;
    return builtin;
}

void *runner_off(void *self, void *unused)
{
    (void)self, (void)unused;
    disarm();
    return none();
}
