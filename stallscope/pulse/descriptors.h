/* Which descriptors cannot block. */
#ifndef PULSE_DESCRIPTORS_H
#define PULSE_DESCRIPTORS_H

#include "pulse.h"

#define DESCRIPTORS 65536  /* those beyond are never known */
enum { DESCRIPTOR_LOOKED_AT = 1, MAY_BLOCK, CANNOT_BLOCK, NO_LOOP };  /* 0: nothing is known of it */
extern _Atomic uint8_t descriptors[DESCRIPTORS];

bool is_nonblocking(enum kind kind, intptr_t a);  /* as it is now */
bool descriptor_learn(int fd);                    /* whether it is a socket that cannot block; below DESCRIPTORS */
void descriptors_forget(unsigned first, unsigned last);
void descriptor_is_no_loops(int fd);              /* waits on this epoll are no sign of a loop, until it is closed */

static inline void descriptor_forget(int fd)
{
    if ((unsigned)fd < DESCRIPTORS && atomic_load_explicit(&descriptors[fd], memory_order_relaxed) != 0)
        atomic_store(&descriptors[fd], 0);
}

static inline bool is_no_loops(int fd)
{
    return (unsigned)fd < DESCRIPTORS && atomic_load_explicit(&descriptors[fd], memory_order_relaxed) == NO_LOOP;
}

#endif
