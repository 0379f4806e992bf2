/* What thread.c and found.c share: the state of the calling thread, and its iterations. */
#ifndef PULSE_THREAD_H
#define PULSE_THREAD_H

#include "pulse.h"

bool has_loop(const struct thread *t);
uint64_t *cells_at(uint64_t slot_at);
struct thread *registered(void);  /* the calling thread's structure, made for it; NULL: no room */
void takes_slot(struct thread *t, uint64_t slot_at);
void close_loop(struct thread *t, bool counts);  /* `counts`: its last iteration is one */
void iteration_begins(struct thread *t, uint64_t *cells);
void iteration_ends(struct thread *t);
void zero_wait(struct thread *t, bool zero_timeout);

/* The loop of a thread that has none yet, as it enters a wait; NULL: it is none. */
struct thread *found(int epoll_fd, bool zero_timeout, const void *from);
bool found_as_expected(int epoll_fd);  /* the agent has declared the loop that enters this wait, and now it is open */
void found_stop(void);  /* expect no loop any more */

#endif
