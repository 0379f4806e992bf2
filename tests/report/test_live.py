"""The view of the present: numbers in, a screen out, whatever its size."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from stallscope.agent.layout import bucket_of
from stallscope.analysis.glance import Glances, LiveNumbers, pace_of
from stallscope.recording.nouns import Call, Fidelity, Frame, Handler, Loop, Recording, Resource, Span, Stall, TimedCall
from stallscope.report import live

MS = 1_000_000
STACK = (Frame("/srv/app/access_log.py", 34, "write_page"), Frame("/srv/app/server.py", 91, "handle"))
HANDLER = Handler("Server.handle", "/srv/app/server.py", 80)
WRITE = Call("write", Resource("path", "/srv/app/access.log"))


def stall(start_ms: int, length_ms: int, *, finished: bool = True) -> Stall:
    start, end = start_ms * MS, (start_ms + length_ms) * MS
    return Stall(
        loop_id=1,
        start_ns=start,
        duration_ns=end - start,
        finished=finished,
        current=HANDLER,
        spans=(Span(start, end, 3, STACK, WRITE, "D"),),
        calls=(TimedCall(start, end - start, WRITE, STACK),) if finished else (),
    )


def recording() -> Recording:
    stalls = tuple(stall(100 * number, 40 + number % 7) for number in range(50))
    counts = {bucket_of(200_000): 2000}
    for one in stalls:
        counts[bucket_of(one.duration_ns)] = counts.get(bucket_of(one.duration_ns), 0) + 1
    loop = Loop(1, 1, 42, 42, "asyncio", "MainThread", 0, 10_000 * MS, counts)
    other = Loop(2, 1, 42, 43, "uvloop", "other", 0, 10_000 * MS, {bucket_of(100_000): 70})
    return Recording("", "stallscope", 10 * MS, 0, 10_000 * MS, Fidelity("pulse"), loops=(other, loop), stalls=stalls)


@pytest.fixture
def numbers() -> LiveNumbers:
    pace = pace_of(5.0, 1000, 2_900_000_000, stalls=100, stalls_s=60.0, age_ns=0)
    return LiveNumbers("process 42 (server)", 10.0, 2120, 50, 46 * MS, Glances().look(recording()), {1: pace}, {})


def drawn(numbers: LiveNumbers, choices: live.Choices | None = None, width: int = 80, height: int = 24) -> list[str]:
    out = StringIO()
    console = Console(file=out, width=width, height=height, highlight=False, markup=False)
    console.print(live.draw(numbers, choices or live.Choices(), width=width, height=height))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_shows_the_worst_loop_first_with_its_modes_and_culprits(numbers: LiveNumbers) -> None:
    lines = drawn(numbers)
    text = "\n".join(lines)
    assert lines[0] == "process 42 (server)"
    assert lines[1] == "10 s, 2,120 iterations, 50 stalls of 10 ms or more, worst 46 ms"
    assert "loop 1 (asyncio, pid 42): busy 58.0 %, 200 iterations/s, 100 stalls/min" in lines
    assert "now: waits for work" in lines
    assert "] mode 2" in text
    assert "bimodal: 2.4 % of iterations near 4" in text
    assert "write(app/access.log)" in text
    assert "Server.handle  app/access_log.py:34 in write_page" in text
    assert lines[-1] == "s sort (by share)  p pause  n next loop  q quit"


def test_an_overdue_iteration_is_shown_with_its_age_and_stack(numbers: LiveNumbers) -> None:
    lines = drawn(replace(numbers, running={1: stall(9_000, 700, finished=False)}))
    assert "now: OVERDUE, in progress for 700 ms in Server.handle, write(app/access.log)" in lines
    assert "    app/access_log.py:34 in write_page" in lines
    assert "    app/server.py:91 in handle" in lines


def test_a_young_iteration_is_not_called_overdue(numbers: LiveNumbers) -> None:
    young = stall(9_000, 3, finished=False)
    text = "\n".join(drawn(replace(numbers, running={1: young})))
    assert "now: an iteration of 3 ms" in text
    assert "OVERDUE" not in text


def test_the_next_loop_can_be_chosen(numbers: LiveNumbers) -> None:
    text = "\n".join(drawn(numbers, live.Choices(loop=1)))
    assert text.index("loop 2 (uvloop") < text.index("loop 1 (asyncio")
    assert drawn(numbers, live.Choices(loop=2)) == drawn(numbers)


def test_says_that_it_is_paused(numbers: LiveNumbers) -> None:
    lines = drawn(numbers, live.Choices(paused=True))
    assert lines[2].startswith("PAUSED")
    assert "p go on" in lines[-1]


def test_culprits_are_sorted_as_chosen(numbers: LiveNumbers) -> None:
    few_long, many_short = (
        replace(numbers.glance.culprits[0], rank=1, ns=900, stalls=2, longest_ns=800 * MS),
        replace(numbers.glance.culprits[0], rank=2, ns=100, stalls=90, longest_ns=900 * MS),
    )
    shown = replace(numbers, glance=replace(numbers.glance, culprits=(few_long, many_short)))
    orders = {
        order: [line.split()[0] for line in drawn(shown, live.Choices(order=order)) if "write(" in line]
        for order in live.ORDERS
    }
    assert orders == {"time": ["1", "2"], "stalls": ["2", "1"], "longest": ["2", "1"]}


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 60), (60, 10), (40, 3), (20, 1)])
def test_fits_every_screen(numbers: LiveNumbers, width: int, height: int) -> None:
    lines = drawn(replace(numbers, running={1: stall(9_000, 700, finished=False)}), width=width, height=height)
    assert len(lines) == height
    assert all(len(line) <= width for line in lines)
    assert lines[-1].startswith("s sort")


def test_a_low_screen_keeps_culprits_before_the_histogram(numbers: LiveNumbers) -> None:
    text = "\n".join(drawn(numbers, height=15))
    assert "write(app/access.log)" in text
    assert "usecs" not in text


def test_a_process_without_a_loop_is_said_so() -> None:
    empty = recording()._replace(loops=(), stalls=())
    lines = drawn(LiveNumbers("process 42 (server)", 1.0, 0, 0, 0, Glances().look(empty)))
    assert "no iteration of an event loop so far; watching on" in lines


def test_a_line_says_it_all(numbers: LiveNumbers) -> None:
    told = live.line(replace(numbers, running={1: stall(9_000, 700, finished=False)}))
    assert told == (
        "10.0 s; 2,120 iterations; 50 stalls (100/min); worst 46 ms; busy 58.0 %; bimodal: 2.4 % of iterations near "
        "43.2 ms; OVERDUE in progress for 700 ms in Server.handle, write(app/access.log) at app/access_log.py:34; "
        "top: 100 % write(app/access.log) at app/access_log.py:34"
    )


def test_json_of_a_loop_in_progress(numbers: LiveNumbers) -> None:
    made = live.as_json(replace(numbers, running={1: stall(9_000, 700, finished=False)}))
    first = made["loops"][0]
    assert (first["id"], first["shape"], len(first["modes"])) == (1, "bimodal", 2)
    assert first["in_progress"]["age_ms"] == 700
    assert first["in_progress"]["stack"][0] == {"file": "/srv/app/access_log.py", "line": 34, "function": "write_page"}
    assert made["loops"][1]["utilization"] is None
    assert made["culprits"][0]["syscall"] == "write"


def test_a_stall_is_divided_once() -> None:
    glances = Glances()
    assert glances.look(recording()) == glances.look(recording())


def test_pace_counts_what_is_in_progress() -> None:
    pace = pace_of(5.0, 10, 1_000_000_000, stalls=3, stalls_s=30.0, age_ns=90_000_000_000)
    assert (pace.utilization, pace.iterations_a_second, pace.stalls_a_minute) == (1.0, 2.0, 6.0)
