/* Calls on descriptors that cannot block: they pass without a look at the clock, as long as they cannot. */
#include "descriptors.h"
#include "drive.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static struct loop loop;
static int pair[2];

static void set_timeout(int fd, long ms)
{
    struct timeval time = {ms / 1000, ms % 1000 * 1000};
    CHECK_EQUAL(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time), 0);
}

static void begin_with_pair(int type)
{
    begin(20 * MILLISECOND);
    loop = loop_open(0);
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM | type, 0, pair), 0);
    set_timeout(pair[0], 60);
    turn(&loop);
}

static void end_with_pair(void)
{
    close(pair[0]);
    close(pair[1]);
    loop_close(&loop);
    pulse_end();
}

/* For want of anything to receive it waits until the timeout, if it may. */
static void receive(void)
{
    char byte;
    CHECK_EQUAL(recv(pair[0], &byte, 1, 0), -1);
    CHECK_EQUAL(errno, EAGAIN);
}

static const struct call *receive_in_a_stall(void)
{
    turn(&loop);
    receive();
    sleep_ms(25);
    turn(&loop);
    taken.call_count = 0;
    take();
    return call_taken("recvfrom");
}

static void passing_calls(void)
{
    begin_with_pair(SOCK_NONBLOCK);
    for (unsigned i = 1; i <= 10; i++) {
        receive();
        CHECK_EQUAL(thread_self()->calls_passed, i);
    }
    CHECK_EQUAL(thread_self()->sums_touched, 0);
    for (int i = 0; i < 1000; i++)  /* together they may be what the iteration costs */
        receive();
    CHECK_EQUAL(thread_self()->calls_passed, PASSES);
    CHECK_EQUAL(thread_self()->sums_touched, 1);
    turn(&loop);
    CHECK_EQUAL(thread_self()->calls_passed, 0);
    end_with_pair();
}

/* Pipes, files and blocking sockets are looked at once, and never pass. */
static void calls_that_may_block(void)
{
    int ends[2];
    char byte = 0;
    begin_with_pair(0);
    CHECK_EQUAL(pipe2(ends, O_NONBLOCK), 0);
    CHECK_EQUAL(write(ends[1], &byte, 1), 1);
    CHECK_EQUAL(write(pair[1], &byte, 1), 1);
    CHECK_EQUAL(recv(pair[0], &byte, 1, 0), 1);
    CHECK_EQUAL(descriptors[ends[1]], MAY_BLOCK);
    CHECK_EQUAL(descriptors[pair[0]], MAY_BLOCK);
    CHECK_EQUAL(thread_self()->calls_passed, 0);
    CHECK(receive_in_a_stall() != NULL);
    close(ends[0]);
    close(ends[1]);
    end_with_pair();
}

static void block_by_fcntl(void)
{
    CHECK_EQUAL(fcntl(pair[0], F_SETFL, 0), 0);
}

static void block_by_ioctl(void)
{
    int on = 0;
    CHECK_EQUAL(ioctl(pair[0], FIONBIO, &on), 0);
}

static void block_by_raw_ioctl(void)
{
    int on = 0;
    CHECK_EQUAL(syscall(SYS_ioctl, pair[0], FIONBIO, &on), 0);
}

/* A blocking socket under the number of one that was not: by `how`, which frees the number or takes it. */
static void replace(void (*how)(int fresh))
{
    int fresh[2];
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, fresh), 0);
    set_timeout(fresh[0], 60);
    how(fresh[0]);
    if (fcntl(pair[0], F_GETFD) == -1)
        CHECK_EQUAL(fcntl(fresh[0], F_DUPFD, pair[0]), pair[0]);
    close(fresh[0]);
    close(pair[1]);
    pair[1] = fresh[1];
}

static void take_by_dup2(int fresh)
{
    CHECK_EQUAL(dup2(fresh, pair[0]), pair[0]);
}

static void take_by_dup3(int fresh)
{
    CHECK_EQUAL(dup3(fresh, pair[0], O_CLOEXEC), pair[0]);
}

static void free_by_close(int fresh)
{
    (void)fresh;
    CHECK_EQUAL(close(pair[0]), 0);
}

static void free_by_raw_close(int fresh)
{
    (void)fresh;
    CHECK_EQUAL(syscall(SYS_close, pair[0]), 0);
}

static void blocking_again(void)
{
    void (*const set[])(void) = {block_by_fcntl, block_by_ioctl, block_by_raw_ioctl};
    void (*const replaced[])(int) = {take_by_dup2, take_by_dup3, free_by_close, free_by_raw_close};
    begin_with_pair(SOCK_NONBLOCK);
    for (unsigned i = 0; i < sizeof set / sizeof *set + sizeof replaced / sizeof *replaced; i++) {
        CHECK_EQUAL(fcntl(pair[0], F_SETFL, O_NONBLOCK), 0);
        CHECK(receive_in_a_stall() == NULL);
        CHECK_EQUAL(descriptors[pair[0]], CANNOT_BLOCK);
        if (i < sizeof set / sizeof *set)
            set[i]();
        else
            replace(replaced[i - sizeof set / sizeof *set]);
        const struct call *call = receive_in_a_stall();
        CHECK(call != NULL && call->duration_ns >= 50 * MILLISECOND);
    }
    end_with_pair();
}

static void many_closed_at_once(void)
{
#ifdef __GLIBC__
    begin_with_pair(SOCK_NONBLOCK);
    receive();
    CHECK_EQUAL(descriptors[pair[0]], CANNOT_BLOCK);
    if (close_range((unsigned)pair[0], (unsigned)pair[0], 0) == 0)
        CHECK_EQUAL(descriptors[pair[0]], 0);
    end_with_pair();
#endif
}

/* Another process that has the socket may let it block: nobody tells us, until the watchdog meets the thread in it. */
static void blocking_again_unseen(void)
{
    begin_with_pair(SOCK_NONBLOCK);
    set_timeout(pair[0], 500);
    CHECK(receive_in_a_stall() == NULL);
    pid_t pid = fork();
    if (pid == 0)
        _exit(fcntl(pair[0], F_SETFL, 0) == 0 ? 0 : 1);
    CHECK_EQUAL(waitpid(pid, NULL, 0), pid);
    CHECK_EQUAL(descriptors[pair[0]], CANNOT_BLOCK);
    turn(&loop);
    receive();
    int system_call = thread_self()->tick[0].system_call;
    turn(&loop);
    if (system_call < 0) {
        printf("the kernel does not say here in which call a thread waits\n");
        exit(SKIPPED);
    }
    CHECK_EQUAL(system_call, SYS_recvfrom);
    CHECK_EQUAL(descriptors[pair[0]], 0);
    CHECK(receive_in_a_stall() != NULL);
    end_with_pair();
}

const struct scenario flow[] = {
    {"passing_calls", passing_calls},
    {"calls_that_may_block", calls_that_may_block},
    {"blocking_again", blocking_again},
    {"many_closed_at_once", many_closed_at_once},
    {"blocking_again_unseen", blocking_again_unseen},
    {NULL, NULL},
};
