/* An object that comes and goes. It is built several times: bound lazily, bound at once and read-only, fortified. */
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

int plug_sleep(long ns);
ssize_t plug_read(int fd, void *to, size_t size);
ssize_t plug_read_by_table(int fd, void *to, size_t size);
ssize_t plug_read_by_constant(int fd, void *to, size_t size);
int plug_open64(const char *path);
int plug_own_name(void);

int plug_sleep(long ns)
{
    struct timespec time = {ns / 1000000000, ns % 1000000000};
    return nanosleep(&time, NULL);
}

ssize_t plug_read(int fd, void *to, size_t size)
{
    return read(fd, to, size);
}

/* As sqlite keeps the system's calls. */
typedef ssize_t reader(int, void *, size_t);
reader *plug_table[] = {read};
reader *const plug_constants[] = {read};

typedef int locker(pthread_rwlock_t *);
locker *plug_locks[] = {pthread_rwlock_rdlock, pthread_rwlock_wrlock};

ssize_t plug_read_by_table(int fd, void *to, size_t size)
{
    return plug_table[0](fd, to, size);
}

ssize_t plug_read_by_constant(int fd, void *to, size_t size)
{
    return (*(reader *const volatile *)plug_constants)(fd, to, size);
}

#ifdef __GLIBC__
int plug_open64(const char *path)
{
    return open64(path, O_RDONLY);
}
#else
int plug_open64(const char *path)
{
    return open(path, O_RDONLY);
}
#endif
