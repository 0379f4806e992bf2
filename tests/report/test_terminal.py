"""The report for people: what it says, in 80 columns and without colour."""

from __future__ import annotations

import re

import pytest

from stallscope.analysis.examine import examine
from stallscope.recording.nouns import (
    Call,
    Executor,
    Frame,
    Handler,
    HandlerCounts,
    HandlerTime,
    Missing,
    Recording,
    Resource,
    Span,
    Stall,
    TimedCall,
)
from stallscope.report.terminal import render
from stallscope.report.words import duration, percent, short_path
from tests.analysis.recordings import FUTEX, LOOP_FRAMES, MS, SERVER, S, blocked, loop, path, recording, sampled, stack

READS = tuple(
    blocked(50 * MS, path("read", f"/srv/some/where/very/deep/down/in/the/archive/{k}.bin"), stack(20), k * 100 * MS)
    for k in range(100)
)


def report(made: Recording, **options: bool) -> str:
    return render(examine(made), width=80, **options)


def piled_up() -> Stall:
    handlers = tuple(HandlerTime(Handler(f"task{k}", SERVER, k), 4, 10 * MS) for k in range(5))
    spans = tuple(
        Span(k * 10 * MS, (k + 1) * 10 * MS, 2, (Frame(SERVER, k, f"task{k}"), *LOOP_FRAMES), FUTEX, "S", 10 * MS, 0, 1)
        for k in range(5)
    )
    return Stall(1, 0, 50 * MS, handlers=handlers, spans=spans)


HUNG = blocked(34 * S, Call("read", Resource("pipe", "pipe")), stack(12), 26 * S, finished=False)
RECORDINGS = {
    "reads": recording(READS),
    "hung": recording((HUNG,)),
    "healthy": recording(()),
    "empty": recording((), ()),
    "no iterations": recording((), [loop([])]),
    "pile-up": recording((piled_up(),)),
    "saturated": recording((), [loop([9 * MS] * 6600, zero_waits=6600)]),
    "workers": recording((), [loop([MS] * 100 + [50 * MS] * k, loop_id=k) for k in range(1, 15)]),
    "unexplained": recording((Stall(1, 0, 50 * MS),)),
    "cut off": recording((), complete=False, suppressed=3, notes=("recording stopped: disk full",)),
}


@pytest.mark.parametrize("name", RECORDINGS)
def test_no_line_is_longer_than_the_terminal_nor_coloured(name: str) -> None:
    text = report(RECORDINGS[name], all_stalls=True)
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert "\x1b" not in text
    assert "nan" not in text.lower()


def test_stalls_are_drawn_named_and_remedied() -> None:
    text = report(RECORDINGS["reads"])
    words = " ".join(text.split())
    assert "100 stalls of 10 ms or more, 5 s in all, the longest 50 ms" in words
    assert "10,100 iterations: p50 116 µs, p90 170 µs, p99 178 µs; bimodal" in words
    assert "mode 2 near 49.8 ms, above a valley at" in words
    assert "100 % #1; 100 % blocking-syscall" in words
    assert "In its stalls the loop: 100 % waits in a system call." in words
    rows = {line.split(":")[0].strip(): line for line in text.splitlines() if " -> " in line}
    assert "] mode 1" in rows["32 -> 1023"]
    assert "] mode 2" in rows["32768 -> 65535"]
    assert rows["32768 -> 65535"].count("*") == 1
    assert sum("valley" in row for row in rows.values()) == 1
    assert "read(archive/*.bin)" in text
    assert "Server.handle  app/server.py:20" in text
    assert "asyncio.to_thread" in text
    assert "Mend #1 first: stalls take 0 % of the time then" in text


def test_verbose_draws_every_row_of_the_histogram() -> None:
    rows = [line for line in report(RECORDINGS["reads"], verbose=True).splitlines() if " -> " in line]
    assert [row.split()[0] for row in rows[:3]] == ["32", "64", "128"]
    assert "] mode 1" in rows[1]
    assert sum(int(row.split()[4]) for row in rows) == 10_100


def test_a_long_gap_is_folded() -> None:
    text = report(RECORDINGS["pile-up"])
    assert "\n   ...\n 32768 -> 65535  : 1 " in text
    assert "..." not in report(RECORDINGS["pile-up"], verbose=True).split("usecs")[1]


def test_a_hang_is_called_out() -> None:
    assert "hung 34 s in read(pipe) at app/server.py:12, still in progress when" in report(RECORDINGS["hung"])


def test_a_healthy_recording_says_so_and_what_it_cannot_exclude() -> None:
    text = report(RECORDINGS["healthy"])
    assert "No stall: none of 10,000 iterations took 10 ms or more." in text
    assert "a stall mode rarer than 0.07 % could not be confirmed" in text


def test_a_recording_without_loops_says_so() -> None:
    assert "No event loop was seen" in report(RECORDINGS["empty"])


def test_the_heaviest_loops_have_a_section_and_the_rest_a_line() -> None:
    short = report(RECORDINGS["workers"])
    assert short.count("Meanwhile nobody is served") == short.count(" iterations: p50") == 1
    assert "and 7 more loops with fewer stalls" in short
    text = report(RECORDINGS["workers"], verbose=True)
    assert text.count("Meanwhile nobody is served") == text.count(" iterations: p50") == 3
    assert text.index("loop 14 (") < text.index("loop 13 (") < text.index("loop 11 (asyncio")
    assert "and 5 more loops with fewer stalls" in text


def test_what_was_not_seen_is_said() -> None:
    text = report(RECORDINGS["cut off"])
    assert "note: recording stopped: disk full" in text
    assert "not seen: details of 3 stalls" in text
    blind = RECORDINGS["healthy"]._replace(
        fidelity=RECORDINGS["healthy"].fidelity._replace(missing=(Missing("exact calls", "no pulse"),)),
    )
    assert "not seen: exact calls (no pulse)" in report(blind)


def test_a_pile_up_names_its_handlers() -> None:
    text = report(RECORDINGS["pile-up"])
    assert "many short handlers" in text
    assert "task0 (4 calls)" in text


def test_the_source_of_the_line_is_shown_when_it_can_be_read() -> None:
    here = Frame(__file__, 1, "test")
    text = report(recording((blocked(50 * MS, path("read", "/a"), (here, *LOOP_FRAMES)),)))
    assert '"""The report for people' in text


def test_colour_is_for_terminals() -> None:
    assert "\x1b[" in report(RECORDINGS["reads"], colour=True)


def test_the_same_recording_gives_the_same_bytes() -> None:
    assert report(RECORDINGS["reads"]) == report(RECORDINGS["reads"])


@pytest.mark.parametrize(
    ("ns", "text"),
    [(34e9, "34 s"), (50.1e6, "50.1 ms"), (999.7e6, "1 s"), (4_190, "4.19 µs"), (0, "0 ns"), (999, "999 ns")],
)
def test_durations(ns: float, text: str) -> None:
    assert duration(ns) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(1, "100 %"), (0.99999, "99.9 %"), (0.183, "18.3 %"), (0.0035, "0.35 %"), (1e-7, "<0.01 %"), (0, "0 %")],
)
def test_percents(share: float, text: str) -> None:
    assert percent(share) == text


def test_paths_are_relative_to_the_project() -> None:
    assert short_path("/srv/app/lib/io.py", "/srv/app") == "lib/io.py"
    assert short_path("/usr/lib/python3/io.py", "/srv/app") == "python3/io.py"
    assert short_path("/a.py", "/srv/app") == "/a.py"
    assert short_path("pipe:[7]", "/srv/app") == "pipe:[7]"


def test_verbose_adds_the_causes_the_remedies_and_who_delayed_whom() -> None:
    made = recording(READS, handlers=(HandlerCounts(1, Handler("Server.meta", SERVER, 60), {200: 5000}),))
    text = report(made, verbose=True)
    assert [line for line in text.splitlines() if len(line) > 80 and "see https://" not in line] == []
    assert "blocking-syscall     100 %       5 s      100   waits in a system call" in text
    assert "all                  100 %       5 s      100" in text
    assert "itself: blocking-syscall 100 % (5 s)" in text
    assert "its 100 stalls: blocking-syscall 100 % (5 s)" in text
    assert "see https://" in text
    assert "A thread pool for it: 1.67 calls a second of 50 ms each need 2 threads" in " ".join(text.split())
    assert "Server.meta" in text
    assert "Server.meta" not in report(made)


def test_a_cadence_is_a_sentence_of_the_report() -> None:
    ticks = tuple(blocked(50 * MS, path("read", "/a"), stack(20), k * 5 * S) for k in range(12))
    assert "cadence: #1 comes every 5 s (11 of 11 gaps)" in report(recording(ticks))
    assert "cadence" not in report(RECORDINGS["pile-up"])


@pytest.mark.parametrize("name", RECORDINGS)
def test_the_report_fits_one_screen(name: str) -> None:
    assert len(report(RECORDINGS[name]).splitlines()) <= 40


def test_verbose_tells_of_the_pools_that_are_there() -> None:
    pools = (Executor(1, "asyncio", True, 2, 2, 100, 190, 40, 9), Executor(1, "disk", False, None, 4, 100, 100, 0, 0))
    text = report(recording(READS, executors=pools), verbose=True)
    words = " ".join(text.split())
    assert "The default executor may have 2 threads: 99.2 % busy with this" in words
    assert "so the pool becomes the new queue. Give them a pool of their own." in words
    assert "       2        2    1.9   40.0 %        9   asyncio (default)" in text
    assert "       4  unknown    1.0      0 %        0   disk" in text
    assert "The process used no default executor; Python gives it 5 threads at least" in " ".join(
        report(RECORDINGS["reads"], verbose=True).split()
    )


def test_many_small_calls_are_told_by_their_number() -> None:
    calls = (TimedCall(0, 45 * MS, path("newfstatat", "/srv/index"), stack(20), 300),)
    made = recording((Stall(1, 0, 50 * MS, calls=calls),))
    assert "newfstatat(/srv/index) x300" in report(made)
    assert "measured: 300 calls in 1 stall, 150 µs each on average" in report(made, verbose=True)


def test_the_remedies_of_the_next_two_are_a_line_each() -> None:
    writes = [blocked(20 * MS, path("write", "/srv/x"), stack(30, "log"), 30 * S + k * 100 * MS) for k in range(50)]
    opens = [blocked(15 * MS, path("openat", "/srv/y"), stack(40, "load"), 45 * S + k * 100 * MS) for k in range(50)]
    text = report(recording((*READS, *writes, *opens)))
    assert re.search(r"Mend #1 first: stalls take [23]\.\d+ % of the time then, 0 % without #1 to #3", text)
    assert "  then #2: lines = queue.SimpleQueue()" in text
    assert "  then #3: data = await asyncio.to_thread(load, ...)  # opens and reads" in text


def test_a_number_is_not_parted_from_its_unit() -> None:
    for name in RECORDINGS:
        for line in report(RECORDINGS[name], verbose=True).splitlines():
            assert line.split()[:1] not in (["%"], ["ms"], ["s"], ["µs"])


def test_what_the_machine_did_is_not_what_to_mend_first() -> None:
    spans = sampled(50 * MS, FUTEX, stack(20, "compute"), cpu=0.3, delay=0.7)
    text = report(recording((Stall(1, 0, 50 * MS, spans=spans),)))
    assert re.search(r"  1 +7\d\.\d % .* descheduled", text)
    assert "Mend #2 first: stalls take " in text
    assert "  then #1: The loop was ready to run but had no CPU" in text
