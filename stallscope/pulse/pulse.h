/* The pulse: exact iterations and exact blocking calls of event loops, from inside the process.
 *
 *   elf.c        finds the words through which each loaded object calls libc, and changes them
 *   loader.c     the loader's list of objects, looked at without harm
 *   names.c      the hooks by the names that the linker knows
 *   hooks.c      what they point to then; the list of calls is hooks.def
 *   special.c    those that are written out by hand
 *   thread.c     the state of a loop's thread: its iteration, its histogram
 *   found.c      loops that are known by their waits, or by those who run them
 *   log.c        the calls of the iteration in progress, and the ring in which finished stalls leave
 *   descriptors.c  which descriptors cannot block
 *   resources.c  descriptor -> path or peer, arguments -> text
 *   kernel.c     what the kernel knows of a thread: CPU time, run-queue delay, state
 *   spent.c      what of that is an iteration's
 *   watchdog.c   a thread that never takes the GIL; it notices the iteration that is overdue
 *   python.c     CPython's functions, found with dlsym; the stack of a call, taken in its own frame
 *   runner.c     Handle._run as a builtin
 *   identity.c   which handler a callback is
 *   process.c    begin and end, in a process of any kind
 *   audit.c      the interpreter's audit events, those that somebody wants
 *   module.c     the functions that the agent calls
 *
 * Nothing here includes CPython's headers: one build serves every version. Nothing on the paths that
 * the program itself runs through allocates, locks, or takes the GIL. Times are nanoseconds on
 * CLOCK_MONOTONIC.
 */
#ifndef PULSE_H
#define PULSE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "layout.h"

/* Initial-exec costs one instruction an access, and the loader has room for a few bytes of it in a
 * library that comes late; musl's has not. */
#ifdef __GLIBC__
#define THREAD_LOCAL __thread __attribute__((tls_model("initial-exec")))
#else
#define THREAD_LOCAL __thread
#endif

#define UNKNOWN UINT64_MAX

/* --- process.c ------------------------------------------------------------------------------ */

/* Hook everything; `memory` is the shared memory (layout.h), mapped with MAP_SHARED, of which a mapping of our own is
 * made; an iteration of stall_ns or more is a stall; pending calls run in main_thread (its kernel id). Returns 0, or the
 * error's number; then nothing was changed. */
int pulse_begin(void *memory, size_t size, uint64_t stall_ns, pid_t main_thread);
int pulse_end(void);  /* put everything back; returns how many words */

/* --- hooks ------------------------------------------------------------------------------- */

enum kind {        /* what a call touches, and which argument says so */
    OF_NOTHING,
    OF_FD,         /* a: descriptor */
    OF_PATH,       /* a: path */
    OF_PATH_AT,    /* a: descriptor of the directory, b: path */
    OF_ADDRESS,    /* a: descriptor, and in the upper half the size of b: struct sockaddr, or NULL */
    OF_HOST,       /* a: host name, or NULL; b: service, or NULL */
    OF_POLL,       /* a: struct pollfd[], b: how many */
    OF_TIMER,      /* a: nanoseconds, or -1: not a duration */
    OF_CHILD,      /* a: pid, or -1: any */
    OF_LOCK,       /* a: the lock's address */
    OF_GIL,        /* a: the condition's address */
    OF_RUN,        /* no call that blocks: hooked only in a library that runs loops by it */
};

struct hook {
    const char *symbol;    /* as the linker knows it */
    const char *reported;  /* as the kernel and strace name it */
    enum kind kind;
    void *replacement;
};

extern const struct hook hooks[];
extern const unsigned hook_count;
extern void *real[];           /* by hook: libc's own function; NULL where this libc has none */
extern unsigned gil_wait_hook;  /* the number under which a wait for the GIL is noted */

void hooks_find(void);  /* fill real[] */

/* Number of the hook for a symbol name, or -1. */
int hook_named(const char *symbol);

/* --- what elf.c does ------------------------------------------------------------------------ */

void *interpreter_replacement(int hook), *openssl_replacement(int hook);  /* for a word of their own objects; NULL: none */

int elf_hook(void);       /* change the words of all loaded objects; returns how many it has changed so far */
int elf_unhook(void);     /* put back what stood there; returns how many */
bool elf_changed(void);   /* whether objects were loaded or unloaded since elf_hook looked */
void elf_fork_begins(void);  /* before a fork, and after it in the parent, and in the child */
void elf_fork_ended(void);
void elf_forked(void);
void elf_interpreter(const void *inside);  /* the object in which waits on conditions are waits for the GIL */

/* --- one loop's thread ---------------------------------------------------------------------- */

#define TEXT_BYTES 232
#define CALLS 64
#define TICKS 96
#define PASSES 32  /* calls of an iteration that pass because they cannot block; thousands would be its cost */
#define PREFIX_BYTES 160
#define HANDLER_SLOTS 64  /* bits of parts_used */
#define HOOKS_MAX 256
#define OUTER_LOOPS 4

struct call {  /* one call, or (count > 1) the sum of many short ones; native byte order, read by agent/pulse.py */
    uint64_t start_ns, duration_ns, last_ns;  /* last_ns: when the last one ended */
    uint64_t token;                           /* of its stack, as it returned; 0: none was asked for */
    uint64_t met_token;                       /* of its stack, as the watchdog met the thread in it; 0: it did not */
    int64_t argument;                         /* descriptor, pid, or ns */
    uint32_t hook, count;
    char text[TEXT_BYTES];                    /* path, peer, host */
};

struct tick {  /* the watchdog's look at an overdue iteration */
    uint64_t from_ns, at_ns;  /* since the look before, or since the iteration's start */
    uint64_t cpu_ns, run_delay_ns;  /* spent since then by the thread; UNKNOWN */
    uint64_t switches;              /* voluntary ones, since the thread began; UNKNOWN */
    uint64_t token;           /* of the stack that was asked for; 0: the thread was in a hooked call */
    uint64_t arguments[2];    /* of the system call */
    int32_t system_call;      /* number; -1: none, or not known */
    uint32_t state;           /* R, S, D, T …; 0: not known */
};

struct part {  /* a handler's part in the iteration */
    uint64_t handler;  /* cell index of its histogram */
    uint64_t calls, total_ns;
};

struct sum {  /* the calls of one kind in the iteration in progress that were too short to be noted one by one */
    _Alignas(64) uint64_t iteration;  /* all but the text is one line of the cache */
    uint64_t first_ns, last_ns, total_ns, asked_ns, token;
    int64_t argument;
    uint32_t count, prefix;  /* prefix: length of the common part of the paths */
    char text[PREFIX_BYTES];
};

struct reading {  /* a thread's counters at a moment; UNKNOWN where the kernel does not say */
    uint64_t at_ns, cpu_ns, run_delay_ns;
};

/* A reading that the loop's thread takes of itself as an iteration begins, and busy_ns at that moment. The watchdog reads
 * it while that iteration or a later one goes on: it is sound if started_ns is the same before and after. */
struct base {
    _Atomic uint64_t at_ns, cpu_ns, run_delay_ns, busy_ns;
};

struct held_file {  /* a file of /proc held open: descriptor (-1: none) and inode, by which we know it is still ours */
    _Atomic int fd;
    ino_t inode;
};

struct drawn;  /* log.c: how often each kind of call came, and when a stack was last asked for */

struct thread {
    /* what the hooks touch in each iteration: two lines of the cache, of which the kernel leaves us little */
    _Atomic uint64_t started_ns;  /* of the iteration in progress; 0: in the wait, or no loop */
    uint64_t *_Atomic cells;      /* the loop's slot in the shared memory; NULL: no loop */
    uint64_t iteration;           /* number of the iteration in progress */
    _Atomic uint64_t busy_ns;     /* sum of all iterations that have ended */
    int epoll_fd, mark_fd;        /* how its wait is told from another: see wait_begins */
    volatile unsigned depth;      /* 1: in a hooked call, or in code of ours */
    bool declared;                /* by the agent; else known by its waits alone */
    bool runs;                    /* a library said so: what comes before its first wait is an iteration too */
    bool ends_with_wait;          /* what comes after the next wait is no iteration */
    _Atomic bool main;            /* the interpreter's main thread: pending calls run here */
    unsigned calls_passed;        /* of the iteration: without a look at the clock, */
    unsigned calls_noted;         /* one by one, */
    unsigned sums_touched;        /* in sums */
    _Atomic uint32_t call;        /* hook number + 1 of the call in progress; 0: none */
    _Atomic uint64_t call_since_ns;
    uint64_t last_handler_ns;     /* runner: end of the handler before */
    uint64_t parts_used;          /* a bit for each of the parts */
    _Atomic uint64_t overdue;     /* start of the iteration that the watchdog found overdue */
    struct base base;             /* what its iterations are measured from */

    /* loops inside whose handlers this one runs, outermost first */
    _Atomic unsigned outer_count;
    struct outer {
        uint64_t *cells, started_ns, busy_ns;
        struct reading base;
        uint64_t base_busy_ns;
        int epoll_fd, mark_fd;
        bool declared;
    } outer[OUTER_LOOPS];

    /* of the iteration in progress */
    uint8_t touched[64];
    struct part parts[HANDLER_SLOTS];
    struct call noted[CALLS];
    struct sum sums[HOOKS_MAX];
    struct drawn *drawn;

    /* the watchdog's */
    struct reading before;        /* the latest look at an overdue iteration, */
    _Atomic uint64_t ticks_of;    /* and that one's start */
    uint64_t due_ns;
    _Atomic unsigned ticks;
    _Atomic uint64_t held_token;  /* asked for by a tick, and not yet run */
    _Atomic uint64_t held_since_ns;
    uint64_t asked_in_ns;         /* start of the call in which it last asked for a stack, */
    _Atomic uint64_t met_in_ns, met_token;  /* and of the one in which it was given one, and that */
    struct tick tick[TICKS];
    struct held_file status, schedstat, system_call;
    _Atomic clockid_t cpu_clock;

    /* the ring in which finished stalls leave: one writer, the loop's thread; one reader, the agent */
    uint8_t *ring;
    _Atomic uint64_t ring_head, ring_tail;

    int connecting_fd;            /* the last connection that was begun without waiting for it, and where to */
    unsigned connecting_size;
    uint8_t connecting_to[128];

    uintptr_t stack_top;
    pid_t tid;
    uintptr_t ident;              /* CPython's name for it, which is libc's */
    _Atomic int used;             /* 0: free for another thread */
    uint64_t waited_ns;           /* return of the first wait of what may become a loop */
    unsigned met_in;              /* the start of the pulse in which that was */
    uint64_t own_slot_at, own_epoch;  /* where its loop was that nobody declared, for the next one of that library */
    uint64_t rest;                /* the code object (its address) in which the loop is run; 0: not known */
};

#define THREADS LOOPS
extern struct thread *_Atomic threads[THREADS];

extern _Atomic bool pulse_active;
extern unsigned starts;                   /* how often it has begun, this time included */
extern _Atomic uint64_t threshold_ns, quarter_ns, slow_ns, fresh_ns;
extern uint8_t *shared;            /* the shared memory; always at the same address, once it was mapped */
extern _Atomic pid_t main_tid;
extern _Atomic uint64_t dropped;   /* stalls whose details found no room */

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline unsigned bucket_of(uint64_t duration_ns)
{
    if (duration_ns < SUB_BUCKETS)
        return 0;
    if (duration_ns > MAX_NS)
        duration_ns = MAX_NS;
    unsigned shift = 63u - (unsigned)__builtin_clzll(duration_ns) - SUB_BITS;
    return (shift << SUB_BITS) + (unsigned)(duration_ns >> shift) - SUB_BUCKETS;
}

/* Each hook asks: a call would cost as much again where the kernel forgets the branches of its users. */
extern THREAD_LOCAL struct thread *this_thread;

/* The calling thread's state; NULL: it is no loop's. */
static inline struct thread *thread_self(void)
{
    return this_thread;
}

/* The same inside an iteration, and outside of other hooked calls and of our own code; else NULL. */
static inline struct thread *thread_in_iteration(void)
{
    struct thread *t = this_thread;
    if (t == NULL || t->depth != 0 || atomic_load_explicit(&t->started_ns, memory_order_relaxed) == 0)
        return NULL;
    return t;
}

/* Before and after the loop's own wait. `fd` is its epoll descriptor, or -1: then `marked` says whether the wait
 * includes the thread's mark_fd. NULL: this wait is not the loop's, and an ordinary call. */
struct thread *wait_begins(int fd, bool marked, bool zero_timeout, const void *from);
void wait_ended(struct thread *t);
int wait_mark(void);  /* the calling thread's mark_fd; -1: none */
void descriptor_closed(int fd);
/* A library begins to run its loop in the calling thread, below a Python frame of the code `rest`; and has ended. */
void run_begins(uint64_t rest);
void run_ended(void);
void run_ends_with_wait(void);  /* the loop will wait once more, and then leave */

void thread_enter(void);  /* the calling thread is to run loops: what is held open for them is opened now */
/* The agent declares the calling thread's loop; `running`: it is in the middle of an iteration. Returns 0, or -1: no
 * room. */
int thread_open(uint64_t slot_at, int epoll_fd, int mark_fd, bool running);
/* The same for a loop that runs in another thread: it is opened as that enters its next wait. Until then the start of
 * an iteration that it is in (`running`) stands in its slot alone, for the agent: a handler that hangs never gets there. */
int thread_expect(pid_t tid, uint64_t slot_at, int epoll_fd, int mark_fd, bool running);
void thread_close(void);
int threads_start(void);   /* once in a process, and again in a forked child; 0, or the error's number */
void threads_stop(void);   /* every thread's hooks become pass-throughs */

/* --- log.c ------------------------------------------------------------------------------------ */

enum record { STALL = 1, SEEN = 2 };

extern _Atomic bool sites_wanted;  /* of calls in no stall, too: SEEN */

struct stall_head {
    uint64_t start_ns, end_ns;
    uint64_t cpu_ns, run_delay_ns;  /* of the iteration; UNKNOWN */
    uint64_t slot_at, rest;
    uint32_t calls, ticks, parts, lost;
};

struct seen {  /* a call whose site was asked for, in a stall or not */
    struct call call;
    uint64_t weight, weight_ns;  /* it stands for so many calls of its kind, that took so long together */
};

struct record_head {  /* before each record that ring_take gives */
    uint32_t size, type;  /* size: of the whole record, its head included; type: enum record */
};

/* The agent unpacks these by their members, one after the other: there must be nothing between them. */
_Static_assert(sizeof(struct call) == 6 * 8 + 2 * 4 + TEXT_BYTES, "a gap in struct call");
_Static_assert(sizeof(struct tick) == 8 * 8 + 2 * 4, "a gap in struct tick");
_Static_assert(sizeof(struct part) == 3 * 8, "a gap in struct part");
_Static_assert(sizeof(struct stall_head) == 6 * 8 + 4 * 4, "a gap in struct stall_head");
_Static_assert(sizeof(struct seen) == sizeof(struct call) + 2 * 8, "a gap in struct seen");
_Static_assert(sizeof(struct record_head) == 2 * 4, "a gap in struct record_head");

void note_call(struct thread *t, unsigned hook, uint64_t start_ns, uint64_t end_ns, intptr_t a, intptr_t b);
void note_handler(struct thread *t, uint64_t handler, uint64_t spent_ns);
void write_stall(struct thread *t, uint64_t start_ns, uint64_t end_ns);
void forget_iteration(struct thread *t);
bool ring_holds(const struct thread *t);  /* whether there is something to take */
size_t ring_take(struct thread *t, uint8_t *to, size_t room);  /* whole records; 0: none */
int log_prepare(struct thread *t);

/* --- resources.c ------------------------------------------------------------------------------ */

/* Text of what a call touched; the arguments must still be valid. Keeps errno's value to its caller. */
void describe(enum kind kind, intptr_t a, intptr_t b, char *text, size_t room, int64_t *argument);
void note_connecting(struct thread *t, int fd, const void *to, unsigned size);

/* --- kernel.c ----------------------------------------------------------------------------------- */

void kernel_open(struct thread *t);   /* in the thread itself */
void kernel_close(struct thread *t);
void kernel_read(struct thread *t, struct reading *reading);
void kernel_read_own(struct thread *t, struct reading *reading);  /* in the thread itself */
void kernel_state(struct thread *t, struct tick *tick);  /* state and system call */

bool kernel_in_signal_handler(const struct thread *t);

/* --- spent.c ------------------------------------------------------------------------------------ */

struct spent {  /* UNKNOWN where nothing was read before it */
    uint64_t cpu_ns, run_delay_ns;
};

struct spent spent_between(const struct reading *then, const struct reading *now);
/* By the thread in its iteration that began at `begun`, up to that reading. Another thread may ask, too: the answer is
 * worth something if the iteration goes on after it. */
struct spent spent_since(const struct thread *t, uint64_t begun, const struct reading *now);
void base_renew(struct thread *t, uint64_t now);  /* in the thread itself, as an iteration begins */
struct reading base_reading(const struct thread *t);
void base_set(struct thread *t, const struct reading *reading, uint64_t busy_ns);

/* --- watchdog.c --------------------------------------------------------------------------------- */

struct stop {  /* the whole process did not run, and did not wait for a CPU, somewhere between from_ns and seen_ns; */
    uint64_t from_ns, to_ns, seen_ns;  /* until to_ns, unless the watchdog had waited for a CPU before already */
};
#define STOPS 16

int watchdog_start(void);  /* 0, or the error's number */
unsigned watchdog_stops(struct stop *to, uint64_t *until_ns);  /* the last STOPS of them, up to that moment; how many */
void watchdog_stop(void);
void watchdog_forked(void);  /* in the child, where it does not run */

/* --- python.c ----------------------------------------------------------------------------------- */

uint64_t stack_wanted(struct thread *t);  /* ask for the stack of the call that has just returned; its token, or 0 */
uint64_t stack_wanted_by_watchdog(struct thread *t);
uint64_t stack_wanted_of_nudged(uint64_t rested_ns, uint64_t woken_ns, uint64_t *late_ns, bool *has_ended);
void nudge_for_stack(void), nudge(void);  /* let the agent's thread ask for the GIL; and look at everything */
uint64_t python_code(void);               /* address of the code object that runs in this thread; with the GIL */
bool python_find(void);                   /* look CPython's functions up; false: this is no CPython */

/* --- runner.c ----------------------------------------------------------------------------------- */

/* runner_on(fresh handle, its size, original _run, SimpleNamespace, Handle, TimerHandle, the types of a function, method,
 * partial, builtin, coroutine, generator, Task, Task.get_coro, identify, adopt) -> the builtin that takes the place of
 * Handle._run; None: this asyncio's handles are not as we know them. See agent/runner.py. */
void *runner_on(void *self, void *arguments);
void *runner_off(void *self, void *unused);  /* from now on the builtin does what asyncio's own does, and no more */

#endif
