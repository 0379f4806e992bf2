#include "drive.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static uint8_t *memory;
static int memory_fd = -1;
struct taken taken;

/* The pulse maps its memory a second time by mremap, which qemu does not know to do. */
void *mremap(void *old, size_t old_size, size_t size, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    void *at = va_arg(rest, void *);
    va_end(rest);
    long got = syscall(SYS_mremap, old, old_size, size, flags, at);
    if (got != -1 || old != memory)
        return (void *)got;
    int fixed = flags & MREMAP_FIXED ? MAP_FIXED : 0;
    return mmap(fixed ? at : NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | fixed, memory_fd, 0);
}

void begin(uint64_t stall_ns)
{
    size_t size = LOOPS_AT + (size_t)LOOPS * LOOP_BYTES;
    int fd = (int)syscall(SYS_memfd_create, "pulse test", 0);
    CHECK(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
    memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(memory != MAP_FAILED);
    memory_fd = fd;
    CHECK_EQUAL(pulse_begin(memory, size, stall_ns, getpid()), 0);
    close(fd);
}

uint64_t slot_at(int slot)
{
    return LOOPS_AT + (uint64_t)slot * LOOP_BYTES;
}

static uint64_t *cells(int slot)
{
    return (uint64_t *)(void *)(memory + slot_at(slot));
}

uint64_t cell(int slot, int number)
{
    return __atomic_load_n(&cells(slot)[number], __ATOMIC_ACQUIRE);
}

uint64_t iterations_of(int slot)
{
    uint64_t sum = 0;
    for (int bucket = 0; bucket < OCTAVES * SUB_BUCKETS; bucket++)
        sum += cell(slot, LOOP_HISTOGRAM_AT / CELL + bucket);
    return sum;
}

uint64_t iterations_from(int slot)
{
    uint64_t sum = 0;
    for (; slot < LOOPS; slot++)
        sum += iterations_of(slot);
    return sum;
}

void slot_read(int slot)
{
    cells(slot)[L_DRAINED] = cells(slot)[L_EPOCH];
}

/* --- rings ------------------------------------------------------------------------------------------------------------- */

static void take_stall(const uint8_t *at, const uint8_t *end)
{
    memcpy(&taken.last, at, sizeof taken.last);
    const uint8_t *calls = at + sizeof taken.last;
    size_t calls_size = taken.last.calls * sizeof(struct call);
    CHECK_EQUAL(end - calls, calls_size + taken.last.ticks * sizeof(struct tick) + taken.last.parts * sizeof(struct part));
    CHECK(taken.last.end_ns >= taken.last.start_ns);
    taken.stalls++;
    for (unsigned i = 0; i < taken.last.calls && taken.call_count < sizeof taken.calls / sizeof *taken.calls; i++)
        memcpy(&taken.calls[taken.call_count++], calls + i * sizeof(struct call), sizeof(struct call));
}

void take(void)
{
    static uint8_t room[1 << 18];
    for (int i = 0; i < THREADS && atomic_load(&threads[i]) != NULL; i++) {
        size_t size = ring_take(atomic_load(&threads[i]), room, sizeof room);
        for (size_t at = 0; at < size;) {
            struct record_head head;
            memcpy(&head, room + at, sizeof head);
            CHECK(head.size >= sizeof head && at + head.size <= size && (head.type == STALL || head.type == SEEN));
            if (head.type == STALL)
                take_stall(room + at + sizeof head, room + at + head.size);
            else
                taken.seen++;
            at += head.size;
        }
    }
}

const struct call *call_taken(const char *reported)
{
    for (unsigned i = taken.call_count; i-- > 0;)
        if (strcmp(hooks[taken.calls[i].hook].reported, reported) == 0)
            return &taken.calls[i];
    return NULL;
}

/* --- loops --------------------------------------------------------------------------------------------------------------- */

struct loop loop_open(int slot)
{
    struct loop loop = {epoll_create1(EPOLL_CLOEXEC), slot};
    CHECK(loop.epoll >= 0);
    CHECK_EQUAL(thread_open(slot_at(slot), loop.epoll, -1, false), 0);
    return loop;
}

void turn(struct loop *loop)
{
    struct epoll_event event;
    int got = epoll_wait(loop->epoll, &event, 1, 0);
    CHECK(got >= 0 || errno == EINTR);
}

void loop_close(struct loop *loop)
{
    thread_close();
    close(loop->epoll);
}

void sleep_ms(unsigned ms)
{
    struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &time, &time) == EINTR)
        continue;
}

/* --- plug-ins ---------------------------------------------------------------------------------------------------------------- */

static char path[4096];

const char *folder(void)
{
    return path;
}

void *plug_in(const char *name, int flags)
{
    char at[5000];
    snprintf(at, sizeof at, "%s/%s", folder(), name);
    void *handle = dlopen(at, flags);
    if (handle == NULL)
        fprintf(stderr, "%s\n", dlerror());
    CHECK(handle != NULL);
    return handle;
}

int main(int count, char **words)
{
    const struct scenario *const all[] = {loops, found_loops, flow, objects, hostile};
    CHECK(count == 2 && realpath(words[0], path) != NULL);
    *strrchr(path, '/') = '\0';
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
        for (const struct scenario *one = all[i]; one->name != NULL; one++)
            if (strcmp(one->name, words[1]) == 0) {
                one->run();
                return 0;
            }
    fprintf(stderr, "no scenario %s\n", words[1]);
    return 2;
}
