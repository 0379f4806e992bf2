"""The baseline file: what is kept, for how long, and what is no baseline."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date

import pytest

from stallscope.errors import UnreadableInput
from stallscope.gate.baseline import Baseline, parse, text_of, updated
from stallscope.gate.policy import Allowance
from tests.gate.runs import OLD, OPEN, run, site

EMPTY = Baseline("shop")
BOTH = (site(OLD), site(OPEN))
FULL = updated(
    replace(
        EMPTY, allowances=(Allowance("b.py:f", "because \N{SNOWMAN}", date(2027, 1, 31)), Allowance("a.py", "old"))
    ),
    [run(sites=BOTH), run()],
    "2026-06-01T10:00:00Z",
    "Linux x86_64, 2 CPUs",
)


def test_what_is_written_comes_back() -> None:
    again = parse(text_of(FULL), "x.jsonl", "shop")
    assert text_of(again) == text_of(FULL)
    assert (again.runs, again.sites) == (FULL.runs, FULL.sites)
    assert set(again.allowances) == set(FULL.allowances)


def test_accepting_the_same_run_again_changes_nothing() -> None:
    one = run(sites=BOTH)
    once = updated(EMPTY, [one], "2026-06-01T10:00:00Z", "here")
    assert updated(once, [one, one], "2026-06-02T10:00:00Z", "there") == once


def test_a_site_that_stays_keeps_its_line() -> None:
    first = updated(EMPTY, [run(sites=BOTH)], "2026-06-01T10:00:00Z", "here")
    second = updated(first, [run(sites=BOTH[::-1])], "2026-06-02T10:00:00Z", "here")
    sites = [[line for line in text_of(one).splitlines() if line.startswith('{"site"')] for one in (first, second)]
    assert sites[0] == sites[1] == sorted(sites[0])
    assert len(sites[0]) == 2


def test_a_site_is_kept_for_the_last_five_runs() -> None:
    kept = updated(EMPTY, [run(sites=BOTH)], "t0", "here")
    for n in range(5):
        assert len(kept.sites) == 2
        kept = updated(kept, [run(sites=BOTH[:1])], f"t{n + 1}", "here")
    assert len(kept.sites) == 1
    assert [one.at for one in kept.runs] == ["t1", "t2", "t3", "t4", "t5"]


def test_two_branches_merge_by_keeping_both_sides() -> None:
    base = updated(EMPTY, [run(sites=BOTH[:1])], "t0", "here")
    mine = updated(base, [run(sites=BOTH)], "t1", "here")
    theirs = updated(base, [run(sites=())], "t2", "here")
    union = "\n".join(dict.fromkeys((text_of(mine) + text_of(theirs)).splitlines()))
    merged = parse(union, "x.jsonl", "shop")
    assert [one.at for one in merged.runs] == ["t0", "t1", "t2"]
    assert list(merged.sites.values()) == [0, 0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty, not a baseline; make one with"),
        ("\n \n", "is empty"),
        ("{}", "not a baseline of stallscope"),
        ("[1]", "line 1 is no JSON object"),
        ("hello", "line 1 is no JSON object"),
        ('{"stallscope-baseline": 2, "project": "shop"}', "of schema 2, and this stallscope reads schema 1"),
        ('{"stallscope-baseline": 1, "project": "bank"}', "the baseline of the project 'bank', not of 'shop'"),
        ('{"stallscope-baseline": 1}', "not a baseline of stallscope"),
        ('{"stallscope-baseline": 1, "project": "shop"}\n<<<<<<< HEAD', "line 2 is a mark of an unfinished merge"),
        ('{"stallscope-baseline": 1, "project": "shop"}\n{"run": "x"}', "line 2 lacks what it should have ('level')"),
        (
            '{"stallscope-baseline": 1, "project": "shop"}\n{"site": "x", "function": 1, "call": "", "kind": ""}',
            "line 2",
        ),
        ('{"stallscope-baseline": 1, "project": "shop"}\n{"accepted": "x", "reason": "", "until": "soon"}', "line 2"),
    ],
)
def test_what_is_no_baseline(text: str, says: str) -> None:
    with pytest.raises(UnreadableInput, match=r"x\.jsonl") as caught:
        parse(text, "x.jsonl", "shop")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_number_that_is_none_is_damage() -> None:
    lines = text_of(FULL).splitlines()
    at = next(i for i, line in enumerate(lines) if '"run"' in line)
    for name, value in (("wall_s", "long"), ("iterations", -1), ("stalls", True), ("medians_us", {"a": None})):
        broken = [*lines[:at], json.dumps({**json.loads(lines[at]), name: value}), *lines[at + 1 :]]
        with pytest.raises(UnreadableInput, match=f"line {at + 1} lacks"):
            parse("\n".join(broken), "x.jsonl")


def test_lines_of_a_later_minor_version_are_passed_over() -> None:
    more = text_of(FULL) + '{"remark": "x"}\n'
    assert text_of(parse(more, "x.jsonl")) == text_of(FULL)


def test_a_runs_recorder_comes_back_with_the_calls_that_it_counts() -> None:
    new, older = frozenset({"openat", "statx"}), frozenset({"openat"})
    runs = [run(sites=BOTH, recorder=name, counted_calls=counted) for name, counted in (("1", older), ("2", new))]
    text = text_of(updated(EMPTY, runs, "2026-06-01T10:00:00Z", "here"))
    assert sum(line.startswith('{"counted"') for line in text.splitlines()) == 2
    again = parse("\n".join(reversed(text.splitlines())), "x.jsonl")  # a merge keeps lines in any order
    assert {(one.facts.recorder, one.facts.counted) for one in again.runs} == {("1", older), ("2", new)}


def test_a_baseline_from_before_recorders_were_noted_is_read_as_one() -> None:
    lines = [json.loads(line) for line in text_of(FULL).splitlines()]
    older = [{name: value for name, value in line.items() if name not in ("recorder", "counts")} for line in lines]
    one = parse("\n".join(map(json.dumps, older)), "x.jsonl").runs[0].facts
    assert (one.recorder, one.counted, one.knows_computing) == ("", None, False)
