/* The loader's list of objects, looked at without harm: from a thread that a fork does not copy, and never while the
 * loader is in the middle of an object. */
#include "pulse.h"
#include "loader.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>

static pthread_mutex_t changing = PTHREAD_MUTEX_INITIALIZER;

/* A process that is copied while a thread of it is in dl_iterate_phdr gets a copy of the loader's lock that nobody will
 * ever unlock. So nobody looks while a fork is on its way, and a fork waits for the looks that have begun. Neither holds
 * a lock meanwhile that the handlers of other libraries could want. */
static _Atomic int looking, forking;

static bool look_begins(void)
{
    atomic_fetch_add(&looking, 1);
    if (atomic_load(&forking) == 0)
        return true;
    atomic_fetch_sub(&looking, 1);
    return false;
}

static void look_ends(void)
{
    atomic_fetch_sub(&looking, 1);
}

int each_object(int (*look)(struct dl_phdr_info *, size_t, void *), void *with)
{
    if (!look_begins())
        return -1;
    pthread_mutex_lock(&changing);
    dl_iterate_phdr(look, with);
    pthread_mutex_unlock(&changing);
    look_ends();
    return 0;
}

void elf_fork_begins(void)
{
    atomic_fetch_add(&forking, 1);
    while (atomic_load(&looking) != 0)
        sched_yield();
}

void elf_fork_ended(void)
{
    atomic_fetch_sub(&forking, 1);
}

/* In the list that dl_iterate_phdr walks, an object stands before it is relocated. Were its page made read-only again
 * by us, the loader would fault. glibc's dlopen has another lock meanwhile, which no function of its gives away; but
 * dlsym has it while it asks an indirect function for its address, and so that function does the work. musl's list has
 * the lock of its dlopen. */
#ifdef __GLIBC__
typedef void nothing(void);
static THREAD_LOCAL void (*volatile work)(void);  /* volatile: dlsym is declared as one that never calls us back */

static void does_nothing(void)
{
}

static nothing *worked(void)
{
    void (*wanted)(void) = work;
    work = NULL;
    if (wanted != NULL)
        wanted();
    return does_nothing;
}

__attribute__((visibility("default"), ifunc("worked"))) void pulse_under_loader_lock(void);

/* RTLD_DEFAULT includes what the calling object itself has. (The link map that dladdr1 gives is no handle of an object
 * that was there from the start.) */
void under_loader_lock(void (*wanted)(void))
{
    work = wanted;
    dlsym(RTLD_DEFAULT, "pulse_under_loader_lock");
    if (work == NULL)
        return;
    work = NULL;  /* it was not found, or another copy of this library was */
    wanted();
}
#else
void under_loader_lock(void (*wanted)(void))
{
    wanted();
}
#endif

void elf_forked(void)
{
    atomic_store(&forking, 0);
    atomic_store(&looking, 0);
}
