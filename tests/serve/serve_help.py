"""A service over small random models, in this process or in its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np

from hashlgn.experiments.benchmarks.call import random_model
from hashlgn.inference.artifact import save_artifact
from hashlgn.scoring.calibration import Calibration

_START = "from hashlgn.cli.main import main; main()"
N_ITEMS, N_USERS = 300, 60
GENRES = ("Comedy", "Drama", "War", "Western")


def small_model(seed: int, *, strings: bool = False) -> Any:
    """A random model with titles, genres and a calibration."""
    model = random_model(N_ITEMS, N_USERS, 6, strings=strings, seed=seed)
    titles = [f"{GENRES[n % 4]} of the year {1900 + n}" for n in range(N_ITEMS)]
    steps = Calibration(1.0, 0.2, 0.1, np.array([-0.5, 0.2, 1.5]), np.array([0.01, 0.2, 0.6]))
    return replace(model, titles=titles, genres=[(GENRES[n % 4],) for n in range(N_ITEMS)], calibration=steps)


def saved(folder: Path, name: str, seed: int, *, strings: bool = False) -> Path:
    """A file of such a model."""
    return save_artifact(small_model(seed, strings=strings), folder / f"{name}.safetensors")


@dataclass
class Running:
    """A service in a process of its own."""

    port: int
    process: subprocess.Popen[bytes]
    lines: list[str]

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, path, raw, headers)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        self.headers = dict(response.getheaders())
        return response.status, json.loads(text) if text and "json" in self.headers["content-type"] else text.decode()

    def get(self, path: str, **headers: str) -> Any:
        """The JSON of an answer that must be one."""
        status, found = self.ask("GET", path, **headers)
        assert status == 200, found
        return found

    def post(self, path: str, body: Any, **headers: str) -> Any:
        """The same, of a body that is sent."""
        status, found = self.ask("POST", path, body, **headers)
        assert status == 200, found
        return found


@contextmanager
def running(*arguments: Any) -> Iterator[Running]:
    """``hashlgn serve`` with these arguments, at a free port, ended by SIGTERM."""
    command = [sys.executable, "-c", _START, "serve", *map(str, arguments), "--port", "0", "--threads", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.stderr is not None
    lines: list[str] = []
    for raw in process.stderr:
        lines.append(raw.decode())
        if lines[-1].startswith("serving "):
            break
    else:
        raise AssertionError(f"it did not start: {lines}")
    reader = threading.Thread(target=lambda: lines.extend(raw.decode() for raw in process.stderr), daemon=True)  # type: ignore[union-attr]
    reader.start()
    try:
        yield Running(int(lines[-1].rsplit(":", 1)[1]), process, lines)
    finally:
        process.terminate()
        assert process.wait(30) == 0, lines[-5:]
        reader.join(5)


def two_models(folder: Path) -> dict[str, Path]:
    """Files of two models of one catalogue."""
    return {name: saved(folder, name, seed) for seed, name in enumerate(("first", "second"))}
