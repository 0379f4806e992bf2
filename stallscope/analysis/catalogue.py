"""The remedies, as data: one entry a remedy, with its condition, its words, its code, and the source of its claim.

The first remedy that fits a culprit is its advice; of `ALSO` every one that fits is told besides.  A condition left
empty asks nothing.  Texts may name {call}, {resource}, {function} (the code to move) and {handler}.

Code says what to write at the culprit's line; no line of it is longer than 72 columns.
"""

from __future__ import annotations

from stallscope.analysis.remedies import Remedy

OPENS = frozenset({"open", "openat", "openat2", "stat", "newfstatat", "statx", "access", "faccessat2", "readlink"})
READS = frozenset({"read", "pread64", "readv", "preadv", "preadv2"})
WRITES = frozenset({"write", "pwrite64", "writev", "pwritev", "pwritev2"})
SYNCS = frozenset({"fsync", "fdatasync", "sync_file_range", "msync", "sync", "syncfs"})
COPIES = frozenset({"sendfile", "splice", "copy_file_range"})
SLEEPS = frozenset({"clock_nanosleep", "nanosleep"})
POLLS = frozenset({"select", "pselect6", "poll", "ppoll", "epoll_wait", "epoll_pwait", "epoll_pwait2"})
NETWORK = frozenset({"accept", "accept4", "recvfrom", "recvmsg", "recvmmsg", "sendto", "sendmsg", "sendmmsg"})
CHILDREN = frozenset({"wait4", "waitid", "waitpid", "fork", "vfork", "clone", "clone3", "posix_spawn", "execve"})

_CALL = frozenset({"blocking-syscall"})
_WAIT = frozenset({"blocking-syscall", "lock-wait"})
_CPU = frozenset({"python-cpu", "native-cpu"})
_PATH = frozenset({"path"})

_THREAD = "await asyncio.to_thread({function}, ...)"
_ASYNCIO = "https://docs.python.org/3/library/asyncio-"
_CLOUDFLARE = "https://blog.cloudflare.com/how-we-scaled-nginx-and-saved-the-world-54-years-every-day/"
_NGINX_CORE = "https://nginx.org/en/docs/http/ngx_http_core_module.html"
_NGINX_POOLS = "https://www.nginx.com/blog/thread-pools-boost-performance-9x/"
_DROPBOX = "https://dropbox.tech/infrastructure/optimizing-web-servers-for-high-throughput-and-low-latency"
_PROCESSES = (
    "pool = concurrent.futures.ProcessPoolExecutor()\nresult = await loop.run_in_executor(\n    pool, {function}, ...)"
)


LIBRARIES = (
    Remedy(
        "requests",
        "requests waits for the server on the loop; httpx has the same calls as coroutines.",
        "async with httpx.AsyncClient() as client:  # one for all requests\n    response = await client.get(url)",
        "https://www.python-httpx.org/async/",
        causes=_WAIT,
        packages=frozenset({"requests"}),
    ),
    Remedy(
        "boto3",
        "boto3 waits for AWS on the loop, and has no coroutines: make the whole call in a thread, or use aioboto3.",
        _THREAD + "  # the boto3 call\n# or: async with aioboto3.Session().client('s3') as s3: ...",
        "https://aioboto3.readthedocs.io/en/latest/usage.html",
        causes=_WAIT,
        packages=frozenset({"boto3", "botocore", "s3transfer"}),
    ),
    Remedy(
        "urllib",
        "An HTTP request waits for the server on the loop; httpx makes it a coroutine.",
        "async with httpx.AsyncClient() as client:  # one for all requests\n    response = await client.get(url)",
        "https://www.python-httpx.org/async/",
        causes=_WAIT,
        files=frozenset({"/urllib/request.py", "/http/client.py", "/urllib3/connectionpool.py"}),
    ),
    Remedy(
        "psycopg2",
        "psycopg2 waits for PostgreSQL on the loop; psycopg 3 has the same calls as coroutines.",
        "conn = await psycopg.AsyncConnection.connect(dsn)\nrows = await (await conn.execute(query)).fetchall()",
        "https://www.psycopg.org/psycopg3/docs/advanced/async.html",
        causes=_WAIT,
        packages=frozenset({"psycopg2"}),
    ),
    Remedy(
        "postgresql",
        "{call} waits for a server at PostgreSQL's port; if it is one, psycopg 3 or asyncpg wait for it in the loop.",
        "conn = await psycopg.AsyncConnection.connect(dsn)\nrows = await (await conn.execute(query)).fetchall()",
        "https://www.psycopg.org/psycopg3/docs/advanced/async.html",
        causes=_CALL,
        kinds=frozenset({"peer"}),
        resources=r":5432$",
    ),
    Remedy(
        "redis",
        "redis-py's plain client waits for Redis on the loop; the same package has an asynchronous one.",
        "client = redis.asyncio.Redis(host=host)  # import redis.asyncio\nvalue = await client.get(key)",
        "https://redis.readthedocs.io/en/stable/examples/asyncio_examples.html",
        causes=_WAIT,
        packages=frozenset({"redis"}),
        without=frozenset({"/redis/asyncio/"}),
    ),
    Remedy(
        "mysql",
        "A MySQL driver waits for the server on the loop; aiomysql and asyncmy have PyMySQL's calls as coroutines.",
        "pool = await aiomysql.create_pool(host=host, db=name)\n# then: async with pool.acquire() as conn: ...",
        "https://aiomysql.readthedocs.io/en/stable/",
        causes=_WAIT,
        packages=frozenset({"pymysql", "MySQLdb", "mysql"}),
    ),
    Remedy(
        "sqlite3",
        "sqlite3 reads, writes and locks its file on the loop: use the connection in one thread, or aiosqlite.",
        "async with aiosqlite.connect(path) as db:\n    rows = await db.execute_fetchall(query)",
        "https://aiosqlite.omnilib.dev/en/stable/",
        causes=_WAIT,
        kinds=_PATH,
        resources=r"\.(db|db3|sqlite3?)(-wal|-journal|-shm)?$",
    ),
)

WAITS = (
    Remedy(
        "resolver",
        "Resolving a host name blocks the loop; let the loop resolve it.",
        "infos = await asyncio.get_running_loop().getaddrinfo(host, port)",
        _ASYNCIO + "eventloop.html#asyncio.loop.getaddrinfo",
        causes=_WAIT,
        functions=frozenset({"getaddrinfo", "gethostbyname", "gethostbyaddr", "getnameinfo"}),
    ),
    Remedy(
        "syslog",
        "A syslog handler sends from the loop, and waits where syslog is slow: send datagrams on a socket that does "
        "not block, so that a full queue drops a line and delays nobody.",
        'handler = SysLogHandler("/dev/log", socktype=socket.SOCK_DGRAM)\nhandler.socket.setblocking(False)',
        "https://docs.python.org/3/library/logging.handlers.html#sysloghandler",
        causes=_CALL,
        calls=frozenset({"sendto", "sendmsg", "connect", "write"}),
        files=frozenset({"/logging/handlers.py"}),
        resources=r"/dev/log$|:514$|journal",
    ),
    Remedy(
        "log handler",
        "A log handler writes from the loop; queue the records, and let a listener's thread write them.",
        "records = queue.SimpleQueue()\n"
        "listener = QueueListener(records, *logging.root.handlers)\n"
        "logging.root.handlers = [QueueHandler(records)]  # logging.handlers\n"
        "listener.start()",
        "https://docs.python.org/3/howto/logging-cookbook.html#dealing-with-handlers-that-block",
        causes=_WAIT,
        functions=frozenset({"emit", "callHandlers", "shouldRollover"}),
    ),
    Remedy(
        "file lock",
        "{call} waits until somebody else gives up the lock on {resource}; wait for it in a thread.",
        _THREAD + "  # lock, use, unlock",
        "https://man7.org/linux/man-pages/man2/flock.2.html",
        calls=frozenset({"flock", "fcntl"}),
    ),
    Remedy(
        "sleep",
        "time.sleep stops every connection of this loop.",
        "await asyncio.sleep(seconds)",
        _ASYNCIO + "task.html#asyncio.sleep",
        causes=_CALL,
        calls=SLEEPS,
    ),
    Remedy(
        "sleep by poll",
        "{call} with a timeout sleeps on the loop (time.sleep does so before Python 3.11).",
        "await asyncio.sleep(seconds)",
        _ASYNCIO + "task.html#asyncio.sleep",
        causes=_CALL,
        calls=POLLS,
        kinds=frozenset({"timer"}),
    ),
    Remedy(
        "child",
        "Starting a child process, or waiting for one, stops the loop.",
        "child = await asyncio.create_subprocess_exec(program, *args)\nawait child.wait()",
        _ASYNCIO + "subprocess.html",
        causes=_CALL,
        calls=CHILDREN,
    ),
    Remedy(
        "open",
        "Opening {resource} blocks. Move the whole open and read to one thread call: moving the read alone leaves "
        "the open on the loop.",
        "data = " + _THREAD + "  # opens and reads",
        _CLOUDFLARE,
        causes=_CALL,
        calls=OPENS,
    ),
    Remedy(
        "connect",
        "Connecting to {resource} waits for the network: let the loop connect.",
        "reader, writer = await asyncio.open_connection(host, port)\n# or: await loop.sock_connect(sock, address)",
        _ASYNCIO + "stream.html#asyncio.open_connection",
        causes=_CALL,
        calls=frozenset({"connect"}),
    ),
    Remedy(
        "sendfile",
        "{call} waits on the loop for the pages of a cold file: open and read it in a thread. Keep loop.sendfile for "
        "files that are in the page cache.",
        "block = " + _THREAD + "  # opens and reads\nwriter.write(block); await writer.drain()",
        _NGINX_POOLS,
        causes=_CALL,
        calls=COPIES,
    ),
    Remedy(
        "socket of a peer",
        "{call} on a socket blocks: use asyncio's streams, or the loop's own socket calls on a non-blocking socket.",
        "reader, writer = await asyncio.open_connection(host, port)\n# or: await loop.sock_recv(sock, size)",
        _ASYNCIO + "stream.html",
        causes=_CALL,
        kinds=frozenset({"peer"}),
    ),
    Remedy(
        "socket",
        "{call} on a socket blocks: use asyncio's streams, or the loop's own socket calls on a non-blocking socket.",
        "reader, writer = await asyncio.open_connection(host, port)\n# or: await loop.sock_recv(sock, size)",
        _ASYNCIO + "stream.html",
        causes=_CALL,
        calls=NETWORK,
    ),
    Remedy(
        "pipe",
        "Reading a pipe waits for whoever writes to it: let the loop say when there is something to read.",
        "await loop.connect_read_pipe(protocol_factory, pipe)\n# or: data = await asyncio.to_thread(pipe.read)",
        _ASYNCIO + "eventloop.html#asyncio.loop.connect_read_pipe",
        causes=_CALL,
        calls=READS,
        kinds=frozenset({"pipe"}),
    ),
    Remedy(
        "read",
        "Reading {resource} blocks. Move the whole open and read to one thread call: open() can block as well.",
        "data = " + _THREAD + "  # opens and reads",
        _CLOUDFLARE,
        causes=_CALL,
        calls=READS,
    ),
    Remedy(
        "log file",
        "{call} to {resource} waits for the disk or for its reader. Buffer the lines: hand the data to one writer "
        "thread, and let that thread make it durable.",
        "lines = queue.SimpleQueue()\n"
        "threading.Thread(target=write_lines, args=(lines,), daemon=True).start()\n"
        "lines.put(line)  # in {function}, instead of the write",
        _DROPBOX,
        causes=_CALL,
        calls=WRITES | SYNCS,
        kinds=_PATH,
        resources=r"(^|[/._-])logs?([/._-]|$)",
    ),
    Remedy(
        "write",
        "{call} to {resource} waits for the disk or for its reader: hand the data to one writer thread, and let "
        "that thread make it durable.",
        "lines = queue.SimpleQueue()\n"
        "threading.Thread(target=write_lines, args=(lines,), daemon=True).start()\n"
        "lines.put(line)  # in {function}, instead of the write",
        _DROPBOX,
        causes=_CALL,
        calls=WRITES | SYNCS,
    ),
    Remedy(
        "poll",
        "{call} waits inside a handler: let the loop wait for it, or make the whole call in a thread.",
        "loop.add_reader(fd, callback)\n# or: " + _THREAD,
        _ASYNCIO + "eventloop.html#asyncio.loop.add_reader",
        causes=_CALL,
        calls=POLLS,
    ),
    Remedy("call", "{call} blocks the loop: make the call in a thread.", _THREAD, _ASYNCIO + "task.html", causes=_CALL),
    Remedy(
        "lock",
        "The loop waits for a lock that a thread holds: between tasks use asyncio.Lock; where a thread must hold it, "
        "take it in a thread too.",
        "async with asyncio_lock: ...\n# or: " + _THREAD,
        _ASYNCIO + "sync.html",
        causes=frozenset({"lock-wait"}),
    ),
)

COMPUTING = (
    Remedy(
        "gil",
        "Other threads of this process hold the GIL while the loop is ready: move their computing to processes.",
        "pool = concurrent.futures.ProcessPoolExecutor()\npool.submit(compute, ...)  # what those threads do",
        "https://docs.python.org/3/glossary.html#term-global-interpreter-lock",
        causes=frozenset({"gil-wait"}),
    ),
    Remedy(
        "gc",
        "The garbage collector runs over many objects: freeze those that live long, and collect less often.",
        "gc.collect(); gc.freeze()  # once, after start-up\ngc.set_threshold(50_000, 20, 100)",
        "https://docs.python.org/3/library/gc.html#gc.freeze",
        causes=frozenset({"gc"}),
    ),
    Remedy(
        "import",
        "A module is imported while requests wait: import it at start-up.",
        "import ...  # at the top of the module, not in {function}",
        "https://docs.python.org/3/faq/programming.html#what-are-the-best-practices-for-using-import-in-a-module",
        causes=frozenset({"import"}),
    ),
    Remedy(
        "regular expression",
        "A regular expression computes on the loop: one that backtracks takes exponential time on unlucky text. Make "
        "its repetitions unambiguous (Python 3.11 has atomic groups and possessive quantifiers), or bound the text.",
        "re.compile(r'(?>a+)b')  # instead of r'(a+)+b'\ntext = text[:MAX_CHARACTERS]",
        "https://docs.python.org/3/library/re.html#regular-expression-syntax",
        causes=_CPU,
        files=frozenset({"/re.py", "/re/__init__.py"}),
    ),
    Remedy(
        "json",
        "Big JSON is made or read in one go on the loop: orjson is several times faster; above a megabyte send it "
        "in chunks, or make it in another process.",
        "data = orjson.loads(body); body = orjson.dumps(data)\n"
        "# or: result = await loop.run_in_executor(pool, json.loads, body)",
        "https://github.com/ijl/orjson#performance",
        causes=_CPU,
        files=frozenset({"/json/__init__.py", "/json/decoder.py", "/json/encoder.py"}),
    ),
    Remedy(
        "computing",
        "This code computes on the loop's thread: run it in another process.",
        _PROCESSES,
        _ASYNCIO + "eventloop.html#asyncio.loop.run_in_executor",
        causes=_CPU,
    ),
    Remedy(
        "no CPU",
        "The loop was ready to run but had no CPU: more cores, fewer workers, or a higher cgroup limit.",
        "",
        "https://docs.kernel.org/scheduler/sched-stats.html",
        causes=frozenset({"descheduled"}),
    ),
    Remedy(
        "stopped",
        "The process was stopped from outside (SIGSTOP, a debugger, a VM pause).",
        "",
        "https://man7.org/linux/man-pages/man7/signal.7.html",
        causes=frozenset({"suspended"}),
    ),
)

CATALOGUE = (*LIBRARIES, *WAITS, *COMPUTING)

ALSO = (
    Remedy(
        "cache",
        "The same few paths are opened or looked up again and again: keep descriptors and stat results for some "
        "seconds, as nginx's open_file_cache does.",
        "entry = cache.get(path)  # (fd, stat result, time); ask again after 60 s",
        _NGINX_CORE + "#open_file_cache",
        causes=_CALL,
        calls=OPENS,
        kinds=_PATH,
        repeated=3,
    ),
    Remedy(
        "file to socket",
        "Where a regular file goes to a socket as it is, open it in a thread and let the kernel copy it; what is not "
        "in the page cache still waits for the disk.",
        "await loop.sendfile(transport, file)",
        _ASYNCIO + "eventloop.html#asyncio.loop.sendfile",
        causes=_CALL,
        calls=READS,
        kinds=_PATH,
    ),
    Remedy(
        "direct I/O",
        "Files above 8 MiB that are read once may be read with O_DIRECT in the thread, so that they do not push "
        "others out of the page cache. Not smaller ones: they lose read-ahead and are never cached.",
        "fd = os.open(path, os.O_RDONLY | os.O_DIRECT)  # buffers: mmap.mmap",
        _NGINX_CORE + "#directio",
        causes=_CALL,
        calls=READS,
        kinds=_PATH,
    ),
    Remedy(
        "datagram log",
        "Or send the lines to syslog as datagrams: a socket that does not block drops a line rather than wait.",
        'handler = SysLogHandler("/dev/log", socktype=socket.SOCK_DGRAM)\nhandler.socket.setblocking(False)',
        "https://docs.python.org/3/library/logging.handlers.html#sysloghandler",
        causes=_CALL,
        calls=WRITES,
        kinds=_PATH,
        resources=r"(^|[/._-])logs?([/._-]|$)",
    ),
    Remedy(
        "pool for each disk",
        "Its files lie under several top folders: where these are disks, give each a pool of its own, so that one "
        "failing disk does not fill the threads of all.",
        "pools = {{disk: ThreadPoolExecutor(4) for disk in disks}}\n"
        "await loop.run_in_executor(\n    pools[disk], {function}, ...)",
        _NGINX_POOLS,
        causes=_CALL,
        calls=OPENS | READS | WRITES | SYNCS,
        kinds=_PATH,
        roots=2,
    ),
)
