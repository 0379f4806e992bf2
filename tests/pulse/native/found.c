/* Loops that no call of their own thread declares. */
#include "drive.h"

#include <sys/epoll.h>
#include <unistd.h>

/* A loop that nobody declared is known by its waits, until it closes its descriptor; what follows the last of them may
 * be no iteration. */
static void undeclared(void)
{
    struct epoll_event event;
    begin(100 * MILLISECOND);
    for (int round = 1; round <= 3; round++) {
        int fd = epoll_create1(0);
        for (int i = 0; i < 1000; i++)
            epoll_wait(fd, &event, 1, 0);
        close(fd);
        CHECK_EQUAL(iterations_from(UNDECLARED), round * 999);
        CHECK_EQUAL(cell(UNDECLARED, L_STATE), LOOP_CLOSED);
        CHECK_EQUAL(cell(UNDECLARED, L_TID), getpid());
    }
    pulse_end();
}

/* A loop that runs already is declared from another thread. */
static void *expected_later(void *fd)
{
    struct epoll_event event;
    for (int i = 0; i < 100; i++)
        epoll_wait((int)(intptr_t)fd, &event, 1, 0);
    thread_close();
    return NULL;
}

static void expected(void)
{
    begin(100 * MILLISECOND);
    int fd = epoll_create1(0), other = epoll_create1(0);
    CHECK_EQUAL(thread_expect(getpid(), slot_at(3), fd, -1, false), 0);
    CHECK_EQUAL(thread_expect(1, slot_at(4), other, -1, false), 0);
    expected_later((void *)(intptr_t)fd);
    CHECK_EQUAL(iterations_of(3), 100);
    CHECK_EQUAL(iterations_of(4), 0);
    pulse_end();
}

/* The waits of a busy loop make it known before the agent declares it: it is one loop, with all its iterations but the one
 * in which it was declared, of which a part was watched. */
static void expected_when_known(void)
{
    struct epoll_event event;
    begin(100 * MILLISECOND);
    int fd = epoll_create1(0);
    for (int i = 0; i < 10; i++)
        epoll_wait(fd, &event, 1, 0);
    CHECK_EQUAL(iterations_from(UNDECLARED), 9);
    CHECK_EQUAL(thread_expect(getpid(), slot_at(0), fd, -1, true), 0);
    for (int i = 0; i < 5; i++)
        epoll_wait(fd, &event, 1, 0);
    CHECK_EQUAL(iterations_of(0), 9 + 1 + 4);
    CHECK_EQUAL(iterations_from(UNDECLARED), 0);
    CHECK_EQUAL(cell(UNDECLARED, L_STATE), LOOP_FREE);
    CHECK(atomic_load(&thread_self()->started_ns) != 0);
    thread_close();
    close(fd);
    pulse_end();
}

const struct scenario found_loops[] = {
    {"undeclared", undeclared},
    {"expected", expected},
    {"expected_when_known", expected_when_known},
    {NULL, NULL},
};
