/* Iterations, calls, sums, and the ring, of threads that come and go. */
#include "drive.h"

#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define TURNS 20000
#define LOOP_THREADS 8

/* Every iteration of every thread is counted, and every wait that had a timeout of 0. */
static void *turns(void *slot)
{
    struct loop loop = loop_open((int)(intptr_t)slot);
    for (int i = 0; i < TURNS; i++)
        turn(&loop);
    loop_close(&loop);
    return NULL;
}

static void iterations(void)
{
    pthread_t thread[LOOP_THREADS];
    begin(100 * MILLISECOND);
    for (intptr_t i = 0; i < LOOP_THREADS; i++)
        CHECK_EQUAL(pthread_create(&thread[i], NULL, turns, (void *)i), 0);
    for (int i = 0; i < LOOP_THREADS; i++)
        pthread_join(thread[i], NULL);
    for (int i = 0; i < LOOP_THREADS; i++) {
        CHECK_EQUAL(iterations_of(i), TURNS);
        CHECK_EQUAL(cell(i, L_ZERO_WAITS), TURNS);
        CHECK_EQUAL(cell(i, L_STARTED), 0);
    }
    pulse_end();
}

/* The wait is no part of an iteration, and a wait on another descriptor is a call inside it. */
static void waits(void)
{
    begin(10 * MILLISECOND);
    struct loop loop = loop_open(0);
    int other = epoll_create1(0);
    struct epoll_event event;
    CHECK_EQUAL(epoll_wait(loop.epoll, &event, 1, 50), 0);
    turn(&loop);
    take();
    CHECK(call_taken("epoll_wait") == NULL);
    CHECK_EQUAL(epoll_wait(other, &event, 1, 50), 0);
    turn(&loop);
    take();
    CHECK(taken.stalls > 0);
    const struct call *call = call_taken("epoll_wait");
    CHECK(call != NULL && call->duration_ns >= 50 * MILLISECOND && call->argument == other);
    loop_close(&loop);
    pulse_end();
}

/* What an iteration had noted when the pulse's end broke it off is no other's. */
static void broken_off(void)
{
    begin(10 * MILLISECOND);
    struct loop loop = loop_open(0);
    turn(&loop);
    sleep_ms(20);
    note_handler(thread_self(), 77, MILLISECOND);
    pulse_end();
    close(loop.epoll);
    begin(10 * MILLISECOND);
    loop = loop_open(0);
    turn(&loop);
    for (uint64_t until = now_ns() + 15 * MILLISECOND; now_ns() < until;) {
    }
    turn(&loop);
    take();
    CHECK_EQUAL(taken.stalls, 1);
    CHECK_EQUAL(taken.last.calls, 0);
    CHECK_EQUAL(taken.last.parts, 0);
    loop_close(&loop);
    pulse_end();
}

/* Each handler of a stall has its part, and none is left over from the iteration before. */
static void handlers_parts(void)
{
    begin(10 * MILLISECOND);
    struct loop loop = loop_open(0);
    const unsigned handlers[] = {3, 1, HANDLER_SLOTS + 6, 2};
    for (unsigned round = 0; round < sizeof handlers / sizeof *handlers; round++) {
        turn(&loop);
        for (unsigned i = 0; i < 2 * handlers[round]; i++)
            note_handler(thread_self(), 1000 + i % handlers[round], MILLISECOND);
        sleep_ms(20);
        turn(&loop);
        take();
        CHECK(taken.stalls > round);
        CHECK_EQUAL(taken.last.parts, handlers[round] < HANDLER_SLOTS ? handlers[round] : HANDLER_SLOTS);
    }
    loop_close(&loop);
    pulse_end();
}

/* A loop that polls is known by the descriptor that wakes it. */
static void polled(void)
{
    begin(10 * MILLISECOND);
    int waker = eventfd(0, 0), other = eventfd(0, 0);
    struct pollfd own[] = {{other, POLLIN, 0}, {waker, POLLIN, 0}}, strange[] = {{other, POLLIN, 0}};
    CHECK_EQUAL(thread_open(slot_at(0), -1, waker, false), 0);
    for (int i = 0; i < 10; i++)
        CHECK_EQUAL(poll(own, 2, 0), 0);
    CHECK_EQUAL(iterations_of(0), 9);
    CHECK_EQUAL(poll(strange, 1, 20), 0);
    CHECK_EQUAL(poll(own, 2, 0), 0);
    take();
    CHECK(taken.stalls > 0);
    const struct call *call = call_taken("poll");
    CHECK(call != NULL && call->argument == other);
    thread_close();
    pulse_end();
}

/* A slow call is told with its duration and what it touched. */
static void slow_calls(void)
{
    int pipes[2];
    char byte;
    begin(10 * MILLISECOND);
    struct loop loop = loop_open(0);
    CHECK_EQUAL(pipe(pipes), 0);
    turn(&loop);
    sleep_ms(20);
    CHECK_EQUAL(write(pipes[1], "x", 1), 1);
    CHECK_EQUAL(read(pipes[0], &byte, 1), 1);
    turn(&loop);
    take();
    CHECK(taken.stalls > 0);
    const struct call *call = call_taken("clock_nanosleep");
    CHECK(call != NULL && call->count == 1);
    CHECK(call->duration_ns >= 20 * MILLISECOND && call->duration_ns <= taken.last.end_ns - taken.last.start_ns);
    CHECK_EQUAL(call->argument, 20 * MILLISECOND);
    CHECK(call->start_ns >= taken.last.start_ns && call->last_ns <= taken.last.end_ns);
    loop_close(&loop);
    pulse_end();
}

/* Many short calls are a sum, under the directory that their paths have in common. */
static void sums(void)
{
    struct stat of;
    char path[64];
    unsigned counted = 0;
    begin(2 * MILLISECOND);
    struct loop loop = loop_open(0);
    turn(&loop);
    for (int i = 0; i < 5000; i++) {
        snprintf(path, sizeof path, "/nowhere/cache/%d/entry", i);
        CHECK(stat(path, &of) == -1 && errno == ENOENT);
    }
    sleep_ms(3);
    turn(&loop);
    take();
    CHECK(taken.stalls > 0);
    for (unsigned i = 0; i < taken.call_count; i++) {
        const struct call *call = &taken.calls[i];
        if (strcmp(hooks[call->hook].reported, "stat") != 0 && strcmp(hooks[call->hook].reported, "newfstatat") != 0)
            continue;
        counted += call->count;
        if (call->count > 1)
            CHECK(strcmp(call->text, "f/nowhere/cache/") == 0);
    }
    CHECK_EQUAL(counted, 5000);
    loop_close(&loop);
    pulse_end();
}

/* Nothing that finds no room is lost uncounted, and what is there stays whole as the ring wraps. */
static void ring_wraps(void)
{
    const struct timespec moment = {0, 20000};
    begin(10000);
    struct loop loop = loop_open(0);
    turn(&loop);
    for (int i = 0; i < 3000; i++) {
        nanosleep(&moment, NULL);
        turn(&loop);
    }
    CHECK(atomic_load(&dropped) > 0);
    take();
    CHECK_EQUAL(taken.stalls + atomic_load(&dropped), 3000);
    for (int i = 0; i < 3000; i++) {
        nanosleep(&moment, NULL);
        turn(&loop);
        take();
    }
    CHECK_EQUAL(taken.stalls + atomic_load(&dropped), 6000);
    CHECK_EQUAL(iterations_of(0), 6000);
    loop_close(&loop);
    pulse_end();
}

static void *short_life(void *declared)
{
    struct epoll_event event;
    int fd = epoll_create1(0);
    if (declared != NULL)
        CHECK_EQUAL(thread_open(slot_at((int)(intptr_t)declared), fd, -1, false), 0);
    for (int i = 0; i < 100; i++)
        epoll_wait(fd, &event, 1, 0);
    return (void *)(intptr_t)fd;  /* not closed: the loop ends with its thread */
}

/* A thread that ends takes its last iteration along, and its place is given to another. */
static void threads_come_and_go(void)
{
    pthread_t thread[LOOP_THREADS];
    void *fd;
    begin(100 * MILLISECOND);
    for (int round = 1; round <= 100; round++) {
        uint64_t before = iterations_from(0);
        for (intptr_t i = 0; i < LOOP_THREADS; i++)
            CHECK_EQUAL(pthread_create(&thread[i], NULL, short_life, (void *)(i % 2 ? i : 0)), 0);
        for (int i = 0; i < LOOP_THREADS; i++) {
            pthread_join(thread[i], &fd);
            close((int)(intptr_t)fd);
        }
        uint64_t gained = iterations_from(0) - before;
        if (round == 1)
            CHECK_EQUAL(gained, LOOP_THREADS / 2 * (100 + 99));
        for (int slot = UNDECLARED; slot < LOOPS; slot++)
            slot_read(slot);
    }
    for (int i = 1; i < LOOP_THREADS; i += 2)
        CHECK_EQUAL(iterations_of(i), 100 * 100);
    CHECK(atomic_load(&threads[2 * LOOP_THREADS]) == NULL);
    pulse_end();
}

static _Atomic bool enough;

static void *restless(void *unused)
{
    struct epoll_event event;
    const struct timespec moment = {0, 1000};
    (void)unused;
    while (!atomic_load(&enough)) {
        int fd = epoll_create1(0);
        for (int i = 0; i < 50; i++) {
            CHECK_EQUAL(epoll_wait(fd, &event, 1, 0), 0);
            nanosleep(&moment, NULL);
        }
        close(fd);
    }
    return NULL;
}

static void *restless_parent(void *unused)
{
    pthread_t child;
    while (!atomic_load(&enough)) {
        CHECK_EQUAL(pthread_create(&child, NULL, short_life, NULL), 0);
        void *fd;
        pthread_join(child, &fd);
        close((int)(intptr_t)fd);
    }
    return unused;
}

/* The pulse may begin and end at any moment of any loop's life. */
static void begins_and_ends(void)
{
    pthread_t thread[4];
    for (int i = 0; i < 4; i++)
        CHECK_EQUAL(pthread_create(&thread[i], NULL, i < 2 ? restless : restless_parent, NULL), 0);
    for (int i = 0; i < 150; i++) {
        begin(20000);
        for (int slot = UNDECLARED; slot < LOOPS; slot++)
            slot_read(slot);
        usleep(i % 7 * 300);
        take();
        CHECK(pulse_end() > 0);
    }
    atomic_store(&enough, true);
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
}

/* Eight threads, 40,000 iterations and 4,000 calls in them; PULSE_LOAD times that. */
#define LOAD_TURNS 5000
#define LOAD_CALLS_EVERY 10

static unsigned load_factor(void)
{
    const char *wanted = getenv("PULSE_LOAD");
    return wanted != NULL ? (unsigned)atoi(wanted) : 1;
}

static void *loaded(void *slot)
{
    struct loop loop = loop_open((int)(intptr_t)slot);
    struct stat of;
    unsigned turns = LOAD_TURNS * load_factor();
    for (unsigned i = 0; i < turns; i++) {
        if (i % LOAD_CALLS_EVERY == 0 && i % (2 * LOAD_CALLS_EVERY) == 0)
            CHECK(stat("/no/such/file", &of) == -1 && errno == ENOENT);
        else if (i % LOAD_CALLS_EVERY == 0)
            CHECK(read(-1, &of, 1) == -1 && errno == EBADF);
        turn(&loop);
    }
    loop_close(&loop);
    return NULL;
}

static void load(void)
{
    pthread_t thread[LOOP_THREADS];
    unsigned turns = LOAD_TURNS * load_factor();
    begin(20000);  /* many are stalls here */
    for (intptr_t i = 0; i < LOOP_THREADS; i++)
        CHECK_EQUAL(pthread_create(&thread[i], NULL, loaded, (void *)i), 0);
    for (int i = 0; i < LOOP_THREADS; i++)
        while (iterations_of(i) < turns) {
            taken.call_count = 0;
            take();
            usleep(1000);
        }
    for (int i = 0; i < LOOP_THREADS; i++) {
        pthread_join(thread[i], NULL);
        CHECK_EQUAL(iterations_of(i), turns);
    }
    printf("%llu iterations\n", (unsigned long long)iterations_from(0));
    pulse_end();
}

const struct scenario loops[] = {
    {"iterations", iterations},
    {"waits", waits},
    {"broken_off", broken_off},
    {"handlers_parts", handlers_parts},
    {"polled", polled},
    {"slow_calls", slow_calls},
    {"sums", sums},
    {"ring_wraps", ring_wraps},
    {"threads_come_and_go", threads_come_and_go},
    {"begins_and_ends", begins_and_ends},
    {"load", load},
    {NULL, NULL},
};
