/* Loops that no call of their own thread declares: the agent attached while they ran, nobody knows them but by their
 * waits, or a library tells when it runs them. */
#include "descriptors.h"
#include "thread.h"

#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* --- loops that the agent declares from another thread: it attached while they ran ------------------------------------- */

static struct {
    _Atomic pid_t tid;  /* 0: free */
    uint64_t slot_at;
    int epoll_fd, mark_fd;
} expected[LOOPS];
static _Atomic int expected_count;

int thread_expect(pid_t tid, uint64_t slot_at, int epoll_fd, int mark_fd, bool running)
{
    for (int i = 0; i < LOOPS; i++) {
        if (atomic_load(&expected[i].tid) != 0)
            continue;
        expected[i].slot_at = slot_at;
        expected[i].epoll_fd = epoll_fd;
        expected[i].mark_fd = mark_fd;
        __atomic_store_n(&cells_at(slot_at)[L_STARTED], running ? now_ns() : 0, __ATOMIC_RELAXED);
        atomic_store(&expected[i].tid, tid);
        atomic_fetch_add(&expected_count, 1);
        return 0;
    }
    return -1;
}

void found_stop(void)
{
    for (int i = 0; i < LOOPS; i++)
        atomic_store(&expected[i].tid, 0);
    atomic_store(&expected_count, 0);
}

/* The iteration that the loop was met in ends with this wait: as far as it was watched, it counts. */
static void end_adopted(struct thread *t)
{
    uint64_t begun = t->cells != NULL ? __atomic_load_n(&t->cells[L_STARTED], __ATOMIC_RELAXED) : 0;
    if (begun == 0)
        return;
    forget_iteration(t);
    atomic_store(&t->started_ns, begun);
    iteration_ends(t);
}

/* The calling thread enters a wait: is it the loop that was expected here? */
static bool opened_as_expected(int epoll_fd)
{
    pid_t tid = (pid_t)syscall(SYS_gettid);
    for (int i = 0; i < LOOPS; i++) {
        if (atomic_load(&expected[i].tid) != tid || (expected[i].mark_fd < 0 && expected[i].epoll_fd != epoll_fd))
            continue;
        atomic_store(&expected[i].tid, 0);
        atomic_fetch_sub(&expected_count, 1);
        if (thread_open(expected[i].slot_at, expected[i].epoll_fd, expected[i].mark_fd, false) != 0)
            return false;
        end_adopted(thread_self());
        return true;
    }
    return false;
}

bool found_as_expected(int epoll_fd)
{
    return atomic_load_explicit(&expected_count, memory_order_relaxed) > 0 && opened_as_expected(epoll_fd);
}

/* --- loops that nobody declares --------------------------------------------------------------------------------------- */

/* The slot that this thread had before, if it was given to nobody else: a thread that runs loop after loop has one. */
static bool retake_slot(struct thread *t, uint64_t from)
{
    uint64_t *cells = t->own_slot_at != 0 ? cells_at(t->own_slot_at) : NULL, state = LOOP_CLOSED;
    if (cells == NULL || cells[L_EPOCH] != t->own_epoch || cells[L_WAITS_FROM] != from ||
        !__atomic_compare_exchange_n(&cells[L_STATE], &state, LOOP_OPEN, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return false;
    if (cells[L_EPOCH] == t->own_epoch) {
        cells[L_DRAINED] = 0;  /* there will be more */
        return true;
    }
    __atomic_store_n(&cells[L_STATE], LOOP_CLOSED, __ATOMIC_RELEASE);  /* it came to another meanwhile, and is free again */
    return false;
}

/* A loop that nobody declared gets one of the last slots; the agent gives it a name when it sees it. */
static bool take_fresh_slot(struct thread *t, uint64_t from)
{
    for (int slot = UNDECLARED; slot < LOOPS; slot++) {
        uint64_t slot_at = LOOPS_AT + (uint64_t)slot * LOOP_BYTES, *cells = cells_at(slot_at);
        uint64_t state = __atomic_load_n(&cells[L_STATE], __ATOMIC_ACQUIRE);
        bool over = state == LOOP_CLOSED && cells[L_DRAINED] == cells[L_EPOCH];
        if ((state != LOOP_FREE && !over) ||
            !__atomic_compare_exchange_n(&cells[L_STATE], &state, LOOP_OPEN, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            continue;
        memset(shared + slot_at + LOOP_TEXT_AT, 0, 1);
        memset(shared + slot_at + LOOP_HISTOGRAM_AT, 0, OCTAVES * SUB_BUCKETS * CELL);
        cells[L_ZERO_WAITS] = 0;
        cells[L_TID] = (uint64_t)t->tid;
        cells[L_WAITS_FROM] = from;
        cells[L_OPENED] = now_ns();
        t->own_slot_at = slot_at;
        t->own_epoch = __atomic_add_fetch(&cells[L_EPOCH], 1, __ATOMIC_RELEASE);
        uint64_t *count = (uint64_t *)(void *)shared + H_LOOPS;
        __atomic_store_n(count, LOOPS, __ATOMIC_RELEASE);
        return true;
    }
    return false;
}

/* This thread's loop is counted as unseen since that start of the pulse; 0: it is not. It may have no structure. */
static THREAD_LOCAL unsigned unseen_since;
static THREAD_LOCAL int waited_on = -1;  /* the descriptor of the last wait of a thread that has none */

static void is_seen(bool seen)
{
    if (seen == (unseen_since != starts))
        return;
    __atomic_fetch_add((uint64_t *)(void *)shared + H_UNSEEN_LOOPS, seen ? UINT64_MAX : 1, __ATOMIC_RELAXED);
    unseen_since = seen ? 0 : starts;
}

static bool take_undeclared_slot(struct thread *t, const void *from)
{
    bool has_slot = retake_slot(t, (uintptr_t)from) || take_fresh_slot(t, (uintptr_t)from);
    is_seen(has_slot);
    if (!has_slot)
        return false;
    takes_slot(t, t->own_slot_at);
    nudge();
    return true;
}

/* There are more threads with loops than structures: it is a loop if it waits on the same descriptor again. */
static void has_no_structure(int epoll_fd)
{
    if (waited_on == epoll_fd)
        is_seen(false);
    waited_on = epoll_fd;
}

/* The thread waits for the first time, on this descriptor: perhaps it does so just once. */
static struct thread *may_become_loop(struct thread *t, int epoll_fd)
{
    t->epoll_fd = epoll_fd;
    t->declared = false;
    t->waited_ns = 0;
    t->met_in = starts;
    return t;
}

/* The loop of a thread that has none yet, as it enters a wait; NULL: none. */
struct thread *found(int epoll_fd, bool zero_timeout, const void *from)
{
    struct thread *t = thread_self();
    if (found_as_expected(epoll_fd)) {
        zero_wait(thread_self(), zero_timeout);
        return thread_self();
    }
    if (epoll_fd < 0 || is_no_loops(epoll_fd))
        return NULL;
    if (t == NULL && (t = registered()) == NULL) {
        has_no_structure(epoll_fd);
        return NULL;
    }
    if (!t->runs && (t->epoll_fd != epoll_fd || t->met_in != starts))  /* what it did while we were away is no iteration */
        return may_become_loop(t, epoll_fd);
    t->epoll_fd = epoll_fd;
    t->declared = false;
    if (!take_undeclared_slot(t, from))
        return NULL;
    if (!t->runs)
        atomic_store(&t->started_ns, t->waited_ns);
    iteration_ends(t);
    zero_wait(t, zero_timeout);
    return t;
}

/* The child of a vfork runs on its parent's memory, this included, but the descriptors that it closes are its own. */
void descriptor_closed(int fd)
{
    struct thread *t = thread_self();
    if (t == NULL || fd < 0 || t->epoll_fd != fd || t->declared || t->depth != 0 ||
        t->tid != (pid_t)syscall(SYS_gettid))
        return;  /* the last: a child of vfork has our memory */
    close_loop(t, false);
    t->epoll_fd = -1;
}

/* --- libraries that say when they run a loop ------------------------------------------------------------------------------ */

void run_begins(uint64_t rest)
{
    struct thread *t = thread_self();
    if (!atomic_load_explicit(&pulse_active, memory_order_relaxed) || (t != NULL && t->depth != 0))
        return;
    if ((t == NULL && (t = registered()) == NULL) || (has_loop(t) && t->declared))
        return;
    if (!t->runs)
        close_loop(t, false);  /* some other user of epoll was taken for a loop */
    t->runs = true;
    t->rest = rest;
    t->epoll_fd = -1;  /* that of the first wait */
    iteration_begins(t, t->cells);
}

void run_ended(void)
{
    struct thread *t = thread_self();
    if (t == NULL || !t->runs)
        return;
    iteration_ends(t);
    atomic_store_explicit(&t->started_ns, 0, memory_order_relaxed);
}

void run_ends_with_wait(void)
{
    struct thread *t = thread_self();
    if (t != NULL && has_loop(t) && !t->declared)
        t->ends_with_wait = true;
}

