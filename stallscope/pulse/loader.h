/* What elf.c needs of loader.c. */
#ifndef PULSE_LOADER_H
#define PULSE_LOADER_H

#include <link.h>

/* dl_iterate_phdr, one thread at a time; -1: not now, the process is about to be copied. */
int each_object(int (*look)(struct dl_phdr_info *, size_t, void *), void *with);
/* Do it while no other thread is inside dlopen or dlclose. */
void under_loader_lock(void (*wanted)(void));

#endif
