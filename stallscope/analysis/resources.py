"""Several resources of one site under one name: ``archive/*.bin``, ``3 peers at 10.0.0.5:*``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from os.path import commonprefix

from stallscope.recording.nouns import Resource

DELETED = " (deleted)"  # what /proc/PID/fd appends to the path of a file that is gone
BLAMED = 0.95  # of the time: where calls are timed the fast ones are there too, and are not to blame
_PLURAL = {"child": "children", "other": "things"}


def plain(resource: Resource) -> Resource:
    """A resource by the name that it had before it was deleted."""
    return Resource(resource.kind, resource.name.removesuffix(DELETED))


def joint_name(weights: Mapping[Resource, int]) -> str | None:
    """One name for all the resources of a site that have one; None without any.  `weights` are their ns."""
    weights = _blamed(weights)
    names = sorted({resource.name for resource in weights if resource.name})
    if len(names) < 2:
        return names[0] if names else None
    kinds: Counter[str] = Counter()
    for resource, ns in weights.items():
        kinds[resource.kind] += ns
    kind = kinds.most_common(1)[0][0]
    pattern = _paths(names) if kind == "path" else _peers(names) if kind == "peer" else None
    return pattern or f"{len(names)} {_PLURAL.get(kind, kind + 's')}"


def _blamed(weights: Mapping[Resource, int]) -> dict[Resource, int]:
    """The heaviest that make up `BLAMED` of the time together, and those as heavy as the last of them."""
    enough_ns, least_ns = BLAMED * sum(weights.values()), 0
    for ns in sorted(weights.values(), reverse=True):
        if enough_ns <= 0:
            break
        enough_ns, least_ns = enough_ns - ns, ns
    return {resource: ns for resource, ns in weights.items() if ns >= least_ns}


def _paths(names: list[str]) -> str | None:
    # By character, not by component: log-1.txt and log-2.txt are log-*.txt.
    prefix = commonprefix(names)  # noqa: RUF071
    room = min(map(len, names)) - len(prefix)
    tail = commonprefix([name[::-1] for name in names])[:room][::-1]  # noqa: RUF071
    suffix = tail[min((at for at in map(tail.find, "./") if at >= 0), default=len(tail)) :]
    return f"{prefix}*{suffix}" if prefix.strip("/") or suffix else None


def _peers(names: list[str]) -> str | None:
    hosts = {name.rpartition(":")[0] for name in names}
    return f"{len(names)} peers at {hosts.pop()}:*" if len(hosts) == 1 else None
