/* What the changed words point to: each hook calls libc's own function, and between two clock readings notes what it
 * cost, if the thread is a loop's and inside an iteration. Everywhere else a hook costs one thread-local load. */
#include "descriptors.h"
#include "hooks.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/select.h>
#include <sys/time.h>
#include <sys/wait.h>

_Static_assert((int)HOOK_COUNT <= HOOKS_MAX, "struct thread has room for HOOKS_MAX sums");

void *real[HOOK_COUNT];
const unsigned hook_count = HOOK_COUNT;
unsigned gil_wait_hook = H_gil;

/* --- around a call -------------------------------------------------------------------------------- */

/* Whether the kernel has perhaps not read what an argument points to: then it may not be readable. (errno may be of an
 * earlier call: then a name is missing, or the descriptor's own stands for it.) */
static bool is_unread(enum kind kind, int error)
{
    return error == EFAULT || (kind == OF_ADDRESS && (error == EBADF || error == ENOTSOCK || error == EINVAL));
}

static void drop_pointers(enum kind kind, intptr_t *a, intptr_t *b)
{
    if (kind == OF_PATH || kind == OF_HOST || kind == OF_POLL)
        *a = 0;
    if (kind == OF_PATH_AT || kind == OF_HOST || kind == OF_ADDRESS)
        *b = 0;
}

void leave(struct thread *t, unsigned hook, uint64_t begun, intptr_t a, intptr_t b)
{
    if (thread_self() != t)  /* the child of a fork: nothing of its parent's is its own */
        return;
    int error = errno;
    uint64_t ended = now_ns();
    atomic_store_explicit(&t->call, 0, memory_order_relaxed);
    if (is_unread(hooks[hook].kind, error))
        drop_pointers(hooks[hook].kind, &a, &b);
    note_call(t, hook, begun, ended, a, b);
    atomic_signal_fence(memory_order_seq_cst);
    t->depth = 0;
    errno = error;
}

/* Whether a call may pass without a look at the clock: it cannot block, and the iteration has not made many such. */
static inline bool passes(struct thread *t, int fd)
{
    if ((unsigned)fd >= DESCRIPTORS || t->calls_passed >= PASSES)
        return false;
    uint8_t known = atomic_load_explicit(&descriptors[fd], memory_order_relaxed);
    if (known != CANNOT_BLOCK && (known != 0 || !descriptor_learn(fd)))
        return false;
    t->calls_passed++;
    return true;
}

/* --- arguments -------------------------------------------------------------------------------------- */

static intptr_t timespec_ns(const struct timespec *time)
{
    return time ? (intptr_t)time->tv_sec * 1000000000 + time->tv_nsec : -1;
}

static intptr_t timeval_ns(const struct timeval *time)
{
    return time ? (intptr_t)time->tv_sec * 1000000000 + time->tv_usec * 1000 : -1;
}

/* Only a thread whose loop polls looks into the list, which may be no list at all. */
static bool poll_marked(const struct pollfd *fds, nfds_t count)
{
    int mark = wait_mark();
    for (nfds_t i = 0; mark >= 0 && i < count; i++)
        if (fds[i].fd == mark)
            return true;
    return false;
}

static bool select_marked(int count, fd_set *in)
{
    int mark = wait_mark();
    return in != NULL && mark >= 0 && mark < count && FD_ISSET(mark, in);
}

static int directory_fd(void *directory)
{
    return dirfd((DIR *)directory);
}

/* Waiting for a semaphore is where a thread can be cancelled, trying is not: other threads than a loop's wait as ever. */
static int semaphore_tried(sem_t *at)
{
    int error = errno, result = thread_in_iteration() != NULL ? sem_trywait(at) : -1;
    errno = error;
    return result;
}

static int busy_is_minus_one(int result)
{
    return result == EBUSY || result == EAGAIN ? -1 : result;
}

/* --- the hooks ---------------------------------------------------------------------------------------- */

#define HOOK(returns, name, parameters, arguments, reported, kind, a, b)  \
    static returns hook_##name parameters                                 \
    {                                                                     \
        struct thread *t = thread_in_iteration();                         \
        if (t == NULL)                                                    \
            return CALL(name) arguments;                                  \
        TIMED(returns, H_##name, CALL(name) arguments, a, b)              \
    }

/* A wait ends the iteration and begins the next, if it is the loop's own; otherwise it is a call as any other. */
#define WAIT(returns, name, parameters, arguments, reported, fd_, marked, zero, kind, a, b)  \
    static returns hook_##name parameters                                                    \
    {                                                                                        \
        struct thread *w = wait_begins(fd_, marked, zero, __builtin_return_address(0));      \
        if (w != NULL) {                                                                     \
            returns got = CALL(name) arguments;                                              \
            wait_ended(w);                                                                   \
            return got;                                                                      \
        }                                                                                    \
        struct thread *t = thread_in_iteration();                                            \
        if (t == NULL)                                                                       \
            return CALL(name) arguments;                                                     \
        TIMED(returns, H_##name, CALL(name) arguments, a, b)                                 \
    }

/* A call for which O_NONBLOCK counts, on its parameter `fd`. */
#define FLOW(returns, name, parameters, arguments, reported, kind, a, b)  \
    static returns hook_##name parameters                                 \
    {                                                                     \
        struct thread *t = thread_in_iteration();                         \
        if (t == NULL || passes(t, fd))                                   \
            return CALL(name) arguments;                                  \
        TIMED(returns, H_##name, CALL(name) arguments, a, b)              \
    }

/* `tried` is -1 where the lock is taken: only then is there a wait, and only then are clocks read. Nearly always it is free:
 * the rest is a function of its own, so that nothing is saved for it on the stack. */
#define LOCKS(returns, name, parameters, arguments, tried, reported, a)           \
    static returns hook_##name parameters;                                        \
    static __attribute__((noinline, cold)) returns waiting_##name parameters      \
    {                                                                             \
        struct thread *t = thread_in_iteration();                                 \
        if (t == NULL)                                                            \
            return CALL(name) arguments;                                          \
        TIMED(returns, H_##name, CALL(name) arguments, a, 0)                      \
    }                                                                             \
    static returns hook_##name parameters                                         \
    {                                                                             \
        returns got = tried;                                                      \
        return got != -1 ? got : waiting_##name arguments;                        \
    }
#define SPECIAL(...)
#define ALIAS(...)
#include "hooks.def"
#undef HOOK
#undef FLOW
#undef WAIT
#undef LOCKS
#undef SPECIAL
#undef ALIAS

/* The interpreter waits on conditions for nothing but the GIL (its locks are semaphores). */
#define GIL_WAIT(name, parameters, arguments)                       \
    static int gil_##name parameters                                \
    {                                                               \
        struct thread *t = thread_in_iteration();                   \
        if (t == NULL)                                              \
            return CALL(name) arguments;                            \
        TIMED(int, H_gil, CALL(name) arguments, at, 0)              \
    }

GIL_WAIT(pthread_cond_wait, (void *at, void *mutex), (at, mutex))
GIL_WAIT(pthread_cond_timedwait, (void *at, void *mutex, const struct timespec *until), (at, mutex, until))
GIL_WAIT(pthread_cond_clockwait, (void *at, void *mutex, clockid_t clock, const struct timespec *until),
         (at, mutex, clock, until))

/* What a word of the interpreter's own object points to instead; NULL: it stays as it is. Its mutexes guard the GIL's own
 * state for an instant, several times a call: who waits for the GIL waits on its condition. */
void *interpreter_replacement(int hook)
{
    switch (hook) {
    case H_pthread_mutex_lock: return NULL;
    case H_pthread_cond_wait: return (void *)gil_pthread_cond_wait;
    case H_pthread_cond_timedwait: return (void *)gil_pthread_cond_timedwait;
    case H_pthread_cond_clockwait: return (void *)gil_pthread_cond_clockwait;
    default: return hooks[hook].replacement;
    }
}

/* The same in OpenSSL's own object. Its locks guard tables of its own, and it asks for 317,000 of them for one context with
 * the usual certificates: to try each first made the 20 ms that this takes 3 to 5 % dearer. Who waits there is sampled. */
void *openssl_replacement(int hook)
{
    return hook == H_pthread_rwlock_rdlock || hook == H_pthread_rwlock_wrlock ? NULL : hooks[hook].replacement;
}

/* --- the table ------------------------------------------------------------------------------------------------ */

#define HOOK(returns, name, parameters, arguments, reported, kind, a, b) {#name, reported, kind, (void *)hook_##name},
#define FLOW(returns, name, parameters, arguments, reported, kind, a, b) {#name, reported, kind, (void *)hook_##name},
#define WAIT(returns, name, parameters, arguments, reported, fd, marked, zero, kind, a, b) \
    {#name, reported, kind, (void *)hook_##name},
#define LOCKS(returns, name, parameters, arguments, tried, reported, a) {#name, reported, OF_LOCK, (void *)hook_##name},
#define SPECIAL(name, reported, kind) {#name, reported, kind, (void *)hook_##name},
#define ALIAS(symbol, name)
const struct hook hooks[HOOK_COUNT] = {
#include "hooks.def"
    {"", "gil", OF_GIL, NULL},
};
#undef HOOK
#undef FLOW
#undef WAIT
#undef LOCKS
#undef SPECIAL
#undef ALIAS
