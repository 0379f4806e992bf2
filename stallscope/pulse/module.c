/* What the agent calls: builtin functions, in a dict that comes out of the library's one entry.
 *
 * The library is loaded as an extension module is, though it makes no module: those structures differ from version to
 * version, and what is a module once the interpreter keeps for good. What failed: loading it with _ctypes. That brings
 * libffi into the process, which since 3.5 opens its own file and never closes it; and each time it leaves its module
 * behind. */
#include "descriptors.h"
#include "python.h"

#include <dlfcn.h>
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TAKE_BYTES (1u << 18)

enum { FUTEX_WAIT_PRIVATE = 128, FUTEX_WAKE_PRIVATE = 129 };  /* musl's own headers have none of the kernel's */

static void *number(int value)
{
    return py.Long_FromUnsignedLongLong((unsigned long long)value);
}

/* start(memory, threshold_ns, main_tid, captured, wants_sites) -> 0 or errno: hook everything. `memory` is a writable
 * buffer, the agent's mapping of the shared memory; `wants_sites`: of short calls too the sites are looked at. */
static void *start(void *self, void *arguments)
{
    int tid = 0, wants_sites = 0;
    unsigned long long threshold = 0;
    void *list = NULL;
    struct buffer memory;
    (void)self;
    if (!py.Arg_ParseTuple(arguments, "w*KiOp", &memory, &threshold, &tid, &list, &wants_sites))
        return NULL;
    int error = atomic_load(&pulse_active) ? EALREADY : 0;  /* the list of that start stays */
    if (error == 0) {
        py._IncRef(list);
        captured = list;
        muted = false;
        sites_wanted = wants_sites != 0;
        elf_interpreter((const void *)(uintptr_t)py.Eval_RestoreThread);
        void *state = py.Eval_SaveThread();  /* it reads the tables of all objects: the program need not wait for that */
        error = pulse_begin(memory.at, (size_t)memory.size, threshold, tid);
        py.Eval_RestoreThread(state);
        if (error != 0) {
            captured = NULL;
            py._DecRef(list);
        }
    }
    py.Buffer_Release(&memory);
    return number(error);
}

/* stop() -> how many words were put back. The library stays: a thread may be inside one of its functions. */
static void *stop(void *self, void *unused)
{
    (void)self, (void)unused;
    audit_stop();
    if (!atomic_load(&pulse_active))
        return number(0);
    void *list = captured;
    captured = NULL;
    void *state = py.Eval_SaveThread();
    int restored = pulse_end();
    py.Eval_RestoreThread(state);
    py._DecRef(list);
    return number(restored);
}

/* mute(): no more stacks are asked for. */
static void *mute(void *self, void *unused)
{
    (void)self, (void)unused;
    muted = true;
    return none();
}

/* enter(): the calling thread is to run loops, one after another. */
static void *enter(void *self, void *unused)
{
    (void)self, (void)unused;
    thread_enter();
    return none();
}

/* open(slot_at, epoll_fd, mark_fd, running) -> 0 or errno: the calling thread's loop. */
static void *open_loop(void *self, void *arguments)
{
    unsigned long long slot_at = 0;
    int epoll_fd = -1, mark_fd = -1, running = 0;
    (void)self;
    if (!py.Arg_ParseTuple(arguments, "Kiip", &slot_at, &epoll_fd, &mark_fd, &running))
        return NULL;
    return number(thread_open(slot_at, epoll_fd, mark_fd, running != 0) == 0 ? 0 : ENOMEM);
}

/* expect(tid, slot_at, epoll_fd, mark_fd, running) -> 0 or errno: the loop of another thread, from its next wait on. */
static void *expect_loop(void *self, void *arguments)
{
    unsigned long long slot_at = 0;
    int tid = 0, epoll_fd = -1, mark_fd = -1, running = 0;
    (void)self;
    if (!py.Arg_ParseTuple(arguments, "iKiip", &tid, &slot_at, &epoll_fd, &mark_fd, &running))
        return NULL;
    return number(thread_expect(tid, slot_at, epoll_fd, mark_fd, running != 0) == 0 ? 0 : ENOMEM);
}

/* close(): the calling thread's loop has ended its run; its last iteration ends here. */
static void *close_loop(void *self, void *unused)
{
    (void)self, (void)unused;
    if (atomic_load(&pulse_active))
        thread_close();
    return none();
}

/* no_loop(epoll_fd): who waits on it is no loop for that. */
static void *no_loop(void *self, void *arguments)
{
    int epoll_fd = -1;
    (void)self;
    if (!py.Arg_ParseTuple(arguments, "i", &epoll_fd))
        return NULL;
    descriptor_is_no_loops(epoll_fd);
    return none();
}

/* last(): the calling thread's loop waits once more; what comes after that wait is no iteration. */
static void *last_wait(void *self, void *unused)
{
    (void)self, (void)unused;
    if (atomic_load(&pulse_active))
        run_ends_with_wait();
    return none();
}

static _Atomic bool look_wanted;

/* take() -> [bytes, ...]: finished stalls and seen calls of each thread, as struct record_head and what follows. A look
 * begins with it: it is what those get who wanted one. */
static void *take(void *self, void *unused)
{
    static uint8_t room[TAKE_BYTES];
    void *list = py.List_New(0);
    (void)self, (void)unused;
    atomic_store(&look_wanted, false);
    for (int i = 0; list != NULL && i < THREADS && atomic_load(&threads[i]) != NULL; i++) {
        size_t size = ring_take(atomic_load(&threads[i]), room, sizeof room);
        void *bytes = size > 0 ? py.Bytes_FromStringAndSize((const char *)room, (ssize_t)size) : NULL;
        if (bytes == NULL)
            continue;
        py.List_Append(list, bytes);
        py._DecRef(bytes);
    }
    return list;
}

/* --- the agent's thread, between two looks ------------------------------------------------------------------------- */

static _Atomic uint32_t nudges;
static uint32_t answered;  /* the agent's thread alone has to do with it */

void nudge_for_stack(void)
{
    atomic_fetch_add(&nudges, 1);
    syscall(SYS_futex, &nudges, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void nudge(void)
{
    atomic_store(&look_wanted, true);
    nudge_for_stack();
}

/* Whether the agent has something to do: to leave, to take what has ended, to publish what is overdue. */
static bool has_work(void)
{
    bool has = __atomic_load_n((uint64_t *)(void *)shared + H_STOP, __ATOMIC_RELAXED) != 0;
    uint64_t now = now_ns();
    for (int i = 0; i < THREADS && atomic_load(&threads[i]) != NULL; i++) {
        const struct thread *t = atomic_load(&threads[i]);
        uint64_t begun = atomic_load(&t->started_ns);
        has |= ring_holds(t) || (begun != 0 && now >= begun + quarter_ns);
    }
    return has;
}

/* Sleep until somebody nudges (true), for the whole of longest_ns, or for a multiple of ns if there is something to do. */
static bool sleep_until_wanted(uint64_t ns, uint64_t longest_ns)
{
    if (atomic_load(&look_wanted))  /* since the last look began */
        return true;
    uint64_t until = now_ns() + longest_ns;
    struct timespec time = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    do
        syscall(SYS_futex, &nudges, FUTEX_WAIT_PRIVATE, answered, &time, NULL, 0);  /* not at all, if nudged since */
    while (atomic_load(&nudges) == answered && now_ns() < until && !has_work());
    uint32_t before = answered;
    answered = atomic_load(&nudges);
    return answered != before;
}

/* wait(ns, longest_ns) -> (token, late_ns, has_ended, is_over): without the GIL, which a saturated program would have to
 * give up for us. With a token other than 0 the main thread's stack was wanted, and the caller has waited late_ns for the
 * GIL: it is to take the stack unless that iteration has_ended meanwhile. That may be all that it was woken for: is_over
 * says whether somebody wants more. */
static void *wait_for_nudge(void *self, void *arguments)
{
    unsigned long long ns = 0, longest_ns = 0;
    (void)self;
    if (!py.Arg_ParseTuple(arguments, "KK", &ns, &longest_ns))
        return NULL;
    uint64_t rested = now_ns();
    void *state = py.Eval_SaveThread();
    bool is_nudged = sleep_until_wanted(ns, longest_ns);
    uint64_t woken = now_ns(), late = 0;
    bool has_ended = false;
    py.Eval_RestoreThread(state);
    int is_over = atomic_load(&look_wanted) || !is_nudged;
    uint64_t token = stack_wanted_of_nudged(rested, woken, &late, &has_ended);
    return py._BuildValue("(KKii)", (unsigned long long)token, (unsigned long long)late, has_ended, is_over);
}

/* nudge(): end the agent's rest. */
static void *nudge_agent(void *self, void *unused)
{
    (void)self, (void)unused;
    nudge();
    return none();
}

/* dropped() -> how many stalls' details found no room. */
static void *dropped_count(void *self, void *unused)
{
    (void)self, (void)unused;
    return py.Long_FromUnsignedLongLong(atomic_load(&dropped));
}

/* stops() -> (until_ns, [(from_ns, to_ns, seen_ns), ...]): when the whole process was stopped, as far as was watched. */
static void *stops(void *self, void *unused)
{
    struct stop found[STOPS];
    uint64_t until = 0;
    unsigned count = watchdog_stops(found, &until);
    void *list = py.List_New(0);
    (void)self, (void)unused;
    for (unsigned i = 0; list != NULL && i < count; i++) {
        void *entry = py._BuildValue("(KKK)", (unsigned long long)found[i].from_ns, (unsigned long long)found[i].to_ns,
                                     (unsigned long long)found[i].seen_ns);
        if (entry != NULL && py.List_Append(list, entry) == 0)
            py._DecRef(entry);
    }
    return list != NULL ? py._BuildValue("(KN)", (unsigned long long)until, list) : NULL;
}

static uintptr_t ident_of(pid_t tid)
{
    for (int i = 0; i < THREADS && atomic_load(&threads[i]) != NULL; i++) {
        const struct thread *t = atomic_load(&threads[i]);
        if (atomic_load(&t->used) && t->tid == tid)
            return t->ident;
    }
    return 0;
}

/* undeclared() -> [(slot_at, tid, identity of that thread, path of the object that waits), ...]: loops known by their
 * waits alone, those that run and those that are over and have no name yet. */
static void *undeclared_loops(void *self, void *unused)
{
    void *list = py.List_New(0);
    (void)self, (void)unused;
    for (int slot = UNDECLARED; list != NULL && slot < LOOPS; slot++) {
        uint64_t slot_at = LOOPS_AT + (uint64_t)slot * LOOP_BYTES, *cells = (uint64_t *)(void *)(shared + slot_at);
        bool is_open = __atomic_load_n(&cells[L_STATE], __ATOMIC_ACQUIRE) == LOOP_OPEN;
        Dl_info object;
        if (cells[L_EPOCH] == 0 || (!is_open && shared[slot_at + LOOP_TEXT_AT] != '\0'))
            continue;
        const char *path = dladdr((void *)(uintptr_t)cells[L_WAITS_FROM], &object) != 0 ? object.dli_fname : "";
        void *entry = py._BuildValue("(KiKN)", (unsigned long long)slot_at, (int)cells[L_TID],
                                    (unsigned long long)ident_of((pid_t)cells[L_TID]), py.Unicode_DecodeFSDefault(path));
        if (entry != NULL && py.List_Append(list, entry) == 0)
            py._DecRef(entry);
    }
    return list;
}

/* names() -> [[reported name, kind], ...] by hook number. */
static void *names(void *self, void *unused)
{
    void *list = py.List_New(0);
    (void)self, (void)unused;
    for (unsigned i = 0; list != NULL && i < hook_count; i++) {
        void *name = py.Unicode_InternFromString(hooks[i].reported);
        if (name == NULL)
            break;
        py.List_Append(list, name);
        py._DecRef(name);
    }
    return list;
}

static struct method methods[] = {
    {"start", start, METH_VARARGS, NULL},       {"stop", stop, METH_NOARGS, NULL},
    {"open", open_loop, METH_VARARGS, NULL},    {"close", close_loop, METH_NOARGS, NULL},
    {"mute", mute, METH_NOARGS, NULL},          {"no_loop", no_loop, METH_VARARGS, NULL},
    {"enter", enter, METH_NOARGS, NULL},
    {"take", take, METH_NOARGS, NULL},          {"names", names, METH_NOARGS, NULL},
    {"dropped", dropped_count, METH_NOARGS, NULL}, {"wait", wait_for_nudge, METH_VARARGS, NULL},
    {"nudge", nudge_agent, METH_NOARGS, NULL},
    {"asyncio", python_know_asyncio, METH_VARARGS, NULL},
    {"expect", expect_loop, METH_VARARGS, NULL}, {"last", last_wait, METH_NOARGS, NULL},
    {"undeclared", undeclared_loops, METH_NOARGS, NULL},
    {"runner_on", runner_on, METH_VARARGS, NULL}, {"runner_off", runner_off, METH_NOARGS, NULL},
    {"stops", stops, METH_NOARGS, NULL},        {"listen", audit_listen, METH_VARARGS, NULL},
};

static void *functions(void)
{
    void *dict = python_names() ? py.Dict_New() : NULL;
    for (size_t i = 0; dict != NULL && i < sizeof methods / sizeof *methods; i++) {
        void *function = py.CFunction_NewEx(&methods[i], NULL, NULL);
        if (function == NULL || py.Dict_SetItemString(dict, methods[i].name, function) != 0)
            break;
        py._DecRef(function);
    }
    return dict;
}

/* The 7 grows with every change of what these functions take and give, and of the records: a process may keep the library
 * of an older stallscope. Called by the interpreter's loader, with the GIL. It always fails: with an ImportError whose
 * argument is the dict, or with another error, or (this is no CPython that we know) with none, which makes a SystemError. */
__attribute__((visibility("default"))) void *PyInit_pulse_functions_7(void)
{
    void *dict = python_find() ? functions() : NULL;
    if (dict != NULL) {
        py.Err_SetObject(*py.ImportError, dict);
        py._DecRef(dict);
    }
    return NULL;
}
