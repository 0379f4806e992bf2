/* What an iteration costs its thread: CPU time, and time for which it was ready to run and did not.
 *
 * The kernel counts both over a thread's whole life, and to read them costs a microsecond or two. So the thread reads
 * them as an iteration begins, but in the first one of each eighth of the threshold only: whatever slept for as long has
 * a reading at its very start, and so has the iteration after a stall. Between such a reading and a later iteration's
 * start the thread ran for as long as its iterations took, and no more; if it ran for less, it was kept waiting for the
 * rest. What else it was kept waiting then is taken for the later one's. The watchdog took these readings before: as it
 * looks from time to time, up to a quarter of the threshold and the waking of the loop lay between, and where it was
 * kept from running itself, any time at all. */
#include "pulse.h"

static uint64_t get(const _Atomic uint64_t *of)
{
    return atomic_load_explicit(of, memory_order_acquire);  /* before started_ns is looked at once more */
}

static void set(_Atomic uint64_t *of, uint64_t value)
{
    atomic_store_explicit(of, value, memory_order_release);  /* after started_ns was set to 0 */
}

struct reading base_reading(const struct thread *t)
{
    return (struct reading){get(&t->base.at_ns), get(&t->base.cpu_ns), get(&t->base.run_delay_ns)};
}

void base_set(struct thread *t, const struct reading *reading, uint64_t busy_ns)
{
    set(&t->base.at_ns, reading->at_ns);
    set(&t->base.cpu_ns, reading->cpu_ns);
    set(&t->base.run_delay_ns, reading->run_delay_ns);
    set(&t->base.busy_ns, busy_ns);
}

void base_renew(struct thread *t, uint64_t now)
{
    struct reading reading;
    kernel_read_own(t, &reading);
    reading.at_ns = now;
    base_set(t, &reading, get(&t->busy_ns));
}

static uint64_t difference(uint64_t then, uint64_t now)
{
    return then != UNKNOWN && now != UNKNOWN ? now - then : UNKNOWN;
}

struct spent spent_between(const struct reading *then, const struct reading *now)
{
    return (struct spent){difference(then->cpu_ns, now->cpu_ns), difference(then->run_delay_ns, now->run_delay_ns)};
}

struct spent spent_since(const struct thread *t, uint64_t begun, const struct reading *now)
{
    struct reading base = base_reading(t);
    uint64_t before = get(&t->busy_ns) - get(&t->base.busy_ns), most = now->at_ns - begun;
    if (base.at_ns > begun)
        return (struct spent){UNKNOWN, UNKNOWN};
    struct spent spent = spent_between(&base, now);
    if (spent.cpu_ns == UNKNOWN)
        return spent;
    uint64_t ran = spent.cpu_ns < before ? spent.cpu_ns : before, kept_waiting = before - ran;
    spent.cpu_ns = spent.cpu_ns - ran < most ? spent.cpu_ns - ran : most;
    if (spent.run_delay_ns != UNKNOWN)
        spent.run_delay_ns -= kept_waiting < spent.run_delay_ns ? kept_waiting : spent.run_delay_ns;
    return spent;
}
