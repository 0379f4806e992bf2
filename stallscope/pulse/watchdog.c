/* A thread that never takes the GIL. It looks at each loop twice in a threshold, which costs a busy program most of what it
 * pays for this thread, and twice as often once an iteration is overdue: so each stall is met before it is one. Then it
 * notes what the kernel says of the loop's thread and asks for its stack. The interpreter answers at once, in the frame that
 * runs; where C code holds the GIL the answer comes as that code returns, and by how late it comes we know it. */
#include "descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SHORTEST_PERIOD_NS 1000000
#define STACK_BYTES (128u << 10)

static pthread_t thread;
static bool runs;
static _Atomic bool leaves;

static uint64_t period_ns(void)
{
    return quarter_ns > SHORTEST_PERIOD_NS ? quarter_ns : SHORTEST_PERIOD_NS;
}

static uint64_t calm_period_ns(void)
{
    return 2 * quarter_ns > SHORTEST_PERIOD_NS ? 2 * quarter_ns : SHORTEST_PERIOD_NS;
}

static void publish(struct thread *t)
{
    uint64_t *cells = t->cells;
    if (cells == NULL)
        return;
    __atomic_store_n(&cells[L_CALL], atomic_load(&t->call), __ATOMIC_RELAXED);
    __atomic_store_n(&cells[L_CALL_SINCE], atomic_load(&t->call_since_ns), __ATOMIC_RELAXED);
    __atomic_store_n(&cells[L_HELD_SINCE], atomic_load(&t->held_since_ns), __ATOMIC_RELAXED);
}

static void begin_ticks(struct thread *t, uint64_t begun)
{
    atomic_store(&t->ticks, 0);
    atomic_store(&t->ticks_of, begun);
    t->due_ns = 0;
    atomic_store(&t->overdue, begun);
}

static void fill(struct thread *t, struct tick *tick, uint64_t begun, bool is_first)
{
    struct reading now;
    kernel_read(t, &now);
    tick->from_ns = is_first ? begun : t->before.at_ns;
    tick->at_ns = now.at_ns;
    struct spent spent = is_first ? spent_since(t, begun, &now) : spent_between(&t->before, &now);
    tick->cpu_ns = spent.cpu_ns;
    tick->run_delay_ns = spent.run_delay_ns;
    t->before = now;
}

/* The stack of another thread than the main one is taken by the agent, which needs the GIL for it: most waits for that are
 * over before half of the threshold, and the agent would only have made them longer. */
static bool may_soon_have_the_gil(const struct thread *t)
{
    uint64_t waited = now_ns() - atomic_load(&t->started_ns);
    return !t->main && atomic_load(&t->call) == gil_wait_hook + 1 && waited < 2 * quarter_ns;
}

/* A call asks for its stack itself as it returns. That comes with the next bytecode at which the interpreter looks up: of
 * a call that fails it is the handler of the exception, often in another function. So it is asked for in the call, too. */
static uint64_t stack_in_call(struct thread *t, uint64_t since)
{
    if (t->asked_in_ns == since || may_soon_have_the_gil(t))
        return 0;
    t->asked_in_ns = since;
    return stack_wanted_by_watchdog(t);
}

static void tick_overdue(struct thread *t, uint64_t begun, uint64_t now)
{
    if (atomic_load(&t->ticks_of) != begun)
        begin_ticks(t, begun);
    unsigned count = atomic_load(&t->ticks);
    if (now < t->due_ns || count == TICKS)
        return;
    struct tick *tick = &t->tick[count];
    memset(tick, 0, sizeof *tick);
    uint64_t since = atomic_load(&t->call_since_ns);
    bool in_call = atomic_load(&t->call) != 0 && now > since + slow_ns;
    fill(t, tick, begun, count == 0);
    tick->system_call = -1;
    tick->switches = UNKNOWN;
    if (in_call) {  /* it is timed exactly */
        tick->token = stack_in_call(t, since);
    } else {
        kernel_state(t, tick);
        if (tick->system_call >= 0)  /* it waits in a call that no hook timed: it was taken for one that cannot block */
            descriptor_forget((int)tick->arguments[0]);
        tick->token = stack_wanted_by_watchdog(t);
    }
    publish(t);
    if (atomic_load(&t->started_ns) != begun)  /* it ended meanwhile: what we saw may be of the next */
        return;
    atomic_store_explicit(&t->ticks, count + 1, memory_order_release);
    uint64_t rest = (now - begun) / 8, half = period_ns() / 2;
    t->due_ns = now + (rest > half ? rest - half : 0);
}

/* Whether its iteration is overdue. */
static bool look_at(struct thread *t, uint64_t now)
{
    if (!atomic_load(&t->used) || t->cells == NULL)
        return false;
    uint64_t begun = atomic_load_explicit(&t->started_ns, memory_order_acquire);
    if (begun == 0 || now < begun + quarter_ns)
        return false;
    tick_overdue(t, begun, now);
    return true;
}

static bool look_at_all(void)
{
    bool is_overdue = false;
    for (int i = 0; i < THREADS && atomic_load(&threads[i]) != NULL; i++)
        is_overdue |= look_at(atomic_load(&threads[i]), now_ns());
    return is_overdue;
}

/* --- stops -------------------------------------------------------------------------------------------------------- */

static struct stop stops[STOPS];
static _Atomic uint64_t stop_count, watched_until_ns;

static long voluntary_switches(void)
{
    struct rusage used;
    return getrusage(RUSAGE_THREAD, &used) == 0 ? used.ru_nvcsw : 0;
}

/* For longer than was planned this thread neither ran nor waited for a CPU, and it slept not once but twice: a stop of
 * the process (SIGSTOP, the freezer) wakes each sleeper first. A virtual CPU that is held up, as by its own write to a
 * disk, makes us late too, but the process was not stopped. */
static void note_stop(const struct reading *before, const struct reading *now, uint64_t planned_ns, long switches)
{
    uint64_t late = now->at_ns - before->at_ns, delay = spent_between(before, now).run_delay_ns;
    late = late > planned_ns ? late - planned_ns : 0;
    if (switches > 1 && delay != UNKNOWN && late >= delay + quarter_ns) {
        uint64_t count = atomic_load(&stop_count);
        stops[count % STOPS] = (struct stop){before->at_ns, now->at_ns - delay, now->at_ns};
        atomic_store(&stop_count, count + 1);
    }
    atomic_store(&watched_until_ns, now->at_ns);
}

unsigned watchdog_stops(struct stop *to, uint64_t *until_ns)
{
    *until_ns = atomic_load(&watched_until_ns);
    uint64_t count = atomic_load(&stop_count);
    for (unsigned i = 0; i < STOPS && i < count; i++)
        to[i] = stops[i];
    return count < STOPS ? (unsigned)count : STOPS;
}

static void sleep_ns(uint64_t ns)
{
    struct timespec time = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    nanosleep(&time, NULL);
}

static struct thread own;  /* for its files; it is no loop's */
static sem_t is_ready;     /* they are open: none appears later, in the middle of what the program does */

static void *watch(void *unused)
{
    struct reading before, now;
    (void)unused;
    prctl(PR_SET_NAME, "stallscope");
    memset(&own, 0, sizeof own);
    own.tid = (pid_t)syscall(SYS_gettid);
    kernel_open(&own);
    sem_post(&is_ready);
    kernel_read(&own, &before);
    long switches = voluntary_switches(), switches_before;
    bool is_overdue = false;
    while (!atomic_load(&leaves)) {
        uint64_t rest_ns = is_overdue ? period_ns() : calm_period_ns();
        sleep_ns(rest_ns);
        kernel_read(&own, &now);
        switches_before = switches;
        switches = voluntary_switches();
        note_stop(&before, &now, rest_ns, switches - switches_before);
        before = now;  /* a stop may come while we look, too */
        is_overdue = look_at_all();
        if (!elf_changed())
            continue;
        elf_hook();  /* waits for the loader, and that is no stop */
        kernel_read(&own, &before);
        switches = voluntary_switches();
    }
    kernel_close(&own);
    return NULL;
}

int watchdog_start(void)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    atomic_store(&leaves, false);
    sem_init(&is_ready, 0, 0);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);  /* the program's signals are not for this thread */
    int error = pthread_create(&thread, &attributes, watch, NULL);
    if (error == EINVAL)  /* the libraries' thread-local variables, which glibc puts there too, leave no room */
        error = pthread_create(&thread, NULL, watch, NULL);
    runs = error == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    while (runs && sem_wait(&is_ready) != 0)
        ;  /* a signal came */
    return error;
}

void watchdog_stop(void)
{
    atomic_store(&leaves, true);
    if (runs)
        pthread_join(thread, NULL);
    runs = false;
}

void watchdog_forked(void)
{
    if (runs)
        kernel_close(&own);
    runs = false;
}
