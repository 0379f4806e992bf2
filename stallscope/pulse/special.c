/* Hooks that are not like the others: SPECIAL in hooks.def. */
#include "descriptors.h"
#include "hooks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

/* The mode is read whether it was given or not: libc looks at it only where the flags say that it was. */
int hook_open(const char *path, int flags, ...)
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

int hook_openat(int at, const char *path, int flags, ...)
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
int hook_fcntl(int fd, int command, ...)
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

int hook_ioctl(int fd, unsigned long request, ...)
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

int hook_dup2(int fd, int to)
{
    int result = CALL(dup2)(fd, to);
    descriptor_forget(to);
    return result;
}

int hook_dup3(int fd, int to, int flags)
{
    int result = CALL(dup3)(fd, to, flags);
    descriptor_forget(to);
    return result;
}

int hook_close_range(unsigned first, unsigned last, int flags)
{
    descriptors_forget(first, last);
    return CALL(close_range)(first, last, flags);
}

void hook_closefrom(int first)
{
    descriptors_forget(first < 0 ? 0 : (unsigned)first, UINT32_MAX);
    CALL(closefrom)(first);
}

int hook_close(int fd)
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
int hook_connect(int fd, const void *to, unsigned size)
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
__attribute__((no_sanitize("address"))) long hook_syscall(long number, ...)
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
void *hook_dlopen(const char *path, int flags)
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

void *hook_PyEval_SaveThread(void)
{
    run_begins(python_code());
    return ((void *(*)(void))real[H_PyEval_SaveThread])();
}

void hook_PyEval_RestoreThread(void *state)
{
    run_ended();
    ((void (*)(void *))real[H_PyEval_RestoreThread])(state);
}
