/* The pulse's beginning and end in a process; nothing here knows of Python. */
#include "pulse.h"

#include <errno.h>
#include <sys/mman.h>

#define SHORTEST_FRESH_NS 1000000  /* a reading takes two system calls, 1 to 2 us: no loop makes more of them than so */

/* A second mapping of memory that is mapped and shared already, at the address of the first one of this process. It is
 * replaced, never taken away: a thread that comes late out of a wait may still write to it. */
static int memory_map(void *memory, size_t size)
{
    static size_t mapped;
    void *at;
    if (memory == NULL)
        at = mmap(shared, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    else
        at = mremap(memory, 0, size, MREMAP_MAYMOVE | (shared != NULL ? MREMAP_FIXED : 0), shared);
    if (at == MAP_FAILED)
        return errno;
    mapped = memory != NULL ? size : mapped;
    shared = at;
    return 0;
}

int pulse_begin(void *memory, size_t size, uint64_t stall_ns, pid_t main_thread)
{
    if (atomic_load(&pulse_active))
        return EALREADY;
    threshold_ns = stall_ns;
    quarter_ns = stall_ns / 4;
    slow_ns = stall_ns / 32;
    fresh_ns = stall_ns / 8 > SHORTEST_FRESH_NS ? stall_ns / 8 : SHORTEST_FRESH_NS;
    main_tid = main_thread;
    hooks_find();
    int error = memory_map(memory, size);
    if (error != 0 || (error = threads_start()) != 0)
        return error;
    starts++;
    atomic_store(&pulse_active, true);
    if ((error = watchdog_start()) != 0)
        atomic_store(&pulse_active, false);
    else
        elf_hook();
    return error;
}

int pulse_end(void)
{
    if (!atomic_load(&pulse_active))
        return 0;
    atomic_store(&pulse_active, false);
    watchdog_stop();
    int restored = elf_unhook();
    threads_stop();
    memory_map(NULL, 0);
    return restored;
}
