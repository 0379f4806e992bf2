"""What is written comes back: whole, added up, replaced where it should be, and in one file."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stallscope.agent.layout import BUCKETS, bounds_ns, bucket_of
from stallscope.recording.file import RecordingStopped
from stallscope.recording.nouns import Call, Frame, Handler, Missing, Resource, Span, Stall
from stallscope.recording.reader import read
from stallscope.recording.store import store
from stallscope.recording.writer import SECOND_NS
from tests.recording.examples import (
    EVERYTHING,
    HUNG,
    PING,
    SITE,
    STALL,
    STARTED_NS,
    THRESHOLD_NS,
    new_writer,
    with_one_loop,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.stall"


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    db = sqlite3.connect(path)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def test_everything_comes_back(path: Path) -> None:
    writer = new_writer(path)
    store(EVERYTHING, writer)
    writer.close(EVERYTHING.ended_ns)
    assert read(path) == EVERYTHING._replace(path=str(path))


def test_a_recording_without_a_loop_is_a_recording(path: Path) -> None:
    new_writer(path).close(STARTED_NS + 5)
    recording = read(path)
    assert (recording.loops, recording.stalls, recording.complete) == ((), (), True)
    assert recording.ended_ns == STARTED_NS + 5
    assert recording.fidelity.level == "agent"


def test_a_closed_recording_is_one_private_file(path: Path) -> None:
    writer = with_one_loop(path)
    writer.commit()
    modes = {name: os.stat(path.parent / name).st_mode & 0o777 for name in os.listdir(path.parent)}
    assert modes == {"x.stall": 0o600, "x.stall-wal": 0o600, "x.stall-shm": 0o600}
    writer.close(STARTED_NS)
    assert os.listdir(path.parent) == ["x.stall"]
    assert rows(path, "PRAGMA journal_mode") == [("delete",)]


def test_closing_twice_does_nothing_and_writing_after_it_is_refused(path: Path) -> None:
    writer = with_one_loop(path)
    writer.close(STARTED_NS + 1)
    writer.close(STARTED_NS + 2)
    assert read(path).ended_ns == STARTED_NS + 1
    with pytest.raises(RecordingStopped, match="closed"):
        writer.note("too late")


def test_a_later_record_of_a_call_site_replaces_its_totals(path: Path) -> None:
    writer = with_one_loop(path)
    unknown = SITE._replace(handler=None, stack=())
    for hits in (1, 2, 3):
        writer.call_site(SITE._replace(hits=hits, total_ns=10 * hits, longest_ns=10))
        writer.call_site(unknown._replace(hits=hits))
        writer.commit()
    writer.close(STARTED_NS)
    assert read(path).call_sites == (SITE._replace(hits=3, total_ns=30, longest_ns=10), unknown._replace(hits=3))


def test_call_sites_that_differ_in_anything_are_kept_apart(path: Path) -> None:
    other = Call("write", Resource("path", "/var/log/another.log"), "fd 7")
    sites = (SITE, SITE._replace(handler=PING), SITE._replace(call=other), SITE._replace(stack=SITE.stack[1:]))
    writer = with_one_loop(path)
    for site in sites:
        writer.call_site(site)
    writer.close(STARTED_NS)
    assert read(path).call_sites == sites


def test_call_sites_without_end_are_bounded_and_said_to_be_missing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stallscope.recording.writer.CALL_SITES_MAX", 3)
    writer = with_one_loop(path)
    for number in range(5):
        writer.call_site(SITE._replace(call=Call("openat", Resource("path", f"/tmp/{number}"))))
    writer.call_site(SITE._replace(call=Call("openat", Resource("path", "/tmp/0")), hits=9))
    writer.close(STARTED_NS)
    recording = read(path)
    assert [site.hits for site in recording.call_sites] == [9, SITE.hits, SITE.hits]
    assert recording.fidelity.missing == (Missing("some call sites", "only the first 3 were kept"),)


def test_counts_of_the_same_moment_and_of_others_add_up(path: Path) -> None:
    writer = with_one_loop(path)
    for second in (0, 0, 1, 61, 3599):
        writer.histogram(1, STARTED_NS + second * SECOND_NS, {300: 2, 900: 1})
        writer.handler_histogram(writer.handler(1, STALL.current or Handler("")), {500: 4})
        writer.commit()
    writer.close(STARTED_NS)
    recording = read(path)
    assert recording.loops[0].counts == {300: 10, 900: 5}
    assert [counted.counts for counted in recording.handlers] == [{500: 20}]


def test_histograms_of_handlers_lag_nine_commits_at_most(path: Path) -> None:
    writer = with_one_loop(path)
    handler = writer.handler(1, Handler("h"))
    for _ in range(10):
        writer.commit()
        writer.handler_histogram(handler, {500: 1})
    assert read(path).handlers == ()
    writer.commit()
    assert [counted.counts for counted in read(path).handlers] == [{500: 10}]
    writer.close(STARTED_NS)


def test_fast_iterations_are_kept_by_the_minute_and_slow_ones_by_the_second(path: Path) -> None:
    quarter = bucket_of(THRESHOLD_NS // 4)
    writer = with_one_loop(path)
    for second in (-1, 0, 59, 60, 119):
        writer.histogram(1, STARTED_NS + second * SECOND_NS, {quarter - 1: 1, quarter: 1})
    writer.close(STARTED_NS)
    by_interval = "SELECT interval, sum(count) FROM histogram WHERE bucket {} {} GROUP BY interval"
    assert rows(path, by_interval.format("<", quarter)) == [(0, 3), (60, 2)]
    assert rows(path, by_interval.format(">=", quarter)) == [(0, 2), (59, 1), (60, 1), (119, 1)]


def test_an_hour_of_a_healthy_busy_loop_is_under_one_mebibyte(path: Path) -> None:
    """As many distinct buckets in each second as a loop of some 5000 iterations/s fills."""
    middle = bucket_of(200_000)
    bell = {middle + offset: 1 + max(0, 60 - abs(offset)) for offset in range(-100, 101)}
    writer = with_one_loop(path)
    handlers = [writer.handler(1, Handler(f"handler_{number}", "/srv/app.py", number)) for number in range(20)]
    for second in range(0, 3600, 10):  # the seconds between them fall into the same rows
        at_ns = STARTED_NS + second * SECOND_NS
        writer.histogram(1, at_ns, bell)
        for handler in handlers:
            writer.handler_histogram(handler, bell)
        writer.loop_seen(1, at_ns, second)
    writer.close(STARTED_NS + 3600 * SECOND_NS)
    assert path.stat().st_size < 2**20
    assert rows(path, "SELECT count(DISTINCT interval) FROM histogram") == [(60,)]


def test_recordings_merge_by_plain_sql(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.stall" for number in range(3)]
    expected: Counter[int] = Counter()
    for number, path in enumerate(paths):
        counts = {300 + number: 5, 310: 1, 1000: number + 1}
        writer = with_one_loop(path)
        writer.histogram(1, STARTED_NS + number * SECOND_NS, counts)
        writer.close(STARTED_NS)
        expected.update(counts)
    db = sqlite3.connect(":memory:")
    for number, path in enumerate(paths):
        db.execute(f"ATTACH ? AS file{number}", (str(path),))
    union = " UNION ALL ".join(f"SELECT * FROM file{number}.histogram" for number in range(3))
    assert dict(db.execute(f"SELECT bucket, sum(count) FROM ({union}) GROUP BY bucket")) == expected
    db.close()


def test_the_bounds_in_sql_are_the_layouts(path: Path) -> None:
    writer = with_one_loop(path)
    writer.histogram(1, STARTED_NS, dict.fromkeys(range(BUCKETS), 1))
    writer.close(STARTED_NS)
    bounds = rows(path, "SELECT lo_ns, hi_ns FROM histogram_ns ORDER BY bucket, interval")
    assert bounds == [bounds_ns(bucket) for bucket in range(BUCKETS)]


def test_an_unfinished_stall_is_replaced_by_its_next_record(path: Path) -> None:
    writer = with_one_loop(path)
    progress = STALL._replace(finished=False, duration_ns=20, spans=STALL.spans[:1])
    ids = [writer.stall(progress), writer.stall(HUNG._replace(loop_id=1)), writer.stall(progress._replace(task=None))]
    writer.commit()
    assert [stall.finished for stall in read(path).stalls] == [False, False]
    ids += [writer.stall(STALL), writer.stall(progress)]
    writer.close(STARTED_NS)
    assert ids == [1, 2, 1, 1, 1]
    assert read(path).stalls == (STALL, HUNG._replace(loop_id=1))


def test_two_finished_stalls_may_begin_at_once(path: Path) -> None:
    writer = with_one_loop(path)
    assert writer.stall(STALL) != writer.stall(STALL)
    writer.close(STARTED_NS)
    assert read(path).stalls == (STALL, STALL)


def test_what_repeats_is_stored_once(path: Path) -> None:
    writer = with_one_loop(path)
    for number in range(5):
        writer.stall(STALL._replace(start_ns=STARTED_NS + number))
        writer.missing(Missing("run-queue delay", "no /proc"))
        writer.note("once")
    writer.close(STARTED_NS)
    once = [
        rows(path, f"SELECT count(*) FROM {table}")[0][0] for table in ("frame", "call", "handler", "missing", "note")
    ]
    assert once == [3, 2, 2, 1, 1]
    assert rows(path, "SELECT count(DISTINCT stack), count(*) FROM stack_frame") == [(2, 5)]


def test_many_different_names_neither_grow_the_writer_nor_lose_anything(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stallscope.recording.writer.INTERNED_MAX", 2)
    monkeypatch.setattr("stallscope.recording.writer.PENDING_MAX", 3)
    writer = with_one_loop(path)
    stalls: list[Stall] = []
    for number in [*range(10), *range(10)]:
        call = Call("openat", Resource("path", f"/srv/{number}"), f"fd {number}")
        span = Span(1, 2, 1, (Frame("a.py", number, "f"),), call, "S")
        stalls.append(Stall(1, STARTED_NS + len(stalls), 5, current=Handler(f"h{number}"), spans=(span,)))
        writer.stall(stalls[-1])
        writer.histogram(1, STARTED_NS, {number: 1})
    writer.close(STARTED_NS)
    recording = read(path)
    assert recording.stalls == tuple(stalls)
    assert recording.loops[0].counts == dict.fromkeys(range(10), 2)
    assert rows(path, "SELECT count(*) FROM handler") == [(10,)]


def test_names_that_are_not_utf8_are_made_printable(path: Path) -> None:
    name = os.fsdecode(b"/srv/caf\xe9.py")
    writer = with_one_loop(path)
    writer.process(1, 1, name, "nul \0 inside", STARTED_NS)
    writer.stall(STALL._replace(current=Handler("h", name, 1)))
    writer.close(STARTED_NS)
    recording = read(path)
    assert recording.processes[1].program == "/srv/caf\\udce9.py"
    assert recording.processes[1].runtime == "nul \0 inside"
    assert recording.stalls[0].current == Handler("h", "/srv/caf\\udce9.py", 1)


def test_nonsense_numbers_of_a_dying_process_do_not_stop_the_recorder(path: Path) -> None:
    writer = with_one_loop(path)
    writer.loop_seen(1, STARTED_NS, 2**64 - 1)
    for second in range(2):
        writer.histogram(1, STARTED_NS + second * SECOND_NS, {1000: 2**64 - 1})
    writer.close(STARTED_NS)
    (loop,) = read(path).loops
    assert (loop.zero_waits, loop.counts) == (2**63 - 1, {1000: 2**49})


def test_a_deleted_file_with_an_odd_name_stops_the_recording(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.stall")
    writer = with_one_loop(path)
    path.rename(tmp_path / "moved.stall")
    with pytest.raises(RecordingStopped, match="moved"):
        writer.commit()
    writer.close(STARTED_NS)


def test_a_recording_in_progress_can_be_read(path: Path) -> None:
    writer = with_one_loop(path)
    writer.stall(STALL)
    writer.histogram(1, STARTED_NS + SECOND_NS, {300: 1})
    writer.commit()
    writer.stall(STALL._replace(start_ns=STARTED_NS + 1))
    recording = read(path)
    assert (recording.complete, recording.ended_ns) == (False, STARTED_NS + SECOND_NS)
    assert recording.stalls == (STALL,)
    writer.commit(STARTED_NS + 9 * SECOND_NS)
    assert len(read(path).stalls) == 2
    assert read(path).ended_ns == STARTED_NS + 9 * SECOND_NS
    writer.close(STARTED_NS + 10 * SECOND_NS)
    assert read(path).complete


def test_closing_while_somebody_reads_loses_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stallscope.recording.file.BUSY_S", 0.01)
    writer = with_one_loop(path)
    writer.commit()
    reader = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM stall").fetchone() == (0,)
    writer.stall(STALL)
    writer.close(STARTED_NS + 1)
    assert reader.execute("SELECT count(*) FROM stall").fetchone() == (0,)
    reader.close()
    recording = read(path)
    assert (recording.stalls, recording.complete) == ((STALL,), True)


def test_odd_names_and_a_changed_directory_are_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    writer = with_one_loop(Path(":memory:"))
    monkeypatch.chdir("elsewhere")
    writer.commit()
    writer.close(STARTED_NS + 1)
    assert read(tmp_path / ":memory:").complete


def test_a_deleted_file_stops_the_recording(path: Path) -> None:
    writer = with_one_loop(path)
    writer.commit()
    path.unlink()
    with pytest.raises(RecordingStopped, match="deleted"):
        writer.commit()
    with pytest.raises(RecordingStopped, match="deleted"):
        writer.stall(STALL)
    writer.close(STARTED_NS)
