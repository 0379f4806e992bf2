"""What to do about a culprit: a catalogue as data, the first entry that fits its cause, call and stack wins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stallscope.analysis.findings import Advice, Culprit
from stallscope.analysis.sites import bare

OPENS = frozenset({"open", "openat", "openat2", "stat", "newfstatat", "statx", "access", "faccessat2", "readlink"})
READS = frozenset({"read", "pread64", "readv", "preadv", "preadv2"})
WRITES = frozenset({"write", "pwrite64", "writev", "pwritev", "pwritev2"})
SYNCS = frozenset({"fsync", "fdatasync", "sync_file_range", "msync", "sync", "syncfs"})
SLEEPS = frozenset({"clock_nanosleep", "nanosleep"})
POLLS = frozenset({"select", "pselect6", "poll", "ppoll", "epoll_wait", "epoll_pwait", "epoll_pwait2"})
NETWORK = frozenset(
    {"connect", "accept", "accept4", "recvfrom", "recvmsg", "recvmmsg", "sendto", "sendmsg", "sendmmsg"}
)
CHILDREN = frozenset({"wait4", "waitid", "waitpid"})
LOW_CONFIDENCE = "Low confidence: fewer than 3 samples speak for it."


@dataclass(frozen=True, slots=True)
class Rule:
    """An entry of the catalogue; an empty set asks nothing.  The texts may name {call}, {resource} and {function}."""

    summary: str
    code: str
    causes: frozenset[str] = frozenset()
    calls: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    functions: frozenset[str] = frozenset()
    """One of these is on the stack."""

    def fits(self, culprit: Culprit) -> bool:
        kinds = {resource.kind for resource in culprit.resources}
        on_stack = {bare(frame.function) for frame in culprit.stack}
        return (
            (not self.causes or culprit.cause in self.causes)
            and (not self.calls or culprit.syscall in self.calls)
            and (not self.kinds or bool(self.kinds & kinds))
            and (not self.functions or bool(self.functions & on_stack))
        )


_BLOCKING = frozenset({"blocking-syscall"})

_THREAD = "await asyncio.to_thread({function}, ...)"

CATALOGUE = (
    Rule(
        "Resolving a host name blocks the loop; let the loop resolve it.",
        "infos = await asyncio.get_running_loop().getaddrinfo(host, port)",
        causes=frozenset({"blocking-syscall", "lock-wait"}),
        functions=frozenset({"getaddrinfo", "gethostbyname", "gethostbyaddr", "getnameinfo"}),
    ),
    Rule(
        "A log handler writes from the loop; queue the records, and let a listener's thread write them.",
        "records = queue.SimpleQueue()\n"
        "listener = QueueListener(records, *logging.root.handlers)\n"
        "logging.root.handlers = [QueueHandler(records)]  # logging.handlers\n"
        "listener.start()",
        causes=frozenset({"blocking-syscall", "lock-wait"}),
        functions=frozenset({"emit", "callHandlers", "shouldRollover"}),
    ),
    Rule(
        "{call} waits until somebody else gives up the lock on {resource}; wait for it in a thread.",
        f"{_THREAD}  # the lock, and what it guards",
        calls=frozenset({"flock", "fcntl"}),
    ),
    Rule(
        "time.sleep stops every connection of this loop.",
        "await asyncio.sleep(seconds)",
        causes=_BLOCKING,
        calls=SLEEPS,
    ),
    Rule(
        "{call} with a timeout sleeps on the loop (time.sleep does so before Python 3.11).",
        "await asyncio.sleep(seconds)",
        causes=_BLOCKING,
        calls=POLLS,
        kinds=frozenset({"timer"}),
    ),
    Rule(
        "Waiting for a child process stops the loop.",
        "child = await asyncio.create_subprocess_exec(program, *args)\nawait child.wait()",
        causes=_BLOCKING,
        calls=CHILDREN,
    ),
    Rule(
        "Opening {resource} blocks. Move the whole open and read to one thread call: moving the read alone leaves "
        "the open on the loop.",
        f"data = {_THREAD}  # opens and reads",
        causes=_BLOCKING,
        calls=OPENS,
    ),
    Rule(
        "{call} on a socket blocks: use asyncio's streams, or the loop's own socket calls on a non-blocking socket.",
        "reader, writer = await asyncio.open_connection(host, port)\n# or: await loop.sock_recv(sock, size)",
        causes=_BLOCKING,
        kinds=frozenset({"peer"}),
    ),
    Rule(
        "{call} on a socket blocks: use asyncio's streams, or the loop's own socket calls on a non-blocking socket.",
        "reader, writer = await asyncio.open_connection(host, port)\n# or: await loop.sock_recv(sock, size)",
        causes=_BLOCKING,
        calls=NETWORK,
    ),
    Rule(
        "Reading a pipe waits for whoever writes to it: let the loop say when there is something to read.",
        "await loop.connect_read_pipe(protocol_factory, pipe)\n# or: data = await asyncio.to_thread(pipe.read)",
        causes=_BLOCKING,
        calls=READS,
        kinds=frozenset({"pipe"}),
    ),
    Rule(
        "Reading {resource} blocks. Move the whole open and read to one thread call: open() can block as well.",
        f"data = {_THREAD}  # opens and reads",
        causes=_BLOCKING,
        calls=READS,
    ),
    Rule(
        "{call} to {resource} waits for the disk or for its reader: hand the data to one writer thread, and let "
        "that thread make it durable.",
        "lines = queue.SimpleQueue()\n"
        "threading.Thread(target=write_lines, args=(lines,), daemon=True).start()\n"
        "lines.put(line)  # in {function}, instead of the write",
        causes=_BLOCKING,
        calls=WRITES | SYNCS,
    ),
    Rule(
        "{call} waits inside a handler: let the loop wait for it, or make the whole call in a thread.",
        "loop.add_reader(fd, callback)\n# or: " + _THREAD,
        causes=_BLOCKING,
        calls=POLLS,
    ),
    Rule("{call} blocks the loop: make the call in a thread.", _THREAD, causes=_BLOCKING),
    Rule(
        "The loop waits for a lock that a thread holds: between tasks use asyncio.Lock; where a thread must hold it, "
        "take it in a thread too.",
        f"async with asyncio_lock: ...\n# or: {_THREAD}",
        causes=frozenset({"lock-wait"}),
    ),
    Rule(
        "Other threads of this process hold the GIL while the loop is ready: move their computing to processes.",
        "pool = concurrent.futures.ProcessPoolExecutor()\npool.submit(compute, ...)  # what those threads do",
        causes=frozenset({"gil-wait"}),
    ),
    Rule(
        "The garbage collector runs over many objects: freeze those that live long, and collect less often.",
        "gc.collect(); gc.freeze()  # once, after start-up\ngc.set_threshold(50_000, 20, 100)",
        causes=frozenset({"gc"}),
    ),
    Rule(
        "A module is imported while requests wait: import it at start-up.",
        "import ...  # at the top of the module, not in {function}",
        causes=frozenset({"import"}),
    ),
    Rule(
        "This code computes on the loop's thread: run it in another process.",
        "pool = concurrent.futures.ProcessPoolExecutor()\nresult = await loop.run_in_executor(pool, {function}, ...)",
        causes=frozenset({"python-cpu", "native-cpu"}),
    ),
    Rule(
        "The loop was ready to run but had no CPU: more cores, fewer workers, or a higher cgroup limit.",
        "",
        causes=frozenset({"descheduled"}),
    ),
    Rule(
        "The process was stopped from outside (SIGSTOP, a debugger, a VM pause).", "", causes=frozenset({"suspended"})
    ),
)
_PILE_UP = Advice(
    "No single call is slow: too many handlers became ready at once. Give the loop a turn between them, or make fewer.",
    "await asyncio.sleep(0)  # every few items of a batch",
)
_SATURATION = Advice(
    "The loop never waits: it has more work than one thread can do. Add workers, or move computing away.", ""
)


def advise(culprit: Culprit, same_handler: Iterable[Culprit] = ()) -> Advice | None:
    """Advice for one culprit; `same_handler` are the culprits whose calls it should be moved together with.

    None where the cause is not known.
    """
    if culprit.kind != "site":
        return _PILE_UP if culprit.kind == "pile-up" else _SATURATION
    rule = next((rule for rule in CATALOGUE if rule.fits(culprit)), None)
    if rule is None:
        return None
    words = {
        "call": culprit.syscall or "it",
        "resource": culprit.resource or "it",
        "function": bare(culprit.location.function) if culprit.location else "function",
    }
    sentences = [rule.summary.format(**words), _together(culprit, same_handler)]
    if culprit.low_confidence:
        sentences.append(LOW_CONFIDENCE)
    return Advice(" ".join(filter(None, sentences)), rule.code.format(**words))


def _together(culprit: Culprit, same_handler: Iterable[Culprit]) -> str:
    """The partial remedy, named: offloading the read alone gains nothing while open() blocks."""
    for mine, theirs in ((OPENS, READS), (READS, OPENS)):
        if culprit.syscall in mine:
            found = next((other for other in same_handler if other.syscall in theirs), None)
            if found is not None:
                return f"{found.syscall} blocks in the same handler (#{found.rank}): a remedy for one leaves the other."
    return ""
