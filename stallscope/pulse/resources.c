/* What a call touched, as text: its first letter is the kind of the resource, the rest its name.
 *   f path   s peer   p pipe   l lock   c child   h host   t timer   o other
 * Called after the call and inside the hook, while the arguments are still valid; only for calls worth telling of.
 *
 * Text is put together by hand: snprintf takes 3 KiB of a stack that may be a signal handler's. */
#include "pulse.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void append(char *text, size_t room, const char *more)
{
    size_t have = strnlen(text, room - 1), length = strnlen(more, room - 1 - have);
    memcpy(text + have, more, length);
    text[have + length] = '\0';
}

static void append_number(char *text, size_t room, unsigned number)
{
    char digits[12], *first = digits + sizeof digits - 1;
    *first = '\0';
    do
        *--first = (char)('0' + number % 10);
    while ((number /= 10) != 0);
    append(text, room, first);
}

static void put(char *text, size_t room, char kind, const char *name)
{
    text[0] = kind;
    text[1] = '\0';
    if (name != NULL)
        append(text, room, name);
}

static bool put_link(char *text, size_t room, const char *link)
{
    ssize_t length = readlink(link, text + 1, room - 2);
    if (length < 0)
        return false;
    text[1 + length] = '\0';
    return true;
}

static void put_descriptor_link(char *link, size_t room, int fd)
{
    link[0] = '\0';
    append(link, room, "/proc/self/fd/");
    append_number(link, room, (unsigned)fd);
}

static void append_port(char *text, size_t room, in_port_t port)
{
    append(text, room, ":");
    append_number(text, room, ntohs(port));
}

static void append_ipv4(char *text, size_t room, const struct sockaddr_in *in)
{
    const uint8_t *bytes = (const uint8_t *)&in->sin_addr;
    for (int i = 0; i < 4; i++) {
        append(text, room, i > 0 ? "." : "");
        append_number(text, room, bytes[i]);
    }
    append_port(text, room, in->sin_port);
}

static void append_ipv6(char *text, size_t room, const struct sockaddr_in6 *in)
{
    char host[INET6_ADDRSTRLEN] = "";
    inet_ntop(AF_INET6, &in->sin6_addr, host, sizeof host);
    append(text, room, "[");
    append(text, room, host);
    append(text, room, "]");
    append_port(text, room, in->sin6_port);
}

static void append_unix(char *text, size_t room, const struct sockaddr_un *un)
{
    bool is_abstract = un->sun_path[0] == '\0';
    append(text, room, is_abstract ? "unix:@" : "unix:");
    append(text, room, un->sun_path + is_abstract);
}

static void put_address(char *text, size_t room, const struct sockaddr *address, size_t size)
{
    struct sockaddr_storage of;  /* the rest of it zero: a name that fills its address has no NUL */
    memset(&of, 0, sizeof of);
    memcpy(&of, address, size < sizeof of ? size : sizeof of - 1);
    put(text, room, 's', "");
    switch (of.ss_family) {
    case AF_INET: append_ipv4(text, room, (const void *)&of); break;
    case AF_INET6: append_ipv6(text, room, (const void *)&of); break;
    case AF_UNIX: append_unix(text, room, (const void *)&of); break;
    default: break;
    }
}

void note_connecting(struct thread *t, int fd, const void *to, unsigned size)
{
    if (size > sizeof t->connecting_to)
        return;
    memcpy(t->connecting_to, to, size);
    t->connecting_size = size;
    t->connecting_fd = fd;
}

static bool put_peer(char *text, size_t room, int fd)
{
    struct thread *t = thread_self();
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    memset(&peer, 0, sizeof peer);
    if (getpeername(fd, (struct sockaddr *)&peer, &size) != 0) {
        if (t == NULL || t->connecting_size == 0 || t->connecting_fd != fd)
            return false;
        memcpy(&peer, t->connecting_to, size = t->connecting_size);
    }
    put_address(text, room, (const struct sockaddr *)&peer, size);
    return text[1] != '\0';
}

static void put_descriptor(char *text, size_t room, int fd)
{
    char link[32];
    put_descriptor_link(link, sizeof link, fd);
    put(text, room, 'o', "");
    if (!put_link(text, room, link))
        return;
    if (strncmp(text + 1, "socket:", 7) == 0) {
        if (!put_peer(text, room, fd))
            put_link(text, room, link);
        text[0] = 's';
    } else if (strncmp(text + 1, "pipe:", 5) == 0) {
        text[0] = 'p';
    } else if (text[1] == '/') {
        text[0] = 'f';
    }
}

static void put_path(char *text, size_t room, int directory, const char *path)
{
    char link[32] = "/proc/self/cwd";
    put(text, room, 'f', path);
    if (path == NULL || path[0] == '/' || path[0] == '\0')
        return;
    if (directory != AT_FDCWD)
        put_descriptor_link(link, sizeof link, directory);
    bool fits = put_link(text, room, link) && strlen(text) + 1 + strlen(path) < room;
    if (!fits) {
        put(text, room, 'f', path);
        return;
    }
    append(text, room, "/");
    append(text, room, path);
}

static void put_host(char *text, size_t room, const char *host, const char *service)
{
    put(text, room, 'h', host);
    append(text, room, host && service ? ":" : "");
    append(text, room, service ? service : "");
}

void describe(enum kind kind, intptr_t a, intptr_t b, char *text, size_t room, int64_t *argument)
{
    int error = errno;
    *argument = a;
    switch (kind) {
    case OF_FD:
        if (a < 0)
            put(text, room, 't', "");
        else
            put_descriptor(text, room, (int)a);
        break;
    case OF_PATH: put_path(text, room, AT_FDCWD, (const char *)a); *argument = -1; break;
    case OF_PATH_AT: put_path(text, room, (int)a, (const char *)b); *argument = -1; break;
    case OF_ADDRESS:
        *argument = (int)a;
        if (b != 0)
            put_address(text, room, (const struct sockaddr *)b, (size_t)((uint64_t)a >> 32));
        else
            put_descriptor(text, room, (int)a);
        break;
    case OF_HOST: put_host(text, room, (const char *)a, (const char *)b); *argument = -1; break;
    case OF_POLL:
        *argument = a != 0 && b > 0 ? ((const struct pollfd *)a)->fd : -1;
        if (*argument >= 0)
            put_descriptor(text, room, (int)*argument);
        else
            put(text, room, 't', "");
        break;
    case OF_TIMER: put(text, room, 't', ""); break;
    case OF_CHILD: put(text, room, 'c', ""); break;
    case OF_LOCK:
    case OF_GIL: put(text, room, 'l', ""); break;
    case OF_RUN:
    case OF_NOTHING: put(text, room, 'o', ""); *argument = -1; break;
    }
    errno = error;
}
