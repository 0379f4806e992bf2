/* The calls of the iteration in progress, and the ring in which finished stalls leave for the agent. */
#include "descriptors.h"

#include <string.h>
#include <sys/mman.h>

#define RING_BYTES (1u << 18)
#define DRAWS_A_SECOND 200
#define FEW_A_SECOND 32        /* of each kind of call: so many are looked at one by one */
#define NOTEWORTHY_NS 50000    /* a call of this length is worth a stack, as long as there are few */
#define SAME_WAIT_NS 100000    /* the GIL is waited for in turns of 5 ms: one wait */

/* How often each kind of call came. Stacks of short calls are drawn: of the first ones in each second, so that no site
 * of a kind that comes seldom is missed, of every one that is twice as far along as the last, and of those that took
 * long; each stands for all that came since. What a call touches lies together: between two calls the kernel has had the
 * cache for itself. */
struct kind_drawn {
    uint64_t count, weight, weight_ns;
    uint32_t second, this_second;
};

struct drawn {
    struct kind_drawn of[HOOKS_MAX];
    uint32_t second, this_second;
};

_Atomic bool sites_wanted = true;

int log_prepare(struct thread *t)
{
    size_t size = RING_BYTES + sizeof(struct drawn);
    uint8_t *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return -1;
    t->ring = at;
    t->drawn = (struct drawn *)(void *)(at + RING_BYTES);
    return 0;
}

/* --- the ring ----------------------------------------------------------------------------------------------- */

static void ring_write(struct thread *t, uint64_t at, const void *from, size_t size)
{
    size_t offset = at % RING_BYTES, first = RING_BYTES - offset < size ? RING_BYTES - offset : size;
    memcpy(t->ring + offset, from, first);
    memcpy(t->ring, (const uint8_t *)from + first, size - first);
}

static void ring_read(const struct thread *t, uint64_t at, void *to, size_t size)
{
    size_t offset = at % RING_BYTES, first = RING_BYTES - offset < size ? RING_BYTES - offset : size;
    memcpy(to, t->ring + offset, first);
    memcpy((uint8_t *)to + first, t->ring, size - first);
}

/* Room for a record of `size` bytes, its head written; its place, or UNKNOWN. */
static uint64_t ring_begin(struct thread *t, enum record type, size_t size)
{
    uint64_t head = atomic_load_explicit(&t->ring_head, memory_order_relaxed);
    struct record_head of = {(uint32_t)(sizeof of + size), type};
    if (head + of.size - atomic_load_explicit(&t->ring_tail, memory_order_acquire) > RING_BYTES)
        return UNKNOWN;
    ring_write(t, head, &of, sizeof of);
    return head + sizeof of;
}

/* The agent comes ten times a second; it is called when half of the room is taken. */
static void ring_end(struct thread *t, uint64_t at)
{
    atomic_store_explicit(&t->ring_head, at, memory_order_release);
    if (at - atomic_load_explicit(&t->ring_tail, memory_order_relaxed) > RING_BYTES / 2)
        nudge();
}

bool ring_holds(const struct thread *t)
{
    return atomic_load_explicit(&t->ring_head, memory_order_relaxed) !=
           atomic_load_explicit(&t->ring_tail, memory_order_relaxed);
}

size_t ring_take(struct thread *t, uint8_t *to, size_t room)
{
    uint64_t tail = atomic_load_explicit(&t->ring_tail, memory_order_relaxed);
    uint64_t head = atomic_load_explicit(&t->ring_head, memory_order_acquire);
    size_t taken = 0;
    while (tail + taken < head) {
        struct record_head of;
        ring_read(t, tail + taken, &of, sizeof of);
        if (taken + of.size > room)
            break;
        ring_read(t, tail + taken, to + taken, of.size);
        taken += of.size;
    }
    atomic_store_explicit(&t->ring_tail, tail + taken, memory_order_release);
    return taken;
}

/* --- calls ------------------------------------------------------------------------------------------------------ */

static struct call described(unsigned hook, uint64_t start_ns, uint64_t end_ns, intptr_t a, intptr_t b)
{
    struct call call;
    memset(&call, 0, offsetof(struct call, text) + 1);
    call.start_ns = start_ns;
    call.duration_ns = end_ns - start_ns;
    call.last_ns = end_ns;
    call.hook = hook;
    call.count = 1;
    describe(hooks[hook].kind, a, b, call.text, sizeof call.text, &call.argument);
    return call;
}

/* How many came before this one in the same second, of those that are counted by these two. */
static uint32_t before_in_second(uint32_t *counted, uint32_t *of_second, uint64_t now)
{
    uint32_t second = (uint32_t)(now / 1000000000u);
    if (second != *of_second)
        *of_second = second, *counted = 0;
    return (*counted)++;
}

static void write_seen(struct thread *t, const struct call *call)
{
    struct kind_drawn *drawn = &t->drawn->of[call->hook];
    struct seen seen = {*call, drawn->weight, drawn->weight_ns};
    uint64_t at = ring_begin(t, SEEN, sizeof seen);
    if (at == UNKNOWN)
        return;
    drawn->weight = drawn->weight_ns = 0;
    ring_write(t, at, &seen, sizeof seen);
    ring_end(t, at + sizeof seen);
}

static bool is_power_of_two(uint64_t count)
{
    return (count & (count - 1)) == 0;
}

/* A call that cannot block (its descriptor was set so) was slow because the thread did not run: no site of interest. */
static bool worth_a_stack(struct thread *t, unsigned hook, uint64_t now, intptr_t a)
{
    struct drawn *drawn = t->drawn;
    return before_in_second(&drawn->this_second, &drawn->second, now) < DRAWS_A_SECOND &&
           !is_nonblocking(hooks[hook].kind, a);
}

static void draw(struct thread *t, unsigned hook, uint64_t start_ns, uint64_t end_ns, intptr_t a, intptr_t b)
{
    if (!sites_wanted || hook == gil_wait_hook || !worth_a_stack(t, hook, end_ns, a))
        return;
    struct call call = described(hook, start_ns, end_ns, a, b);
    call.token = stack_wanted(t);
    if (call.token != 0)
        write_seen(t, &call);
}

static bool goes_on(const struct call *last, unsigned hook, uint64_t start_ns)
{
    return hook == gil_wait_hook && last->hook == hook && start_ns - last->last_ns < SAME_WAIT_NS;
}

static void note_slow(struct thread *t, unsigned hook, uint64_t start_ns, uint64_t end_ns, intptr_t a, intptr_t b)
{
    struct call *call = &t->noted[t->calls_noted];
    if (t->calls_noted > 0 && goes_on(call - 1, hook, start_ns)) {
        call--;
        call->duration_ns = end_ns - call->start_ns;
        call->last_ns = end_ns;
        return;
    }
    *call = described(hook, start_ns, end_ns, a, b);
    call->token = stack_wanted(t);
    if (atomic_load(&t->met_in_ns) == start_ns)
        call->met_token = atomic_load(&t->met_token);
    t->calls_noted++;
    if (sites_wanted && call->token != 0 && hook != gil_wait_hook)
        write_seen(t, call);
}

static void keep_common_prefix(struct sum *sum, const char *path)
{
    uint32_t same = 0;
    while (same < sum->prefix && path[same] == sum->text[same])
        same++;
    sum->prefix = same;
}

static void describe_sum(struct sum *sum, enum kind kind, intptr_t a, intptr_t b)
{
    const char *path = (const char *)(kind == OF_PATH_AT ? b : a);
    if ((kind != OF_PATH && kind != OF_PATH_AT) || path == NULL) {
        sum->argument = sum->count == 1 || sum->argument == a ? a : -1;
    } else if (sum->count == 1) {
        sum->prefix = (uint32_t)strnlen(path, sizeof sum->text);
        memcpy(sum->text, path, sum->prefix);
    } else {
        keep_common_prefix(sum, path);
    }
}

static struct sum *sum_of(struct thread *t, unsigned hook, uint64_t start_ns)
{
    struct sum *sum = &t->sums[hook];
    if (sum->iteration != t->iteration) {
        memset(sum, 0, offsetof(struct sum, text));
        sum->iteration = t->iteration;
        sum->first_ns = start_ns;
        sum->asked_ns = quarter_ns;
        if (t->sums_touched < sizeof t->touched)
            t->touched[t->sums_touched++] = (uint8_t)hook;
    }
    return sum;
}

static void add_to_sum(struct thread *t, unsigned hook, uint64_t start_ns, uint64_t end_ns, intptr_t a, intptr_t b)
{
    struct sum *sum = sum_of(t, hook, start_ns);
    sum->count++;
    sum->total_ns += end_ns - start_ns;
    sum->last_ns = end_ns;
    describe_sum(sum, hooks[hook].kind, a, b);
    if (sum->total_ns >= sum->asked_ns) {  /* together they are slow by now */
        sum->asked_ns = 4 * sum->total_ns;
        sum->token = stack_wanted(t);
    }
}

void note_call(struct thread *t, unsigned hook, uint64_t start_ns, uint64_t end_ns, intptr_t a, intptr_t b)
{
    struct kind_drawn *drawn = &t->drawn->of[hook];
    uint64_t spent = end_ns - start_ns, count = ++drawn->count;
    drawn->weight++;
    drawn->weight_ns += spent;
    /* A call that cannot block was slow because it had much to do, or because its thread did not run. */
    if (spent >= slow_ns && hook != gil_wait_hook && is_nonblocking(hooks[hook].kind, a))
        return;
    if (spent >= slow_ns && (t->calls_noted < CALLS || goes_on(&t->noted[CALLS - 1], hook, start_ns))) {
        note_slow(t, hook, start_ns, end_ns, a, b);
        return;
    }
    add_to_sum(t, hook, start_ns, end_ns, a, b);
    bool is_seldom = before_in_second(&drawn->this_second, &drawn->second, end_ns) < FEW_A_SECOND;
    if (is_seldom || spent >= NOTEWORTHY_NS || is_power_of_two(count))
        draw(t, hook, start_ns, end_ns, a, b);
}

/* --- handlers ------------------------------------------------------------------------------------------------------ */

/* A handler beyond HANDLER_SLOTS in one iteration has no part of its own. */
void note_handler(struct thread *t, uint64_t handler, uint64_t spent_ns)
{
    unsigned slot = (unsigned)(handler * 0x9E3779B97F4A7C15ull >> 58);
    for (unsigned tried = 0; tried < HANDLER_SLOTS; tried++, slot = (slot + 1) % HANDLER_SLOTS) {
        struct part *part = &t->parts[slot];
        if (!(t->parts_used >> slot & 1)) {
            t->parts_used |= 1ull << slot;
            *part = (struct part){.handler = handler};
        }
        if (part->handler != handler)
            continue;
        part->calls++;
        part->total_ns += spent_ns;
        return;
    }
}

/* --- the end of a stall ------------------------------------------------------------------------------------------- */

/* The common part of the paths, up to its last slash: the directory. */
static void finish_text(const struct sum *sum, enum kind kind, struct call *call)
{
    uint32_t length = sum->prefix;
    if (kind != OF_PATH && kind != OF_PATH_AT) {
        if (sum->argument >= 0)
            describe(kind == OF_LOCK || kind == OF_GIL || kind == OF_FD ? kind : OF_NOTHING, (intptr_t)sum->argument, 0,
                     call->text, sizeof call->text, &call->argument);
        return;
    }
    while (sum->count > 1 && length > 1 && sum->text[length - 1] != '/')
        length--;
    call->text[0] = 'f';
    memcpy(call->text + 1, sum->text, length);
    call->text[1 + length] = '\0';
}

static struct call summed(const struct sum *sum, unsigned hook)
{
    struct call call;
    memset(&call, 0, sizeof call);
    call.start_ns = sum->first_ns;
    call.duration_ns = sum->total_ns;
    call.last_ns = sum->last_ns;
    call.token = sum->token;
    call.argument = -1;
    call.hook = hook;
    call.count = sum->count;
    finish_text(sum, hooks[hook].kind, &call);
    return call;
}

static bool is_worth_telling(const struct sum *sum)
{
    return sum->total_ns >= slow_ns;
}

/* What the iteration took of the CPU, and how many records of each kind follow. Before the thread's busy_ns includes
 * it. */
static struct stall_head headed(struct thread *t, const uint64_t *cells, uint64_t start_ns, uint64_t end_ns)
{
    struct reading now;
    kernel_read_own(t, &now);
    struct spent spent = spent_since(t, start_ns, &now);
    bool is_ticked = atomic_load(&t->ticks_of) == start_ns;
    struct stall_head head = {
        .start_ns = start_ns,
        .end_ns = end_ns,
        .cpu_ns = spent.cpu_ns,
        .run_delay_ns = spent.run_delay_ns,
        .slot_at = (uint64_t)((const uint8_t *)cells - shared),
        .rest = t->rest,
        .calls = t->calls_noted,
        .ticks = is_ticked ? atomic_load_explicit(&t->ticks, memory_order_acquire) : 0,
        .parts = (uint32_t)__builtin_popcountll(t->parts_used),
    };
    for (unsigned i = 0; i < t->sums_touched; i++)
        head.calls += is_worth_telling(&t->sums[t->touched[i]]);
    return head;
}

/* Each of these returns where the next is written. */
static uint64_t write_array(struct thread *t, uint64_t at, const void *from, size_t size)
{
    ring_write(t, at, from, size);
    return at + size;
}

static uint64_t write_sums(struct thread *t, uint64_t at)
{
    for (unsigned i = 0; i < t->sums_touched; i++) {
        unsigned hook = t->touched[i];
        if (!is_worth_telling(&t->sums[hook]))
            continue;
        struct call call = summed(&t->sums[hook], hook);
        at = write_array(t, at, &call, sizeof call);
    }
    return at;
}

static uint64_t write_parts(struct thread *t, uint64_t at)
{
    for (uint64_t left = t->parts_used; left != 0; left &= left - 1)
        at = write_array(t, at, &t->parts[__builtin_ctzll(left)], sizeof *t->parts);
    return at;
}

void write_stall(struct thread *t, uint64_t start_ns, uint64_t end_ns)
{
    const uint64_t *cells = t->cells;
    if (cells == NULL)
        return;
    struct stall_head head = headed(t, cells, start_ns, end_ns);
    size_t size = sizeof head + head.calls * sizeof(struct call) + head.ticks * sizeof(struct tick) +
                  head.parts * sizeof(struct part);
    uint64_t at = ring_begin(t, STALL, size);
    if (at == UNKNOWN) {
        atomic_fetch_add(&dropped, 1);
        return;
    }
    at = write_array(t, at, &head, sizeof head);
    at = write_array(t, at, t->noted, t->calls_noted * sizeof *t->noted);
    at = write_sums(t, at);
    at = write_array(t, at, t->tick, head.ticks * sizeof *t->tick);
    ring_end(t, write_parts(t, at));
}

void forget_iteration(struct thread *t)
{
    t->calls_passed = t->calls_noted = t->sums_touched = 0;
    t->parts_used = 0;
}
