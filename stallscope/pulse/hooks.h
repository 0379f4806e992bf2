/* What all hooks share: their numbers, and what they do around a call. */
#ifndef PULSE_HOOKS_H
#define PULSE_HOOKS_H

#include "pulse.h"

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

void leave(struct thread *t, unsigned hook, uint64_t begun, intptr_t a, intptr_t b);

/* An address may be shorter than its type: its size goes along with the descriptor. */
static inline intptr_t with_size(int fd, unsigned size)
{
    return (intptr_t)((uint64_t)size << 32 | (unsigned)fd);
}

#define CALL(name) ((__typeof__(&hook_##name))real[H_##name])

/* The rest of a hook in an iteration. */
#define TIMED(returns, hook, call, a, b)                  \
    uint64_t begun = enter(t, hook);                      \
    returns outcome = call;                               \
    leave(t, hook, begun, (intptr_t)(a), (intptr_t)(b));  \
    return outcome;

/* --- those that are written out by hand: special.c ------------------------------------------------- */

#pragma GCC visibility push(hidden)  /* also where a test makes all the rest visible: the table needs no symbols */

int hook_open(const char *path, int flags, ...);
int hook_openat(int at, const char *path, int flags, ...);
int hook_fcntl(int fd, int command, ...);
int hook_close(int fd);
int hook_dup2(int fd, int to);
int hook_dup3(int fd, int to, int flags);
int hook_ioctl(int fd, unsigned long request, ...);
int hook_close_range(unsigned first, unsigned last, int flags);
void hook_closefrom(int first);
int hook_connect(int fd, const void *to, unsigned size);
long hook_syscall(long number, ...);
void *hook_dlopen(const char *path, int flags);
void *hook_PyEval_SaveThread(void);
void hook_PyEval_RestoreThread(void *state);

#pragma GCC visibility pop

#endif
