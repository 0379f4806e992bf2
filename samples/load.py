#!/usr/bin/env python3
"""The load for `file_server.py`: keep-alive connections that check every byte they are sent.

Some ask for metadata, some transfer files, and each rests for a moment between two requests. It
runs on threads: were it an event loop, a profiler that follows children would report that too.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import random
import sys
import threading
import time

from slow_storage import content_of, stored_names

REST_S = {"meta": 0.010, "files": 0.120}  # means of exponential distributions
TIMEOUT_S = 30


class Load:
    """What the connections share: the right answers, when to stop, and what they found."""

    def __init__(self, port: int, seed: int, requests: int | None, seconds: float) -> None:
        self.port, self.seed = port, seed
        self.requests = requests
        self.ends_at = time.monotonic() + seconds
        contents = {name: content_of(name) for name in stored_names()}
        self.names = list(contents)
        self.answers = {"files": contents, "meta": {n: metadata(n, c) for n, c in contents.items()}}
        self.latencies_s: dict[str, list[float]] = {"files": [], "meta": []}
        self.errors: list[str] = []

    def run(self, connections: dict[str, int]) -> None:
        """Run so many connections to each route at once, to their end."""
        threads = [
            threading.Thread(target=self.run_connection, args=(route, n), daemon=True)
            for route, count in connections.items()
            for n in range(count)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def run_connection(self, route: str, number: int) -> None:
        """One connection; the requests it makes depend on the seed and its number alone."""
        rng = random.Random(f"{self.seed} {route} {number}")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        made = 0
        try:
            while not self.is_over(made):
                self.request(connection, route, rng.choice(self.names))
                made += 1
                time.sleep(rng.expovariate(1 / REST_S[route]))
        except (OSError, http.client.HTTPException) as error:
            self.errors.append(f"{route} connection {number}: {error!r}")
        finally:
            connection.close()

    def is_over(self, made: int) -> bool:
        if self.requests is not None:
            return made >= self.requests
        return time.monotonic() >= self.ends_at

    def request(self, connection: http.client.HTTPConnection, route: str, name: str) -> None:
        started = time.perf_counter()
        connection.request("GET", f"/{route}/{name}")
        response = connection.getresponse()
        body = response.read()
        self.latencies_s[route].append(time.perf_counter() - started)
        if response.status != 200 or body != self.answers[route][name]:
            self.errors.append(f"/{route}/{name}: wrong body, status {response.status}")

    def print_summary(self) -> None:
        for route, latencies_s in self.latencies_s.items():
            ms = sorted(1000 * s for s in latencies_s) or [0.0]
            p50, p99 = ms[len(ms) // 2], ms[len(ms) * 99 // 100]
            print(
                f"{len(latencies_s):6} GET /{route:5} latency p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {ms[-1]:.1f} ms"
            )
        print(f"{len(self.errors):6} errors", *self.errors[:5], sep="\n  " if self.errors else "")


def metadata(name: str, content: bytes) -> bytes:
    """The body of /meta/NAME."""
    digest = hashlib.sha256(content).hexdigest()
    return json.dumps({"name": name, "size": len(content), "sha256": digest}).encode()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("port", type=int, help="the server's, on 127.0.0.1")
    parser.add_argument("--metadata", type=int, default=6, metavar="N", help="connections (6)")
    parser.add_argument("--transfers", type=int, default=3, metavar="N", help="connections (3)")
    parser.add_argument("--seconds", type=float, default=8, help="how long to go on (8)")
    parser.add_argument("--requests", type=int, metavar="N", help="N a connection, instead")
    parser.add_argument("--seed", type=int, default=1, help="which requests are made (1)")
    args = parser.parse_args()
    load = Load(args.port, args.seed, args.requests, args.seconds)
    load.run({"meta": args.metadata, "files": args.transfers})
    load.print_summary()
    return 1 if load.errors or not any(load.latencies_s.values()) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
