"""System calls by their numbers on x86-64, from the kernel's table (arch/x86/entry/syscalls/syscall_64.tbl)."""

from __future__ import annotations

NAMES = {
    0: "read", 1: "write", 2: "open", 3: "close", 4: "stat", 5: "fstat", 6: "lstat", 7: "poll", 8: "lseek",
    16: "ioctl", 17: "pread64", 18: "pwrite64", 19: "readv", 20: "writev", 21: "access", 22: "pipe", 23: "select",
    32: "dup", 33: "dup2", 35: "nanosleep", 40: "sendfile", 42: "connect", 43: "accept", 44: "sendto", 45: "recvfrom",
    46: "sendmsg", 47: "recvmsg", 56: "clone", 57: "fork", 58: "vfork", 59: "execve", 61: "wait4", 72: "fcntl",
    73: "flock", 74: "fsync", 75: "fdatasync", 76: "truncate", 77: "ftruncate", 78: "getdents", 80: "chdir",
    82: "rename", 83: "mkdir", 84: "rmdir", 87: "unlink", 89: "readlink", 162: "sync", 202: "futex", 217: "getdents64",
    230: "clock_nanosleep", 232: "epoll_wait", 233: "epoll_ctl", 247: "waitid", 257: "openat", 262: "newfstatat",
    263: "unlinkat", 264: "renameat", 270: "pselect6", 271: "ppoll", 275: "splice", 277: "sync_file_range",
    281: "epoll_pwait", 285: "fallocate", 288: "accept4", 295: "preadv", 296: "pwritev", 299: "recvmmsg",
    306: "syncfs", 307: "sendmmsg", 316: "renameat2", 326: "copy_file_range", 332: "statx", 435: "clone3",
    437: "openat2", 441: "epoll_pwait2", 9: "mmap", 10: "mprotect", 11: "munmap", 12: "brk", 25: "mremap",
    28: "madvise", 24: "sched_yield", 34: "pause", 39: "getpid", 318: "getrandom",
}  # fmt: skip
