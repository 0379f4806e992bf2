/* Calls that a fortified program makes under other names: the sizes must not be known to the compiler. */
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

struct fortified_calls {
    char buffer[64];
    struct pollfd polled[2];
};

ssize_t fortified_read(int fd, size_t size);
ssize_t fortified_pread(int fd, size_t size);
ssize_t fortified_recv(int fd, size_t size);
ssize_t fortified_readlink(const char *path, size_t size);
int fortified_poll(int fd, nfds_t count, int timeout);
int fortified_open(const char *path, int flags);

static struct fortified_calls with;

ssize_t fortified_read(int fd, size_t size) { return read(fd, with.buffer, size); }
ssize_t fortified_pread(int fd, size_t size) { return pread(fd, with.buffer, size, 0); }
ssize_t fortified_recv(int fd, size_t size) { return recv(fd, with.buffer, size, 0); }
ssize_t fortified_readlink(const char *path, size_t size) { return readlink(path, with.buffer, size); }
int fortified_open(const char *path, int flags) { return open(path, flags); }

int fortified_poll(int fd, nfds_t count, int timeout)
{
    with.polled[0].fd = with.polled[1].fd = fd;
    with.polled[0].events = with.polled[1].events = POLLIN;
    return poll(with.polled, count, timeout);
}
