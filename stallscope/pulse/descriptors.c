/* Which descriptors cannot block. An event loop's own sockets are set so, and make up nearly all of its calls: these pass
 * without a look at the clock.
 *
 * What is known of a descriptor is forgotten with whatever may change it: close, dup2, fcntl, ioctl, a raw system call.
 * It could still become untrue: a process that shares the socket may let it block again, and some code makes its system
 * calls by itself. Then the watchdog meets a thread that waits in such a call; it names the call from what the kernel
 * says, as it does without hooks, and forgets the descriptor, so that the next call is timed. Only sockets are known so:
 * pipes and terminals are shared with other programs, and what they do to them is not rare. */
#include "descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

_Atomic uint8_t descriptors[DESCRIPTORS];

static bool is_of(int fd, mode_t type)
{
    struct stat of;
    return fstat(fd, &of) == 0 && (of.st_mode & S_IFMT) == type;
}

/* O_NONBLOCK means nothing for a file on a disk. */
static bool waits_for_disk(int fd)
{
    return is_of(fd, S_IFREG) || is_of(fd, S_IFDIR) || is_of(fd, S_IFBLK);
}

static bool is_set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && (flags & O_NONBLOCK) != 0;
}

bool is_nonblocking(enum kind kind, intptr_t a)
{
    if ((kind != OF_FD && kind != OF_ADDRESS) || (int)a < 0)
        return false;
    int error = errno;
    bool cannot_block = is_set_nonblocking((int)a) && !waits_for_disk((int)a);
    errno = error;
    return cannot_block;
}

/* What another thread does to the descriptor between the look and the note makes the note untrue: then it is not kept. */
bool descriptor_learn(int fd)
{
    int error = errno;
    uint8_t looked_at = DESCRIPTOR_LOOKED_AT;
    atomic_store(&descriptors[fd], looked_at);
    bool cannot_block = is_set_nonblocking(fd) && is_of(fd, S_IFSOCK);
    atomic_compare_exchange_strong(&descriptors[fd], &looked_at, cannot_block ? CANNOT_BLOCK : MAY_BLOCK);
    errno = error;
    return cannot_block;
}

void descriptor_is_no_loops(int fd)
{
    if ((unsigned)fd < DESCRIPTORS)
        atomic_store(&descriptors[fd], NO_LOOP);
}

void descriptors_forget(unsigned first, unsigned last)
{
    for (unsigned fd = first; fd <= last && fd < DESCRIPTORS; fd++)
        descriptor_forget((int)fd);
}
