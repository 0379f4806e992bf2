"""The shared memory of an observed process: its one description, for writers and reader.

The agent (and later the pulse) writes, the collector reads. One memfd holds, in this order:

===========  ==========================  =================================================
section      size                        what it holds
===========  ==========================  =================================================
header       one page                    64-bit cells ``H_*``; error text at ``ERROR_AT``
loops        ``LOOPS`` x ``LOOP_BYTES``  cells ``L_*``, identity and progress text, histogram
handlers     ``HANDLERS`` x              cells ``F_*``, identity text, histogram
             ``HANDLER_BYTES``
ring         ``RECORDS`` x               records: length in 4 bytes, sequence in 4 bytes,
             ``RECORD_BYTES``            then that many bytes of UTF-8 JSON
===========  ==========================  =================================================

All cells are unsigned 64-bit in native byte order; times are nanoseconds on CLOCK_MONOTONIC.
Each section has one writer: a loop's slot belongs to the loop's thread (its text to the
watchdog), the ring to the watchdog; the collector writes only the cells marked "collector".
Untouched pages cost nothing, so the generous sizes are address space, not memory.

A histogram has ``OCTAVES`` octaves of ``SUB_BUCKETS`` linear sub-buckets, plain counters.
"""

from _struct import Struct

MAGIC = int.from_bytes(b"STALLSC1", "little")
VERSION = 1
CELL = 8
PAGE = 4096

# --- header cells -------------------------------------------------------------------------
H_MAGIC = 0
H_VERSION = 1
H_SIZE = 2  # bytes of the whole memory
H_PID = 3  # as the process itself sees it (its own pid namespace)
H_STARTED = 4  # when the agent came aboard, ns
H_STATE = 5  # one of STATE_*
H_THRESHOLD = 6  # stall threshold, ns
H_HEARTBEAT = 7  # collector: time of its last drain, ns
H_RING_HEAD = 8  # records ever written
H_RING_TAIL = 9  # collector: records ever read
H_DROPPED = 10  # stalls whose details found the ring, or the way to it, full (their counts stay exact)
H_SUPPRESSED = 11  # stalls whose details were withheld by the rate limit
H_LOOPS = 12  # loop slots ever used
H_HANDLERS = 13  # handler slots ever used; slot 0 gathers those that found no slot
H_UNSEEN_LOOPS = 14  # loops that found no slot
H_STOP = 15  # collector: not 0 asks the agent to leave
H_PULSE = 16  # 1: the pulse is at work
H_OWNER = 17  # process number of the stallscope that collects, as this process sees it; 0: not to be seen from here
ERROR_AT = 1024  # byte offset of the NUL-terminated reason why the agent disabled itself
ERROR_BYTES = 1024

STATE_RUNNING = 1
STATE_DISABLED = 2  # the agent met an error of its own and took itself out
STATE_FINISHED = 3  # the process is ending, or the agent was stopped

# --- histograms ---------------------------------------------------------------------------
SUB_BITS = 5
SUB_BUCKETS = 1 << SUB_BITS  # 32: a bucket is at most 1/32 of its value wide
OCTAVES = 40
BUCKETS = OCTAVES * SUB_BUCKETS
MAX_NS = (1 << (OCTAVES + SUB_BITS)) - 1  # 9.8 hours; longer values are counted here

# --- loop slots ---------------------------------------------------------------------------
LOOPS = 64
L_STATE = 0  # one of LOOP_*
L_EPOCH = 1  # grows when the slot is given to another loop
L_TID = 2  # kernel thread id
L_STARTED = 3  # start of the iteration in progress, ns; 0 while the loop waits
L_ZERO_WAITS = 4  # waits with a timeout of 0: the loop had work left (saturation)
L_PROGRESS_SEQ = 5  # odd while the progress text is being written
L_PROGRESS_LEN = 6  # bytes of progress text; 0 when the iteration in progress is not overdue
L_DRAINED = 7  # collector: the epoch that was read to its end after the loop closed
L_OPENED = 8  # when the loop was first seen, ns
# Of the overdue iteration, by the pulse's watchdog; they say what it is about even when no Python can run any more.
L_CALL = 9  # number of the hook that it is in, plus 1; 0: none
L_CALL_SINCE = 10  # start of that call, ns
L_HELD_SINCE = 11  # C code keeps the GIL at least since then, ns; 0: it does not
L_LONG = 12  # iterations of LONG_NS and more, of all loops that the slot has had; counted after the histogram
L_WAITS_FROM = 14  # return address of the wait by which the pulse found this loop
UNDECLARED = 48  # loop slots from here on are given out by the pulse, to loops known by their waits alone
LOOP_TEXT_AT = 128  # NUL-terminated JSON: {"kind", "name", "thread"}
LOOP_TEXT_BYTES = 896
PROGRESS_AT = 1024  # JSON of the overdue iteration, same form as a stall record
PROGRESS_BYTES = 4096 * 2 - PROGRESS_AT
LOOP_HISTOGRAM_AT = 8192
LONG_NS = 1 << 20  # about a millisecond: where an octave begins
LOOP_BYTES = LOOP_HISTOGRAM_AT + BUCKETS * CELL + 2048  # whole pages

LOOP_FREE = 0
LOOP_OPEN = 1
LOOP_CLOSED = 2  # not running now; the same thread may open it again

# --- handler slots ------------------------------------------------------------------------
HANDLERS = 512
HANDLER_TEXT_AT = 0  # NUL-terminated JSON: {"name", "file", "line"}
HANDLER_TEXT_BYTES = 2048
HANDLER_HISTOGRAM_AT = 2048
HANDLER_BYTES = HANDLER_HISTOGRAM_AT + BUCKETS * CELL  # whole pages

# --- ring ---------------------------------------------------------------------------------
RECORDS = 256
RECORD_BYTES = 32768
RECORD_HEAD = Struct("=II")  # length of the JSON text, low 32 bits of the sequence number
RECORD_TEXT_MAX = RECORD_BYTES - RECORD_HEAD.size

LOOPS_AT = PAGE
HANDLERS_AT = LOOPS_AT + LOOPS * LOOP_BYTES
RING_AT = HANDLERS_AT + HANDLERS * HANDLER_BYTES
SIZE = RING_AT + RECORDS * RECORD_BYTES


def bucket_of(duration_ns: int) -> int:
    """Histogram bucket of a duration (the hot paths carry this same arithmetic inline)."""
    if duration_ns < SUB_BUCKETS:
        return 0
    shift = min(duration_ns, MAX_NS).bit_length() - SUB_BITS - 1
    return (shift << SUB_BITS) + (min(duration_ns, MAX_NS) >> shift) - SUB_BUCKETS


def bounds_ns(bucket: int) -> "tuple[int, int]":
    """Half-open range [lo, hi) in ns of a bucket; bucket 0 also takes everything below."""
    shift, sub = divmod(bucket, SUB_BUCKETS)
    low = (SUB_BUCKETS + sub) << shift
    return (low if bucket else 0), low + (1 << shift)
