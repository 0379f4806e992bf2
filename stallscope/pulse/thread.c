/* The state of a loop's thread, and its iterations: from the return of the loop's wait to its next entry. */
#include "pulse.h"
#include "thread.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct thread *_Atomic threads[THREADS];
_Atomic bool pulse_active;
unsigned starts;
_Atomic uint64_t threshold_ns, quarter_ns, slow_ns, fresh_ns;
uint8_t *shared;
_Atomic pid_t main_tid;
_Atomic uint64_t dropped;

THREAD_LOCAL struct thread *this_thread;
static pthread_key_t leaving;  /* its destructor runs as a thread ends */
static bool key_made;

/* --- iterations ---------------------------------------------------------------------------------------- */

static void set_cell(uint64_t *cell, uint64_t value)
{
    __atomic_store_n(cell, value, __ATOMIC_RELAXED);
}

/* The cells are looked up once: the pulse may be stopped meanwhile, which takes the loop away. What they are in stays
 * mapped (see memory_map), so that a late write hurts nobody. */
void iteration_ends(struct thread *t)
{
    uint64_t begun = atomic_load_explicit(&t->started_ns, memory_order_relaxed), *cells = t->cells;
    if (begun == 0 || cells == NULL)
        return;
    uint64_t ended = now_ns(), spent = ended - begun;
    t->depth = 1;
    atomic_store_explicit(&t->call, 0, memory_order_relaxed);  /* left by a signal handler's longjmp, if it is there */
    atomic_store_explicit(&t->started_ns, 0, memory_order_relaxed);
    set_cell(&cells[L_STARTED], 0);
    cells[LOOP_HISTOGRAM_AT / CELL + bucket_of(spent)]++;
    if (spent >= LONG_NS)
        __atomic_store_n(&cells[L_LONG], cells[L_LONG] + 1, __ATOMIC_RELEASE);
    if (spent >= threshold_ns)
        write_stall(t, begun, ended);
    uint64_t busy = atomic_load_explicit(&t->busy_ns, memory_order_relaxed);
    atomic_store_explicit(&t->busy_ns, busy + spent, memory_order_release);
    t->depth = 0;
}

void iteration_begins(struct thread *t, uint64_t *cells)
{
    uint64_t now = now_ns();
    if (now - atomic_load_explicit(&t->base.at_ns, memory_order_relaxed) >= fresh_ns)
        base_renew(t, now);
    t->last_handler_ns = now;
    t->iteration++;
    forget_iteration(t);
    if (cells != NULL)
        set_cell(&cells[L_STARTED], now);
    atomic_store_explicit(&t->started_ns, now, memory_order_release);
}

bool has_loop(const struct thread *t)
{
    return t->cells != NULL;
}

int wait_mark(void)
{
    return this_thread != NULL ? this_thread->mark_fd : -1;
}

void zero_wait(struct thread *t, bool zero_timeout)
{
    uint64_t *cells = t->cells;
    if (zero_timeout && cells != NULL)
        cells[L_ZERO_WAITS]++;
}

/* The loop's own wait is the one on its epoll descriptor, or for loops that use poll or select the one that includes
 * the descriptor by which other threads wake it. Any other wait inside an iteration is a call that blocks. A loop that
 * nobody declared is known by its second wait on one epoll descriptor, until the thread closes that descriptor. */
struct thread *wait_begins(int fd, bool marked, bool zero_timeout, const void *from)
{
    struct thread *t = this_thread;
    if (t == NULL || !has_loop(t)) {
        if (!atomic_load_explicit(&pulse_active, memory_order_relaxed) || (t != NULL && t->depth != 0))
            return NULL;
        return found(fd, zero_timeout, from);
    }
    if (!t->declared && found_as_expected(fd)) {  /* its waits have made it known before the agent declared it */
        zero_wait(t, zero_timeout);
        return t;
    }
    if (t->runs && t->epoll_fd < 0)
        t->epoll_fd = fd;
    if (!(fd >= 0 ? t->epoll_fd == fd : marked))
        return NULL;
    iteration_ends(t);
    zero_wait(t, zero_timeout);
    return t;
}

/* If its next wait makes a loop of the thread, that has begun here. */
static void may_be_iteration(struct thread *t)
{
    forget_iteration(t);
    t->waited_ns = now_ns();
}

void wait_ended(struct thread *t)
{
    uint64_t *cells = t->cells;
    if (this_thread != t)
        return;
    if (cells == NULL)
        may_be_iteration(t);
    else if (!t->ends_with_wait)
        iteration_begins(t, cells);
    t->ends_with_wait = false;
}

/* --- opening and closing ------------------------------------------------------------------------------- */

uint64_t *cells_at(uint64_t slot_at)
{
    return (uint64_t *)(void *)(shared + slot_at);
}

static void *pages(size_t size)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

/* Structures are reused, never unmapped: the watchdog may be looking. */
static struct thread *allocated(void)
{
    for (int i = 0; i < THREADS; i++) {
        struct thread *t = atomic_load(&threads[i]);
        if (t == NULL) {
            struct thread *none = NULL;
            if ((t = pages(sizeof *t)) == NULL || log_prepare(t) != 0)
                return NULL;
            atomic_store(&t->used, 1);
            if (atomic_compare_exchange_strong(&threads[i], &none, t))
                return t;
            continue;  /* another thread was quicker: this one's pages are lost, once */
        }
        int free = 0;
        if (atomic_compare_exchange_strong(&t->used, &free, 1))
            return t;
    }
    return NULL;
}

struct thread *registered(void)
{
    struct thread *t = allocated();
    if (t == NULL)
        return NULL;
    t->tid = (pid_t)syscall(SYS_gettid);
    t->ident = (uintptr_t)pthread_self();
    t->main = t->tid == main_tid;
    t->depth = 1;
    t->schedstat.fd = t->status.fd = t->system_call.fd = -1;
    t->started_ns = t->call = t->held_since_ns = 0;
    t->cells = NULL;
    t->epoll_fd = t->mark_fd = -1;
    t->runs = t->ends_with_wait = false;
    t->own_slot_at = t->rest = 0;
    t->connecting_size = 0;
    this_thread = t;
    if (key_made)
        pthread_setspecific(leaving, t);
    t->depth = 0;
    return t;
}

static void has_files(struct thread *t)
{
    if (t->schedstat.fd < 0)
        kernel_open(t);
}

void thread_enter(void)
{
    if (this_thread != NULL || registered() != NULL)
        has_files(this_thread);
}

void takes_slot(struct thread *t, uint64_t slot_at)
{
    has_files(t);
    t->ticks_of = 0;
    base_set(t, &(struct reading){0, UNKNOWN, UNKNOWN}, 0);
    t->cells = cells_at(slot_at);
}

/* A handler runs a loop of its own: the iteration that it is in goes on when that has ended. What was noted of it is
 * lost to the inner loop's iterations. */
static bool set_aside(struct thread *t)
{
    if (t->outer_count == OUTER_LOOPS || atomic_load(&t->started_ns) == 0)
        return false;
    t->outer[t->outer_count++] = (struct outer){
        .cells = t->cells,
        .started_ns = atomic_load(&t->started_ns),
        .busy_ns = t->busy_ns,
        .base = base_reading(t),
        .base_busy_ns = t->base.busy_ns,
        .epoll_fd = t->epoll_fd,
        .mark_fd = t->mark_fd,
        .declared = t->declared,
    };
    atomic_store(&t->started_ns, 0);
    return true;
}

static void take_up_again(struct thread *t)
{
    const struct outer *outer = &t->outer[--t->outer_count];
    t->epoll_fd = outer->epoll_fd;
    t->mark_fd = outer->mark_fd;
    t->declared = outer->declared;
    t->cells = outer->cells;
    t->iteration++;
    forget_iteration(t);
    t->ticks_of = 0;
    t->last_handler_ns = now_ns();
    base_set(t, &outer->base, outer->base_busy_ns + (t->busy_ns - outer->busy_ns));
    atomic_store(&t->started_ns, outer->started_ns);
}

/* Its last iteration counts if somebody says that it ends here. What comes after the last wait of a loop that nobody
 * declared may be anything. */
void close_loop(struct thread *t, bool counts)
{
    uint64_t *cells = t->cells;  /* once: the pulse may be stopped meanwhile */
    if (cells == NULL)
        return;
    if (counts)
        iteration_ends(t);
    atomic_store_explicit(&t->started_ns, 0, memory_order_relaxed);
    set_cell(&cells[L_STARTED], 0);
    if (!t->declared)
        __atomic_store_n(&cells[L_STATE], LOOP_CLOSED, __ATOMIC_RELEASE);
    t->cells = NULL;
    t->epoll_fd = t->mark_fd = -1;
    t->runs = t->ends_with_wait = false;
    t->rest = 0;
    if (t->outer_count > 0)
        take_up_again(t);
}

/* The loop was found by its waits before it was declared. As long as nobody has named it, nobody has read its slot: what
 * was counted there moves, and the slot is as it was. Naming has the GIL; our caller has it too, but where a loop enters
 * the wait in which it was expected: one of asyncio's is not named in its first second, so that they do not meet. */
static void move_counts(struct thread *t, uint64_t slot_at)
{
    uint64_t *from = t->cells, *to = cells_at(slot_at);
    if (from == NULL || t->declared || ((char *)from)[LOOP_TEXT_AT] != '\0')
        return;
    for (size_t i = LOOP_HISTOGRAM_AT / CELL; i < LOOP_HISTOGRAM_AT / CELL + OCTAVES * SUB_BUCKETS; i++) {
        to[i] += from[i];
        from[i] = 0;
    }
    to[L_ZERO_WAITS] += from[L_ZERO_WAITS];
    to[L_LONG] += from[L_LONG];
    t->own_slot_at = 0;
    close_loop(t, false);
    uint64_t before = --from[L_EPOCH];
    from[L_DRAINED] = before;
    __atomic_store_n(&from[L_STATE], before ? LOOP_CLOSED : LOOP_FREE, __ATOMIC_RELEASE);
}

int thread_open(uint64_t slot_at, int epoll_fd, int mark_fd, bool running)
{
    struct thread *t = this_thread;
    if (t == NULL && (t = registered()) == NULL)
        return -1;
    if (t->epoll_fd == epoll_fd)
        move_counts(t, slot_at);
    if (has_loop(t) && !(t->declared && set_aside(t)))
        close_loop(t, t->declared);
    t->epoll_fd = epoll_fd;
    t->mark_fd = mark_fd;
    t->declared = true;
    takes_slot(t, slot_at);
    if (running)
        iteration_begins(t, t->cells);
    return 0;
}

void thread_close(void)
{
    if (this_thread != NULL)
        close_loop(this_thread, true);
}

/* --- the process ------------------------------------------------------------------------------------------ */

static void thread_ends(void *known)
{
    struct thread *t = known;
    if (this_thread != t)
        return;
    t->outer_count = 0;
    close_loop(t, t->declared);
    kernel_close(t);
    this_thread = NULL;
    atomic_store(&t->used, 0);
}

static void forked(void)
{
    atomic_store(&pulse_active, false);
    this_thread = NULL;
    for (int i = 0; i < THREADS; i++) {
        struct thread *t = atomic_exchange(&threads[i], NULL);
        if (t != NULL)
            kernel_close(t);
    }
    threads_stop();
    elf_forked();
    watchdog_forked();
}

int threads_start(void)
{
    static bool watching_forks;
    int error = key_made ? 0 : pthread_key_create(&leaving, thread_ends);
    key_made = error == 0;
    if (error == 0 && !watching_forks)
        watching_forks = (error = pthread_atfork(elf_fork_begins, elf_fork_ended, forked)) == 0;
    return error;
}

void threads_stop(void)
{
    found_stop();
    for (int i = 0; i < THREADS; i++) {
        struct thread *t = atomic_load(&threads[i]);
        if (t == NULL || !atomic_load(&t->used))
            continue;
        atomic_store(&t->started_ns, 0);
        atomic_store(&t->overdue, 0);
        atomic_store(&t->held_since_ns, 0);
        t->cells = NULL;
        t->outer_count = 0;
        kernel_close(t);
        atomic_store(&t->ring_tail, atomic_load(&t->ring_head));
    }
}
