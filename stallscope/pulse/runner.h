/* What runner.c and identity.c share: all that agent/runner.py hands over. */
#ifndef PULSE_RUNNER_H
#define PULSE_RUNNER_H

#include <stdbool.h>
#include <stdint.h>

struct asyncio {  /* owned references, in the order of runner_on's arguments */
    void *original;             /* asyncio's own _run, and */
    void *namespace;            /* types.SimpleNamespace; both stay for good: a handler may be running */
    void *handle, *timer;       /* Handle and TimerHandle, whose instances we run ourselves */
    void *function, *method, *partial, *builtin, *coroutine, *generator;  /* types */
    void *task, *get_coro;      /* Task and its method */
    void *identify;             /* identify(callback) -> base; 0: not to be counted; None: its type is that of a step */
    void *adopt;                /* adopt(loop): it is not observed in this thread */
};

extern struct asyncio asyncio;
extern bool armed;  /* changed with the GIL; by the agent, so whenever its code was asked */

/* A call of the agent's own code; what it does is no doing of the program's. NULL: the program has to have the error. */
void *asked(void *function, void *about);

/* Cell index of the callback's histogram; 0: not to be counted. False: an error is set that is the program's. */
bool identified(void *callback, uint64_t *base);
void identities_forget(void);
bool identities_begin(void);  /* false: no memory */

#endif
