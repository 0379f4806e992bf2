"""The first thing that runs in a process that is attached to, and all that its main thread does for us.

It makes a box (a memfd: no path of ours need exist on the target's side), starts a thread, and is done, in a
quarter of a millisecond: what comes next must not hold the program up. The thread waits until we have filled the
box and goes on with ``boarding``, which says what is in it. Executed as text, in a namespace of its own that
holds ``NAME``, the box's name; every name here is the text's length and so the program's pause.
"""

import _thread as t
import posix as p
import sys
from marshal import loads
from time import monotonic, sleep


def wait(box, running):  # type: ignore[no-untyped-def]
    """Until the box is filled; nothing that goes wrong is the program's business."""
    try:
        limit = monotonic() + 3
        while monotonic() < limit:
            sleep(0.001)
            if p.pread(box, 1, 0) == b"\1":
                space = loads(p.pread(box, 1 << 26, 4096))
                code = space["boarding"][1]
                for part in code if type(code) is list else [code]:
                    exec(loads(part) if part is code else compile(part, "", "exec", 0x1000000), space)
                    sleep(0.001)
                return space["board"](box, running)
        p.close(box)
    except BaseException:
        pass


loops = sys.modules.get("asyncio.events")
if hasattr(p, "memfd_create"):
    box = p.memfd_create(NAME, 1)  # type: ignore[name-defined]  # noqa: F821
else:  # built for an old C library
    path = "/tmp/" + NAME  # type: ignore[name-defined]  # noqa: F821
    box = p.open(path, p.O_RDWR | p.O_CREAT | p.O_EXCL | p.O_CLOEXEC, 0o600)
    p.unlink(path)
t.start_new_thread(wait, (box, (loops and loops._get_running_loop(), t.get_ident(), t.get_native_id())))
