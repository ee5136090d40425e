"""A service under load with events, deletions and swaps of models: memory stays flat, descriptors do not leak.

``python tests/serve/soak_service.py 3600`` loads it for an hour (``make soak-serve``); a second number is the seconds
that each client rests between two requests, so that other work on the machine can go on. Memory is what the process
holds for itself (``RssAnon``); its median in the last quarter of the time is compared with that in the second quarter.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from hashlgn.cli.main import app
from hashlgn.utils.console import exit_code

USERS, ITEMS, CLIENTS = 2000, 1000, 4
SMALL = "--set student.epochs=2 --set student.distillation_epochs=1 --set model.dim=32 --set model.bits=64"


def models(folder: Path) -> list[Path]:
    """Two models of the same made-up data."""
    made = ["data", "synth", "--users", str(USERS), "--items", str(ITEMS), "--interactions", "60000"]
    assert exit_code(app, [*made, "--out", str(folder / "data")]) == 0
    for name, seed in (("one", "0"), ("two", "1")):
        train = ["train", str(folder / "data"), "--out", str(folder / name), "--seed", seed, "--quiet", *SMALL.split()]
        assert exit_code(app, train) == 0
    return [folder / "one", folder / "two"]


class Load:
    """Clients of a service, and what became of their requests."""

    def __init__(self, address: str, rest: float = 0.0) -> None:
        self.address, self.going, self.rest = address, True, rest
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.wrong: list[str] = []

    def ask(self, connection: http.client.HTTPConnection, what: str, method: str, path: str, body: Any = None) -> Any:
        connection.request(
            method, path, None if body is None else json.dumps(body), {"content-type": "application/json"}
        )
        answer = connection.getresponse()
        said = answer.read()
        self.statuses[what, answer.status] += 1
        return json.loads(said) if said and answer.status < 500 else None

    def client(self, number: int) -> None:
        """Requests of all kinds about a share of the users, so that each client knows what it wrote."""
        draws = random.Random(number)
        connection = http.client.HTTPConnection(self.address, timeout=60)
        while self.going:
            user, item = draws.randrange(number, USERS, CLIENTS), draws.randrange(ITEMS)
            kind = draws.random()
            time.sleep(self.rest)
            if kind < 0.55:
                self.ask(connection, "recommend", "GET", f"/v1/users/{user}/recommendations?k=10&explain=true")
            elif kind < 0.6:
                self.ask(connection, "session", "POST", "/v1/sessions", {"history": [item], "k": 10})
            elif kind < 0.95:
                events = [{"user": user, "item": draws.randrange(ITEMS)} for _ in range(draws.choice([1, 1, 10]))]
                self.ask(connection, "events", "POST", "/v1/events", events)
                entries = self.ask(connection, "history", "GET", f"/v1/users/{user}/history")["items"]
                if not {event["item"] for event in events} <= {entry["item"] for entry in entries}:
                    self.wrong.append(f"an event of {user} is not in the history")
            else:
                self.ask(connection, "delete", "DELETE", f"/v1/users/{user}")
                if self.ask(connection, "history", "GET", f"/v1/users/{user}/history")["items"]:
                    self.wrong.append(f"{user} was deleted and has a history")

    def swaps(self, versions: list[str]) -> None:
        connection = http.client.HTTPConnection(self.address, timeout=60)
        while self.going:
            for version in versions:
                self.ask(connection, "activate", "POST", f"/v1/models/{version}/activate")
                time.sleep(1)


def held(process: int) -> tuple[float, int]:
    """Megabytes that a process holds for itself, and its open descriptors."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+)", status)[1]) / 1024, len(list(Path(f"/proc/{process}/fd").iterdir()))


def soak(seconds: float, rest: float = 0.0) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        start = "from hashlgn.cli.main import main; main()"
        serve = [sys.executable, "-c", start, "serve", *map(str, models(folder)), "--port", "0", "--quiet"]
        serve += ["--journal", str(folder / "events.db")]
        with subprocess.Popen(serve, stderr=subprocess.PIPE, text=True) as service:
            try:
                line = next(line for line in service.stderr if line.startswith("serving "))
                load = Load(line.split("//")[1].strip(), rest)
                listed = load.ask(http.client.HTTPConnection(load.address), "models", "GET", "/v1/models")
                versions = [model["version"] for model in listed["models"]]
                threads = [threading.Thread(target=load.client, args=(number,)) for number in range(CLIENTS)]
                threads.append(threading.Thread(target=load.swaps, args=(versions,)))
                for thread in threads:
                    thread.start()
                samples = []
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    samples.append(held(service.pid))
                    time.sleep(min(1.0, seconds / 60))
                load.going = False
                for thread in threads:
                    thread.join()
            finally:
                service.send_signal(signal.SIGTERM)
                code = service.wait(60)
    quarter = len(samples) // 4
    memory = [statistics.median(m for m, _ in part) for part in (samples[quarter : 2 * quarter], samples[-quarter:])]
    descriptors = [max(d for _, d in part) for part in (samples[quarter : 2 * quarter], samples[-quarter:])]
    return {
        "seconds": seconds,
        "requests": sum(load.statuses.values()),
        "statuses": {f"{what} {status}": count for (what, status), count in sorted(load.statuses.items())},
        "wrong": load.wrong[:5],
        "megabytes": memory,
        "growth": memory[1] / memory[0] - 1,
        "descriptors": descriptors,
        "exit": code,
    }


if __name__ == "__main__":
    result = soak(*map(float, sys.argv[1:]))
    print(json.dumps(result, indent=1))
    failed = [kind for kind in result["statuses"] if int(kind.split()[1]) >= 400]
    bad = result["growth"] > 0.05 or result["descriptors"][1] > result["descriptors"][0] or result["wrong"] or failed
    sys.exit(1 if bad or result["exit"] else 0)
