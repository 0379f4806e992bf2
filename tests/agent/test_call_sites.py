"""The places that make blocking calls, on their way into the shared memory."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from stallscope.agent import report
from stallscope.agent.call_sites import CallSites

SECOND_NS = 1_000_000_000


class Ring:
    """Takes records, as long as it has room."""

    def __init__(self) -> None:
        self.lines: list[int] = []
        self.has_room = True

    def put_record(self, text: str) -> bool:
        if self.has_room:
            self.lines.append(json.loads(text)["frames"][0][1])
        return self.has_room


@pytest.fixture
def sites(monkeypatch: pytest.MonkeyPatch) -> CallSites:
    monkeypatch.setattr(report, "handler_named", lambda agent, code: None)
    return CallSites(SimpleNamespace())


def _seen(line: int) -> Any:
    exact = SimpleNamespace(call=("open", "path", "/x", ""), stack=((_seen.__code__, line),), duration_ns=1000)
    return SimpleNamespace(exact=exact, weight=1, weight_ns=1000)


def _publish(sites: CallSites, ring: Any, now: int) -> int:
    """How many records one look made."""
    before = len(ring.lines)
    sites.publish(ring, now)
    return len(ring.lines) - before


def test_many_sites_are_published_a_few_a_look(sites: CallSites) -> None:
    """All at once the program went without the GIL for several milliseconds, once a second."""
    ring = Ring()
    for line in range(64):
        sites.add(_seen(line))
    looks = [_publish(sites, ring, 2 * SECOND_NS + look) for look in range(17)]
    assert looks == [4] * 16 + [0]
    assert sorted(ring.lines) == list(range(64))
    assert not sites.are_due()


def test_a_site_that_grew_is_published_again_after_a_second(sites: CallSites) -> None:
    ring = Ring()
    for line in range(6):
        sites.add(_seen(line))
    assert _publish(sites, ring, 2 * SECOND_NS) == 4
    assert sites.are_due()
    sites.add(_seen(0))
    assert [_publish(sites, ring, 2 * SECOND_NS + look) for look in (1, 2)] == [2, 0]
    assert _publish(sites, ring, 3 * SECOND_NS) == 1
    assert ring.lines[-1] == 0


def test_what_found_no_room_is_tried_again(sites: CallSites) -> None:
    ring = Ring()
    sites.add(_seen(1))
    ring.has_room = False
    assert _publish(sites, ring, 2 * SECOND_NS) == 0
    ring.has_room = True
    assert _publish(sites, ring, 3 * SECOND_NS) == 1


def test_all_that_grew_is_published_in_the_end(sites: CallSites) -> None:
    ring = Ring()
    for line in range(10):
        sites.add(_seen(line))
    _publish(sites, ring, 2 * SECOND_NS)
    sites.publish_all(ring)  # type: ignore[arg-type]
    assert sorted(ring.lines) == list(range(10))
