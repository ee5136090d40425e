"""Figures of a running service in Prometheus' text form, and one line of JSON per request."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sys
import time
from bisect import bisect_left
from collections import defaultdict
from typing import Any, TextIO

import msgspec

__all__ = ["Metrics"]

_LATE = 0.1  # seconds that lines of requests may wait to be written
_encoded = msgspec.json.Encoder().encode
_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)  # seconds


class Metrics:
    """Counts, and a log without personal data: routes stand in it, not paths, and no body.

    Args:
        log: where lines go; nowhere where None.
        requests: whether there is a line per request; other lines are written all the same.
    """

    def __init__(self, log: TextIO | None = None, requests: bool = True) -> None:
        self._log, self._told = log, requests
        self._lines: list[bytes] = []  # of requests, not yet written
        self._requests: dict[tuple[str, int], int] = defaultdict(int)
        self._seconds: dict[str, list[float]] = {}
        self.events: dict[str, int] = defaultdict(int)
        self.in_flight = 0

    def done(self, route: str, status: int, seconds: float, request_id: str) -> None:
        """Count a request that was answered."""
        self._requests[route, status] += 1
        held = self._seconds.get(route)
        if held is None:
            held = self._seconds[route] = [0.0] * (len(_BOUNDS) + 2)
        held[bisect_left(_BOUNDS, seconds)] += 1
        held[-1] += seconds
        if self._log is None or not self._told:
            return
        # No route and no id of a request has a character that JSON writes in another way.
        said = '{"time":%.3f,"event":"request","route":"%s","status":%d,"ms":%.3f,"request_id":"%s"}'
        self._lines.append((said % (time.time(), route, status, 1e3 * seconds, request_id)).encode())
        if len(self._lines) == 1:  # one write for all requests of a short time
            asyncio.get_running_loop().call_later(_LATE, self.flush)

    def say(self, event: str, **said: Any) -> None:
        """Write one line of JSON."""
        if self._log is not None:
            self._lines.append(_encoded({"time": round(time.time(), 3), "event": event, **said}))
            self.flush()

    def flush(self) -> None:
        """Write the lines that wait."""
        lines, self._lines = self._lines, []
        if self._log is not None and lines:
            with contextlib.suppress(OSError, ValueError):  # whoever reads the log may go: requests are answered
                self._log.write((b"\n".join(lines) + b"\n").decode())
                self._log.flush()

    def text(self, gauges: dict[str, float]) -> bytes:
        """All figures as Prometheus reads them.

        Args:
            gauges: more of them, by name with labels.
        """
        lines = ["# TYPE hashlgn_requests_total counter"]
        for (route, status), count in sorted(self._requests.items()):
            lines.append(f'hashlgn_requests_total{{route="{route}",status="{status}"}} {count}')
        lines.append("# TYPE hashlgn_request_seconds histogram")
        for route, held in sorted(self._seconds.items()):
            total = 0.0
            for bound, size in zip((*map(str, _BOUNDS), "+Inf"), held, strict=False):
                total += size
                lines.append(f'hashlgn_request_seconds_bucket{{route="{route}",le="{bound}"}} {total:.0f}')
            lines.append(f'hashlgn_request_seconds_sum{{route="{route}"}} {held[-1]:.6f}')
            lines.append(f'hashlgn_request_seconds_count{{route="{route}"}} {total:.0f}')
        lines.append("# TYPE hashlgn_events_total counter")
        lines += [f'hashlgn_events_total{{outcome="{name}"}} {count}' for name, count in sorted(self.events.items())]
        lines += ["# TYPE hashlgn_in_flight gauge", f"hashlgn_in_flight {self.in_flight}"]
        lines += ["# TYPE process_resident_memory_bytes gauge", f"process_resident_memory_bytes {_memory()}"]
        typed = set()
        for name, value in gauges.items():
            metric = name.partition("{")[0]
            if metric not in typed:
                lines.append(f"# TYPE {metric} gauge")
                typed.add(metric)
            lines.append(f"{name} {value:g}")
        return ("\n".join(lines) + "\n").encode()


def _memory() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as held:  # noqa: PTH123
            return int(held.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
