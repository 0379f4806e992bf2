-- The `.stall` file: one recording, in SQLite, for any SQL tool.
--
-- application_id is 0x5354414C ("STAL"); user_version is the number of the format below.
-- Times whose names end in _ns are nanoseconds on the target's monotonic clock; durations in
-- _ns are nanoseconds. NULL means "this source cannot know", never zero. References by id are
-- always to rows of the same file, except where several files are merged: then only the
-- histograms keep their meaning, which is what they are for.
--
-- History
--   1  the first format
--   2  call_site
--   3  loop.cpu_ns
--   4  executor
--   5  recording.recorder, counted_call
--
-- Queries to begin with
--   iterations by duration, any number of files together:
--     SELECT bucket, sum(count) FROM histogram GROUP BY bucket;
--     SELECT lo_ns, hi_ns, sum(count) FROM histogram_ns GROUP BY lo_ns ORDER BY lo_ns;
--   where the samples of the stalls were taken:
--     SELECT file, line, function, sum(to_ns - from_ns) / 1e6 AS ms
--     FROM span JOIN stack_frame USING (stack) JOIN frame ON frame.id = stack_frame.frame
--     WHERE stack_frame.position = 0 GROUP BY file, line, function ORDER BY ms DESC;
--   which calls block, even for a moment, and where they are made:
--     SELECT call.name, resource, file, line, function, sum(hits), max(longest_ns) / 1e6 AS longest_ms
--     FROM call_site JOIN call ON call.id = call JOIN stack_frame USING (stack)
--     JOIN frame ON frame.id = stack_frame.frame
--     WHERE stack_frame.position = 0 GROUP BY 1, 2, 3, 4, 5 ORDER BY 6 DESC;

-- The recording itself; exactly one row.
CREATE TABLE recording (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    source TEXT NOT NULL,           -- 'stallscope', or the name of the foreign format
    command TEXT NOT NULL,          -- the command line that made this recording; '' when unknown
    level TEXT NOT NULL,            -- fidelity: 'agent', 'pulse', or the foreign format's name
    threshold_ns INTEGER NOT NULL,  -- iterations at or above this are stalls
    started_ns INTEGER NOT NULL,
    started_wall_s REAL NOT NULL,   -- the same moment, in seconds since 1970-01-01 UTC
    last_ns INTEGER NOT NULL,       -- the latest moment that was committed
    ended_ns INTEGER,               -- NULL: still recording, or the recorder was killed
    recorder TEXT NOT NULL DEFAULT '',  -- the version of stallscope that measured; '' when unknown
    suppressed INTEGER NOT NULL DEFAULT 0  -- stalls counted in histograms, details not kept
);

-- What this recording could not see, and why.
CREATE TABLE missing (
    id INTEGER PRIMARY KEY,
    what TEXT NOT NULL,
    why TEXT NOT NULL,
    UNIQUE (what, why)
);

-- Sentences for the reader of the report.
CREATE TABLE note (
    id INTEGER PRIMARY KEY,
    text TEXT NOT NULL UNIQUE
);

-- Observed process images; exec makes a new row under the same pid.
CREATE TABLE process (
    id INTEGER PRIMARY KEY,
    pid INTEGER NOT NULL,
    parent_pid INTEGER NOT NULL,
    program TEXT NOT NULL,          -- the command line, as the process shows it
    runtime TEXT NOT NULL,          -- for example 'CPython 3.11.7'; '' when unknown
    started_ns INTEGER NOT NULL,
    ended_ns INTEGER,               -- NULL: had not ended when the recording did
    ending TEXT NOT NULL DEFAULT '' -- 'exited', 'killed', 'replaced', 'disabled: reason', ''
);

-- Event loops: threads that wait.
CREATE TABLE loop (
    id INTEGER PRIMARY KEY,
    process INTEGER NOT NULL REFERENCES process (id),
    tid INTEGER NOT NULL,           -- kernel thread id
    kind TEXT NOT NULL,             -- 'asyncio', 'uvloop', ... or 'epoll'
    name TEXT NOT NULL,             -- thread name and loop class, for people
    opened_ns INTEGER NOT NULL,     -- first seen
    last_ns INTEGER NOT NULL,       -- last seen alive
    zero_waits INTEGER,             -- waits with a timeout of zero (saturation)
    cpu_ns INTEGER                  -- CPU time of its thread while it was watched
);

-- Iterations by duration. Slow ones (bucket's upper bound at or above a quarter of the
-- threshold) stand under their own second; the many fast ones under the first second of their
-- minute, which keeps an hour of a healthy loop under 1 MiB.
CREATE TABLE histogram (
    loop INTEGER NOT NULL REFERENCES loop (id),
    interval INTEGER NOT NULL,      -- whole seconds since recording.started_ns
    bucket INTEGER NOT NULL,        -- 32 linear sub-buckets an octave; bounds: histogram_ns
    count INTEGER NOT NULL,         -- iterations
    PRIMARY KEY (loop, interval, bucket)
) WITHOUT ROWID;

-- The same with the bounds of each bucket: lo_ns <= duration < hi_ns.
CREATE VIEW histogram_ns AS
SELECT loop, interval, bucket, count,
    CASE bucket WHEN 0 THEN 0 ELSE (32 + bucket % 32) << (bucket / 32) END AS lo_ns,
    (33 + bucket % 32) << (bucket / 32) AS hi_ns
FROM histogram;

-- Iterations by duration where a foreign source has only buckets coarser than ours; such a loop
-- has no rows in histogram.
CREATE TABLE coarse_histogram (
    loop INTEGER PRIMARY KEY REFERENCES loop (id),
    tick_ns INTEGER NOT NULL,       -- resolution of the source's clock; 0 where it does not matter
    per_octave INTEGER NOT NULL     -- 1: buckets of an octave or wider; 4: finer ones
);
CREATE TABLE coarse_bucket (
    loop INTEGER NOT NULL REFERENCES coarse_histogram (loop),
    lo_ns INTEGER NOT NULL,         -- lo_ns <= duration < hi_ns
    hi_ns INTEGER NOT NULL,         -- the next bucket's lo_ns
    count INTEGER NOT NULL,         -- iterations
    PRIMARY KEY (loop, lo_ns)
) WITHOUT ROWID;

-- What loops call: coroutines and callbacks, where they are defined.
CREATE TABLE handler (
    id INTEGER PRIMARY KEY,
    process INTEGER NOT NULL REFERENCES process (id),
    name TEXT NOT NULL,             -- qualified name
    file TEXT NOT NULL,             -- '' when unknown
    line INTEGER NOT NULL,          -- 0 when unknown
    UNIQUE (process, name, file, line)
);

-- Calls of a handler by duration, over the whole recording.
CREATE TABLE handler_histogram (
    handler INTEGER NOT NULL REFERENCES handler (id),
    bucket INTEGER NOT NULL,        -- as in histogram
    count INTEGER NOT NULL,         -- calls
    PRIMARY KEY (handler, bucket)
) WITHOUT ROWID;

-- Thread pools, as often as they were looked at: about ten times a second.
CREATE TABLE executor (
    process INTEGER NOT NULL REFERENCES process (id),
    name TEXT NOT NULL,             -- what its threads are called, less their numbers
    is_default INTEGER NOT NULL,    -- 1: a loop's own, where asyncio.to_thread goes
    most_threads INTEGER,           -- that it may have; NULL when unknown
    threads INTEGER NOT NULL,       -- the most that it had
    looks INTEGER NOT NULL,
    busy INTEGER NOT NULL,          -- threads at work, summed over the looks
    queued_looks INTEGER NOT NULL,  -- that met a call in its queue
    deepest INTEGER NOT NULL,       -- calls in its queue, the most that a look met
    PRIMARY KEY (process, name, is_default)
) WITHOUT ROWID;

-- Stack frames, each stored once.
CREATE TABLE frame (
    id INTEGER PRIMARY KEY,
    file TEXT NOT NULL,
    line INTEGER NOT NULL,
    function TEXT NOT NULL
);

-- Stacks, each stored once: the frames that share a stack number.
CREATE TABLE stack_frame (
    stack INTEGER NOT NULL,
    position INTEGER NOT NULL,      -- 0 is the innermost frame
    frame INTEGER NOT NULL REFERENCES frame (id),
    PRIMARY KEY (stack, position)
) WITHOUT ROWID;

-- System calls and blocking library calls with what they touched, each stored once.
CREATE TABLE call (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,             -- for example 'openat'
    resource_kind TEXT,             -- 'path', 'peer', 'pipe', 'lock', 'child', 'host', 'timer', 'other'
    resource TEXT,                  -- its name; NULL, as its kind, when unknown
    detail TEXT NOT NULL            -- arguments worth showing, such as 'fd 7'
);

-- The calls that this recorder counts wherever an iteration makes them, by the names in call: what
-- is not among them can be absent from call_site although it was made. Empty where calls are seen
-- inside stalls alone.
CREATE TABLE counted_call (
    name TEXT PRIMARY KEY
) WITHOUT ROWID;

-- Places that make a blocking call inside iterations, however short, with their totals over the
-- whole recording.
CREATE TABLE call_site (
    id INTEGER PRIMARY KEY,
    process INTEGER NOT NULL REFERENCES process (id),
    handler INTEGER REFERENCES handler (id),  -- inside which handler; NULL when unknown
    call INTEGER NOT NULL REFERENCES call (id),
    stack INTEGER,                  -- stack_frame.stack; NULL when unknown
    hits INTEGER NOT NULL,          -- calls; an estimate where a sample was drawn
    total_ns INTEGER NOT NULL,      -- of all of them, likewise
    longest_ns INTEGER NOT NULL     -- the longest that was seen
);

-- Iterations at or above the threshold whose details were kept.
CREATE TABLE stall (
    id INTEGER PRIMARY KEY,
    loop INTEGER NOT NULL REFERENCES loop (id),
    start_ns INTEGER NOT NULL,
    duration_ns INTEGER NOT NULL,
    finished INTEGER NOT NULL,      -- 0: still in progress when last seen, 1: over
    task TEXT,                      -- name of the asyncio task that was caught in it
    current INTEGER REFERENCES handler (id)  -- the handler in which the samples caught the loop
);
CREATE INDEX stall_start ON stall (loop, start_ns);

-- The handlers of a stall, heaviest first.
CREATE TABLE handler_time (
    stall INTEGER NOT NULL REFERENCES stall (id),
    position INTEGER NOT NULL,
    handler INTEGER NOT NULL REFERENCES handler (id),
    calls INTEGER NOT NULL,
    total_ns INTEGER NOT NULL,
    PRIMARY KEY (stall, position)
) WITHOUT ROWID;

-- Stretches of a stall, each described by the sample at its end.
CREATE TABLE span (
    stall INTEGER NOT NULL REFERENCES stall (id),
    position INTEGER NOT NULL,      -- in order of time
    from_ns INTEGER NOT NULL,
    to_ns INTEGER NOT NULL,
    samples INTEGER NOT NULL,       -- like samples that were merged
    stack INTEGER,                  -- stack_frame.stack; NULL when unknown
    call INTEGER REFERENCES call (id),  -- the call in which the thread was caught, if any
    state TEXT NOT NULL,            -- kernel thread state: R, S, D, T ...; '' when unknown
    cpu_ns INTEGER,                 -- CPU time of the loop's thread
    run_delay_ns INTEGER,           -- runnable but not running
    switches INTEGER,               -- voluntary context switches
    late_ns INTEGER NOT NULL,       -- how long the sampler waited for the GIL
    PRIMARY KEY (stall, position)
) WITHOUT ROWID;

-- Calls of a stall whose durations were measured exactly.
CREATE TABLE timed_call (
    stall INTEGER NOT NULL REFERENCES stall (id),
    position INTEGER NOT NULL,      -- in order of time
    start_ns INTEGER NOT NULL,
    duration_ns INTEGER NOT NULL,   -- of all of them, where count is more than one
    call INTEGER NOT NULL REFERENCES call (id),
    stack INTEGER,                  -- stack_frame.stack; NULL when unknown
    count INTEGER NOT NULL,         -- short calls of one kind, summed
    PRIMARY KEY (stall, position)
) WITHOUT ROWID;

-- Runs of the garbage collector inside a stall.
CREATE TABLE gc_pause (
    stall INTEGER NOT NULL REFERENCES stall (id),
    position INTEGER NOT NULL,      -- in order of time
    start_ns INTEGER NOT NULL,
    duration_ns INTEGER NOT NULL,
    generation INTEGER NOT NULL,    -- 0, 1 or 2
    stack INTEGER,                  -- stack_frame.stack of what set it off; NULL when unknown
    PRIMARY KEY (stall, position)
) WITHOUT ROWID;
