"""One name for the calls that do the same.

The pulse names libc's functions, the agent the kernel's system calls, and both differ between machines: a baseline
made on one of them must hold on another.
"""

from __future__ import annotations

_MEMBERS: dict[str, str] = {
    "open": "open64 openat openat64 openat2 fopen fopen64 creat creat64 name_to_handle_at",
    "stat": "stat64 lstat lstat64 fstatat fstatat64 newfstatat statx fstat fstat64 __xstat __lxstat __fxstat",
    "access": "faccessat faccessat2 euidaccess",
    "readlink": "readlinkat realpath",
    "readdir": "readdir64 getdents getdents64 opendir fdopendir scandir",
    "read": "pread pread64 readv preadv preadv2 fread",
    "write": "pwrite pwrite64 writev pwritev pwritev2 fwrite",
    "fsync": "fdatasync sync_file_range msync sync syncfs",
    "copy": "sendfile sendfile64 splice tee copy_file_range",
    "rename": "renameat renameat2",
    "unlink": "unlinkat rmdir remove",
    "mkdir": "mkdirat",
    "lock file": "flock lockf lockf64 fcntl fcntl64",
    "sleep": "nanosleep clock_nanosleep usleep",
    "poll": "ppoll select pselect pselect6 epoll_wait epoll_pwait epoll_pwait2 epoll_wait_old kevent",
    "accept": "accept4",
    "recv": "recvfrom recvmsg recvmmsg",
    "send": "sendto sendmsg sendmmsg",
    "resolve": "getaddrinfo getnameinfo gethostbyname gethostbyname2 gethostbyname_r gethostbyaddr gethostbyaddr_r",
    "wait for child": "wait wait3 wait4 waitid waitpid",
    "start child": "fork vfork clone clone3 posix_spawn posix_spawnp execve system popen",
    "load library": "dlopen dlmopen",
}
_FAMILY = {member: family for family, members in _MEMBERS.items() for member in members.split()}
_LOCKS = ("futex", "sem_", "pthread_")


def family(call: str) -> str:
    """For example ``open`` for ``openat``, ``lock`` for ``futex``; a call without relatives is its own."""
    return "lock" if call.startswith(_LOCKS) else _FAMILY.get(call, call)
