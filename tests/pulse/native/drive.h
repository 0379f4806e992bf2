/* What the pulse's test programs share. They are plain threads with epoll loops: no Python is in the process. */
#ifndef DRIVE_H
#define DRIVE_H

#include "pulse.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

#define MILLISECOND 1000000ull
#define SKIPPED 77  /* exit code; the reason is on stdout */

#define CHECK(condition)                                                                         \
    do {                                                                                         \
        if (!(condition)) {                                                                      \
            fprintf(stderr, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno);    \
            abort();                                                                             \
        }                                                                                        \
    } while (0)

#define CHECK_EQUAL(a, b)                                                                                      \
    do {                                                                                                       \
        long long is = (long long)(a), wanted = (long long)(b);                                                \
        if (is != wanted) {                                                                                    \
            fprintf(stderr, "%s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__, #a, is, wanted);              \
            abort();                                                                                           \
        }                                                                                                      \
    } while (0)

struct scenario {
    const char *name;
    void (*run)(void);
};
extern const struct scenario loops[], found_loops[], flow[], objects[], hostile[];

/* --- the shared memory, as a collector sees it ----------------------------------------------------------------------- */

void begin(uint64_t stall_ns);
uint64_t slot_at(int slot);
uint64_t cell(int slot, int number);
uint64_t iterations_of(int slot);       /* sum of its histogram */
uint64_t iterations_from(int slot);     /* the same over this slot and all that follow */
void slot_read(int slot);               /* the collector has read it to its end */

/* --- what leaves through the rings ------------------------------------------------------------------------------------- */

struct taken {
    unsigned stalls, seen;
    struct call calls[4096];  /* of the stalls */
    unsigned call_count;
    struct stall_head last;
};
extern struct taken taken;

void take(void);                                      /* all that is there now, into `taken` */
const struct call *call_taken(const char *reported);  /* the latest of the kind; NULL: none */

/* --- one loop, in the calling thread ---------------------------------------------------------------------------------------- */

struct loop {
    int epoll, slot;
};
struct loop loop_open(int slot);  /* declared, as the agent does */
void turn(struct loop *loop);     /* its wait: ends an iteration and begins the next */
void loop_close(struct loop *loop);

void sleep_ms(unsigned ms);       /* by clock_nanosleep, whatever interrupts it */
const char *folder(void);         /* where the plug-ins are: that of the program */
void *plug_in(const char *name, int flags);

#endif
