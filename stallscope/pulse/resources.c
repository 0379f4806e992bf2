/* What a call touched, as text: its first letter is the kind of the resource, the rest its name.
 *   f path   s peer   p pipe   l lock   c child   h host   t timer   o other
 * Called after the call and inside the hook, while the arguments are still valid; only for calls worth telling of. */
#include "pulse.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void put(char *text, size_t room, char kind, const char *name)
{
    size_t length = name ? strnlen(name, room - 2) : 0;
    text[0] = kind;
    if (length > 0)
        memcpy(text + 1, name, length);
    text[1 + length] = '\0';
}

static bool put_link(char *text, size_t room, const char *link)
{
    ssize_t length = readlink(link, text + 1, room - 2);
    if (length < 0)
        return false;
    text[1 + length] = '\0';
    return true;
}

static void put_address(char *text, size_t room, const struct sockaddr *address, size_t size)
{
    char host[INET6_ADDRSTRLEN] = "";
    struct sockaddr_storage of;  /* the rest of it zero: a name that fills its address has no NUL */
    memset(&of, 0, sizeof of);
    memcpy(&of, address, size < sizeof of ? size : sizeof of - 1);
    text[0] = 's';
    text[1] = '\0';
    if (of.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)&of;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
        snprintf(text + 1, room - 1, "%s:%u", host, (unsigned)ntohs(in->sin_port));
    } else if (of.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const void *)&of;
        inet_ntop(AF_INET6, &in->sin6_addr, host, sizeof host);
        snprintf(text + 1, room - 1, "[%s]:%u", host, (unsigned)ntohs(in->sin6_port));
    } else if (of.ss_family == AF_UNIX) {
        const char *path = ((const struct sockaddr_un *)(const void *)&of)->sun_path;
        snprintf(text + 1, room - 1, "unix:%s%s", path[0] ? "" : "@", path[0] ? path : path + 1);  /* @: abstract */
    }
}

static bool put_peer(char *text, size_t room, int fd)
{
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    memset(&peer, 0, sizeof peer);
    if (getpeername(fd, (struct sockaddr *)&peer, &size) != 0)
        return false;
    put_address(text, room, (const struct sockaddr *)&peer, size);
    return text[1] != '\0';
}

static void put_descriptor(char *text, size_t room, int fd)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    put(text, room, 'o', "");
    if (!put_link(text, room, link))
        return;
    if (strncmp(text + 1, "socket:", 7) == 0) {
        char peer[TEXT_BYTES];
        bool known = put_peer(peer, sizeof peer, fd);
        text[0] = 's';
        if (known)
            put(text, room, 's', peer + 1);
    } else if (strncmp(text + 1, "pipe:", 5) == 0) {
        text[0] = 'p';
    } else if (text[1] == '/') {
        text[0] = 'f';
    }
}

static void put_path(char *text, size_t room, int directory, const char *path)
{
    char link[64];
    put(text, room, 'f', path);
    if (path == NULL || path[0] == '/' || path[0] == '\0')
        return;
    snprintf(link, sizeof link, directory == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", directory);
    if (!put_link(text, room, link)) {
        put(text, room, 'f', path);
        return;
    }
    size_t length = strlen(text + 1), wanted = strlen(path);
    if (1 + length + 1 + wanted + 1 > room)
        put(text, room, 'f', path);
    else
        snprintf(text + 1 + length, room - 1 - length, "/%s", path);
}

static void put_host(char *text, size_t room, const char *host, const char *service)
{
    text[0] = 'h';
    snprintf(text + 1, room - 1, "%s%s%s", host ? host : "", host && service ? ":" : "", service ? service : "");
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

bool is_nonblocking(enum kind kind, intptr_t a)
{
    if ((kind != OF_FD && kind != OF_ADDRESS) || (int)a < 0)
        return false;
    int error = errno, flags = fcntl((int)a, F_GETFL);
    errno = error;
    return flags >= 0 && (flags & O_NONBLOCK) != 0;
}
