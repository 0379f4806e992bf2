/* What the changed words point to: each hook calls libc's own function, and between two clock readings notes what it
 * cost, if the thread is a loop's and inside an iteration. Everywhere else a hook costs one thread-local load. */
#include "pulse.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>

/* --- numbers: one for each row of hooks.def ---------------------------------------------------- */

#define HOOK(returns, name, ...) H_##name,
#define FLOW(returns, name, ...) H_##name,
#define WAIT(returns, name, ...) H_##name,
#define LOCKS(returns, name, ...) H_##name,
#define SPECIAL(name, ...) H_##name,
#define ALIAS(symbol, name)
enum {
#include "hooks.def"
    H_gil,
    HOOK_COUNT,
};
#undef HOOK
#undef FLOW
#undef WAIT
#undef LOCKS
#undef SPECIAL
#undef ALIAS

_Static_assert((int)HOOK_COUNT <= HOOKS_MAX, "struct thread has room for HOOKS_MAX sums");

void *real[HOOK_COUNT];
const unsigned hook_count = HOOK_COUNT;
unsigned gil_wait_hook = H_gil;

/* --- around a call -------------------------------------------------------------------------------- */

static inline uint64_t enter(struct thread *t, unsigned hook)
{
    t->depth = 1;
    atomic_signal_fence(memory_order_seq_cst);
    uint64_t begun = now_ns();
    atomic_store_explicit(&t->call_since_ns, begun, memory_order_relaxed);
    atomic_store_explicit(&t->call, hook + 1, memory_order_release);
    return begun;
}

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

static inline void leave(struct thread *t, unsigned hook, uint64_t begun, intptr_t a, intptr_t b)
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

/* An address may be shorter than its type: its size goes along with the descriptor. */
static intptr_t with_size(int fd, unsigned size)
{
    return (intptr_t)((uint64_t)size << 32 | (unsigned)fd);
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

#define CALL(name) ((__typeof__(&hook_##name))real[H_##name])

/* The rest of a hook in an iteration. */
#define TIMED(returns, hook, call, a, b)                  \
    uint64_t begun = enter(t, hook);                      \
    returns outcome = call;                               \
    leave(t, hook, begun, (intptr_t)(a), (intptr_t)(b));  \
    return outcome;

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
 * it is tried before anything else is looked at. */
#define LOCKS(returns, name, parameters, arguments, tried, reported, a)  \
    static returns hook_##name parameters                                \
    {                                                                    \
        returns got = tried;                                             \
        if (got != -1)                                                   \
            return got;                                                  \
        struct thread *t = thread_in_iteration();                        \
        if (t == NULL)                                                   \
            return CALL(name) arguments;                                 \
        TIMED(returns, H_##name, CALL(name) arguments, a, 0)             \
    }
#define SPECIAL(...)
#define ALIAS(...)
static int hook_open(const char *path, int flags, ...);
static int hook_openat(int at, const char *path, int flags, ...);
static int hook_fcntl(int fd, int command, ...);
static int hook_close(int fd);
static int hook_dup2(int fd, int to);
static int hook_dup3(int fd, int to, int flags);
static int hook_ioctl(int fd, unsigned long request, ...);
static int hook_close_range(unsigned first, unsigned last, int flags);
static void hook_closefrom(int first);
static int hook_connect(int fd, const void *to, unsigned size);
static long hook_syscall(long number, ...);
static void *hook_dlopen(const char *path, int flags);
static void *hook_PyEval_SaveThread(void);
static void hook_PyEval_RestoreThread(void *state);
#include "hooks.def"
#undef HOOK
#undef FLOW
#undef WAIT
#undef LOCKS
#undef SPECIAL
#undef ALIAS

/* The mode is read whether it was given or not: libc looks at it only where the flags say that it was. */
static int hook_open(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    struct thread *t = thread_in_iteration();
    if (t == NULL)
        return CALL(open)(path, flags, mode);
    TIMED(int, H_open, CALL(open)(path, flags, mode), path, 0)
}

static int hook_openat(int at, const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    struct thread *t = thread_in_iteration();
    if (t == NULL)
        return CALL(openat)(at, path, flags, mode);
    TIMED(int, H_openat, CALL(openat)(at, path, flags, mode), at, path)
}

/* Only waiting for a lock can block. Whether reading does is set here, too. */
static int hook_fcntl(int fd, int command, ...)
{
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    struct thread *t = command == F_SETLKW || command == F_OFD_SETLKW ? thread_in_iteration() : NULL;
    if (t == NULL) {
        int result = CALL(fcntl)(fd, command, argument);
        if (command == F_SETFL)
            descriptor_forget(fd);
        return result;
    }
    TIMED(int, H_fcntl, CALL(fcntl)(fd, command, argument), fd, 0)
}

static int hook_ioctl(int fd, unsigned long request, ...)
{
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    int result = CALL(ioctl)(fd, request, argument);
    if (request == FIONBIO)
        descriptor_forget(fd);
    return result;
}

static int hook_dup2(int fd, int to)
{
    int result = CALL(dup2)(fd, to);
    descriptor_forget(to);
    return result;
}

static int hook_dup3(int fd, int to, int flags)
{
    int result = CALL(dup3)(fd, to, flags);
    descriptor_forget(to);
    return result;
}

static int hook_close_range(unsigned first, unsigned last, int flags)
{
    descriptors_forget(first, last);
    return CALL(close_range)(first, last, flags);
}

static void hook_closefrom(int first)
{
    descriptors_forget(first < 0 ? 0 : (unsigned)first, UINT32_MAX);
    CALL(closefrom)(first);
}

static int hook_close(int fd)
{
    descriptor_closed(fd);
    descriptor_forget(fd);
    struct thread *t = thread_in_iteration();
    if (t == NULL)
        return CALL(close)(fd);
    if (t->connecting_fd == fd)
        t->connecting_size = 0;
    TIMED(int, H_close, CALL(close)(fd), -1, 0)
}

/* A connection on its way has no peer yet that the kernel would tell; who waits for it wants to know. */
static int hook_connect(int fd, const void *to, unsigned size)
{
    struct thread *t = thread_in_iteration();
    if (t == NULL)
        return CALL(connect)(fd, to, size);
    uint64_t begun = enter(t, H_connect);
    int result = CALL(connect)(fd, to, size);
    if (result != 0 && errno == EINPROGRESS)
        note_connecting(t, fd, to, size);
    leave(t, H_connect, begun, with_size(fd, size), (intptr_t)to);
    return result;
}

/* libuv closes descriptors so, its loop's own among them. All six arguments are read whether they were given or not, as
 * libc's own syscall() does. */
__attribute__((no_sanitize("address"))) static long hook_syscall(long number, ...)
{
    long a[6];
    va_list rest;
    va_start(rest, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(rest, long);
    va_end(rest);
    if (number == SYS_close)
        descriptor_closed((int)a[0]);
    long result = CALL(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    descriptor_forget((int)a[0]);  /* whatever was done to it, if it is one */
    return result;
}

/* The loader looks at its caller's own search path for a name without a slash, and $ORIGIN is its caller's folder. So
 * such a call must be left to it as it is (a jump, not a call: the caller stays the caller); the watchdog finds the new
 * object within milliseconds. */
static void *hook_dlopen(const char *path, int flags)
{
    if (!atomic_load_explicit(&pulse_active, memory_order_relaxed) || path == NULL || strchr(path, '/') == NULL ||
        strchr(path, '$') != NULL)
        return CALL(dlopen)(path, flags);
    struct thread *t = thread_in_iteration();
    uint64_t begun = t != NULL ? enter(t, H_dlopen) : 0;
    void *handle = CALL(dlopen)(path, flags);
    if (handle != NULL && atomic_load_explicit(&pulse_active, memory_order_relaxed))
        elf_hook();
    if (t != NULL)
        leave(t, H_dlopen, begun, (intptr_t)path, 0);
    return handle;
}

static void *hook_PyEval_SaveThread(void)
{
    run_begins(python_code());
    return ((void *(*)(void))real[H_PyEval_SaveThread])();
}

static void hook_PyEval_RestoreThread(void *state)
{
    run_ended();
    ((void (*)(void *))real[H_PyEval_RestoreThread])(state);
}

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
