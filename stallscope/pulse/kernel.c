/* What the kernel knows of a thread of ours. No privilege is needed among the threads of one process.
 *
 * CPU time comes from the thread's own clock: the figure in schedstat is brought up to date at ticks of 4 ms only. */
#include "pulse.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define STACK_MAX (1ull << 30)
#define SCANNED_BYTES (1u << 16)
#define HIGH 900  /* descriptors out of the program's way, below the usual limit of 1024 */

static bool is_still(int fd, const struct stat *of)
{
    struct stat now;
    return fd >= 0 && fstat(fd, &now) == 0 && now.st_ino == of->st_ino && now.st_dev == of->st_dev;
}

/* To give a file a high number takes milliseconds while the kernel enlarges the table; a program that closes all its
 * descriptors meanwhile may have a file of its own at the low one, or have the copy made of that. */
static int held(pid_t tid, const char *name, ino_t *inode)
{
    char path[64];
    struct stat of;
    snprintf(path, sizeof path, "/proc/self/task/%d/%s", (int)tid, name);
    int low = open(path, O_RDONLY | O_CLOEXEC);
    if (low < 0 || fstat(low, &of) != 0)
        return -1;
    *inode = of.st_ino;
    int high = fcntl(low, F_DUPFD_CLOEXEC, HIGH);
    bool is_copied = is_still(high, &of);
    if (high >= 0 && !is_copied)
        close(high);
    if (high < 0)
        return low;
    if (is_still(low, &of))
        close(low);
    return is_copied ? high : -1;
}

static void opened(struct held_file *file, pid_t tid, const char *name)
{
    atomic_store(&file->fd, held(tid, name, &file->inode));  /* the watchdog may look at any moment */
}

static uintptr_t stack_top(void)
{
    pthread_attr_t attributes;
    void *lowest = NULL;
    size_t size = 0;
    if (pthread_getattr_np(pthread_self(), &attributes) != 0)
        return 0;
    pthread_attr_getstack(&attributes, &lowest, &size);
    pthread_attr_destroy(&attributes);
    return (uintptr_t)lowest + size;
}

void kernel_open(struct thread *t)
{
    int error = errno;
    opened(&t->schedstat, t->tid, "schedstat");
    opened(&t->status, t->tid, "status");
    opened(&t->system_call, t->tid, "syscall");
    clockid_t clock;
    t->cpu_clock = pthread_getcpuclockid(pthread_self(), &clock) == 0 ? clock : CLOCK_MONOTONIC;
    t->stack_top = t->main ? stack_top() : 0;  /* asked for where stacks are, which is in the main thread only */
    errno = error;
}

/* A program that closed all its descriptors may have a file of its own there. */
static void close_own(struct held_file *file)
{
    struct stat of;
    int fd = atomic_exchange(&file->fd, -1);
    if (fd >= 0 && fstat(fd, &of) == 0 && of.st_ino == file->inode)
        close(fd);
}

void kernel_close(struct thread *t)
{
    close_own(&t->schedstat);
    close_own(&t->status);
    close_own(&t->system_call);
}

/* The file's text in `text`, NUL-terminated; false where it cannot be read. */
static bool content(const struct held_file *file, char *text, size_t room)
{
    int fd = atomic_load_explicit(&file->fd, memory_order_relaxed);
    ssize_t size = fd >= 0 ? pread(fd, text, room - 1, 0) : -1;
    text[size > 0 ? size : 0] = '\0';
    return size > 0;
}

static uint64_t run_delay(const struct held_file *schedstat)
{
    char text[96], *end;
    if (!content(schedstat, text, sizeof text))
        return UNKNOWN;
    strtoull(text, &end, 10);
    return *end == ' ' ? strtoull(end, NULL, 10) : UNKNOWN;
}

static uint64_t cpu_time(clockid_t clock)
{
    struct timespec t;
    if (clock == CLOCK_MONOTONIC || clock_gettime(clock, &t) != 0)
        return UNKNOWN;
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void read_counters(struct thread *t, clockid_t clock, struct reading *reading)
{
    int error = errno;
    reading->at_ns = now_ns();
    reading->cpu_ns = cpu_time(clock);
    reading->run_delay_ns = run_delay(&t->schedstat);
    errno = error;
}

void kernel_read(struct thread *t, struct reading *reading)
{
    read_counters(t, t->cpu_clock, reading);
}

/* A thread's own clock needs not be looked for by its number, which is a third of the cost. */
void kernel_read_own(struct thread *t, struct reading *reading)
{
    read_counters(t, CLOCK_THREAD_CPUTIME_ID, reading);
}

/* --- signal handlers ------------------------------------------------------------------------------------------ */

struct kernel_action {  /* struct kernel_sigaction of x86-64 */
    void *handler;
    unsigned long flags;
    void *restorer;
    unsigned long mask;
};

struct signal_frame {  /* the beginning of struct rt_sigframe of x86-64 */
    uintptr_t back, flags, link, stack[3], other_registers[15], stack_pointer, instruction, status;
    uint16_t code_segment;
};
#define USER_CODE 0x33

/* Where a signal handler returns to: libc hands it to the kernel with every action that it sets. */
static uintptr_t signal_return(void)
{
    static _Atomic uintptr_t known;
#ifdef __x86_64__
    for (long signal = 1; atomic_load(&known) == 0 && signal < 32; signal++) {
        struct kernel_action action = {0};
        if (syscall(SYS_rt_sigaction, signal, NULL, &action, sizeof action.mask) == 0)
            atomic_store(&known, (uintptr_t)action.restorer);
    }
#endif
    return atomic_load(&known);
}

/* The address alone proves nothing: it is also in what sigaction(2) leaves on the stack, and select() covers 48 KiB of
 * that without writing to it. */
__attribute__((no_sanitize("address"))) static bool is_signal_frame(uintptr_t at, uintptr_t end)
{
    const struct signal_frame *frame = (const struct signal_frame *)at;
    return end - at >= sizeof *frame && frame->code_segment == USER_CODE && frame->stack_pointer > at &&
           frame->stack_pointer <= end;
}

/* Whether a signal handler is on the stack. It errs to the side of yes: the frame may have been left by an earlier one,
 * and a stack that is not the thread's own may be the handlers'. */
__attribute__((no_sanitize("address"))) bool kernel_in_signal_handler(const struct thread *t)
{
    uintptr_t back = signal_return(), at = (uintptr_t)__builtin_frame_address(0);
    if (t->stack_top == 0 || back == 0)
        return false;
    if (at > t->stack_top || t->stack_top - at > STACK_MAX)
        return true;
    uintptr_t end = t->stack_top - at > SCANNED_BYTES ? at + SCANNED_BYTES : t->stack_top;
    for (; at + sizeof at <= end; at += sizeof at)
        if (*(const uintptr_t *)at == back && is_signal_frame(at, t->stack_top))
            return true;
    return false;
}

/* --- state ------------------------------------------------------------------------------------------------------- */

static void read_status(struct thread *t, struct tick *tick)
{
    char text[2048];
    tick->state = 0;
    tick->switches = UNKNOWN;
    if (!content(&t->status, text, sizeof text))
        return;
    const char *state = strstr(text, "State:\t"), *switches = strstr(text, "\nvoluntary_ctxt_switches:\t");
    if (state != NULL)
        tick->state = (unsigned char)state[7];
    if (switches != NULL)
        tick->switches = strtoull(switches + 26, NULL, 10);
}

void kernel_state(struct thread *t, struct tick *tick)
{
    char text[256], *end;
    read_status(t, tick);
    tick->system_call = -1;
    tick->arguments[0] = tick->arguments[1] = 0;
    if (!content(&t->system_call, text, sizeof text) || text[0] < '0' || text[0] > '9')
        return;
    tick->system_call = (int32_t)strtol(text, &end, 10);
    for (int i = 0; i < 2; i++)
        tick->arguments[i] = strtoull(end, &end, 16);
}
