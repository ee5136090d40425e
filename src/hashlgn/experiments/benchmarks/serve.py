"""The service under load from a second process: requests a second, latency at half of that, batches, time to ready.

The model is random codes of 128 + 128 bits; users have random histories. The load comes over loopback from a process of
its own, over connections that are kept open. First every connection asks again as soon as it is answered, which gives
the most requests per second. Then requests leave at half that rate, at moments that are fixed in advance: the latency
counts from the moment at which a request was due, so that a service that stalls is not asked less.

Beside it stand what people start today: FastAPI in front of implicit's ALS, and Cornac's own server. Both are over 64
floats, random as well.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import re
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hashlgn.errors import HashLGNError, choose, need
from hashlgn.experiments.benchmarks.call import random_model
from hashlgn.experiments.common.measure import memory
from hashlgn.inference.artifact import save_artifact
from hashlgn.inference.model import ServedModel
from hashlgn.inference.recommender import Recommender
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.scoring.rows import rows_of
from hashlgn.utils.provenance import provenance

_BATCH = 256
_REQUESTS = 20_000  # different ones, asked in turn

# What other people start. Both get vectors at random, as ours are. Cornac's server closes every connection.
_FASTAPI = """
import sys
import numpy as np
from fastapi import FastAPI
from implicit.cpu.als import AlternatingLeastSquares
from scipy import sparse

users, items, length = map(int, sys.argv[2:5])
rng = np.random.default_rng(0)
model = AlternatingLeastSquares(factors=64, num_threads=1)
model.user_factors = rng.standard_normal((users, 64), np.float32)
model.item_factors = rng.standard_normal((items, 64), np.float32)
seen = sparse.csr_matrix((np.ones(users * length, np.float32), rng.integers(0, items, users * length),
                          np.arange(0, users * length + 1, length)), shape=(users, items))
app = FastAPI()

@app.get("/v1/users/{user}/recommendations")
def recommendations(user: int, k: int = 10):
    found, scores = model.recommend(user, seen[user], N=k)
    return {"user": user, "items": [{"item": i, "score": s} for i, s in zip(found.tolist(), scores.tolist())]}

import uvicorn
uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
"""
_CORNAC = """
import logging, os, sys, tempfile
import numpy as np
from cornac.data import Dataset
from cornac.models import MF

users, items, length = map(int, sys.argv[2:5])
rng = np.random.default_rng(0)
u, i = np.repeat(np.arange(users), length), rng.integers(0, items, users * length)
i[:items] = np.arange(items)[: len(i)]  # as many items as there can be
data = Dataset.from_uir(zip(u.astype(str), i.astype(str), np.ones(len(u))))
vectors = {"U": rng.standard_normal((data.num_users, 64), np.float32),
           "V": rng.standard_normal((data.num_items, 64), np.float32)}
model = MF(k=64, trainable=False, use_bias=False, init_params=vectors).fit(data)
os.environ["MODEL_PATH"] = model.save(tempfile.mkdtemp(), save_trainset=True)
os.environ["MODEL_CLASS"] = "cornac.models.MF"
from cornac.serving.app import app
logging.getLogger("werkzeug").disabled = True
app.run(port=int(sys.argv[1]))
"""
# Servers alone: they answer what /health/live does, and nothing else.
_UVICORN = """
import sys
import uvicorn

body = b'{"status":"live"}'
headers = [(b"content-type", b"application/json"), (b"content-length", b"17")]

async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

uvicorn.run(app, port=int(sys.argv[1]), lifespan="off", log_level="error", access_log=False)
"""
_GRANIAN = """
import sys
import uvloop
from granian.constants import Interfaces
from granian.server.embed import Server

body = b'{"status":"live"}'
headers = [("content-type", "application/json"), ("content-length", "17")]

async def app(scope, protocol):
    protocol.response_bytes(200, headers, body)

uvloop.run(Server(app, port=int(sys.argv[1]), interface=Interfaces.RSGI, log_enabled=False).serve())
"""
_EMPTY = "/health/live"
_BASELINES = {
    "fastapi-implicit": (_FASTAPI, "/v1/users/{}/recommendations?k={}"),
    "cornac": (_CORNAC, "/recommend?uid={}&k={}&remove_seen=true"),
    "uvicorn": (_UVICORN, _EMPTY),
    "granian": (_GRANIAN, _EMPTY),
}


def bench_serve(
    *,
    items: int = 1_000_000,
    users: int = 100_000,
    length: int = 50,
    k: int = 10,
    seconds: float = 5.0,
    connections: int = 64,
    threads: int = 1,
    baselines: Sequence[str] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Start the service and the other servers, one after the other, and measure them; arguments are the options of
    ``hashlgn bench serve``.

    ``uvicorn`` and ``granian`` are asked with an application that does nothing, beside which ours answers
    ``/health/live``.

    Returns:
        ``rows``, one per service: ``ready s``, ``requests/s``, ``CPU us`` of the service's process per request
        meanwhile (what other processes on the machine do changes it less), and how many requests a second of it
        answers, ``client us`` of the process that asks per request, ``p50 ms`` and ``p99 ms`` at half that rate,
        ``MiB`` of the service; ours also ``batch ms`` of a request for 256 users, and ``kernel ms``, the search alone.

    Raises:
        MissingExtraError: a package of the extras ``serve``, ``bench`` or ``references`` is not installed.
        HashLGNError: a service does not become ready.
    """
    need("httptools", "serve", "bench serve")
    baselines = ("fastapi-implicit", "cornac") if baselines is None else baselines
    rows = []
    chosen = np.random.default_rng(seed).integers(0, users, min(_REQUESTS, 4 * users)).tolist()
    ours = "/v1/users/{}/recommendations?k={}"
    with tempfile.TemporaryDirectory() as folder:
        model = random_model(items, users, length, seed=seed)
        file = save_artifact(model, folder)
        command = [sys.executable, "-c", "from hashlgn.cli.main import main; main()", "serve", str(file)]
        command += ["--journal", f"{folder}/events.db"]
        with _started([*command, "--threads", str(threads), "--port"], "/health/ready") as (port, ready, process):
            row = {"service": "hashlgn", "ready s": ready}
            row |= _load(port, process, [_request(ours, user, k) for user in chosen], seconds, connections)
            row |= {"MiB": _mebibytes(process)}
            rows.append(row | _batches(port, model, k, threads, seconds, seed))
            if {"uvicorn", "granian"} & set(baselines):
                empty = _load(port, process, [_request(_EMPTY, 0, k)], seconds, connections)
                rows.append({"service": f"hashlgn {_EMPTY}", "ready s": ready, **empty, "MiB": _mebibytes(process)})
    for name in baselines:
        code, path = choose("baselines", name, _BASELINES)
        for package in name.split("-"):
            need(package, "bench", f"the baseline {name}")
        sizes = [str(users), str(items), str(length)]
        with _started([sys.executable, "-c", code], path.format(chosen[0], k), sizes) as (port, ready, process):
            load = _load(port, process, [_request(path, user, k) for user in chosen], seconds, connections)
            rows.append({"service": name, "ready s": ready, **load, "MiB": _mebibytes(process)})
    setting = {"items": items, "users": users, "length": length, "k": k, "connections": connections}
    rows = [dict.fromkeys(rows[0]) | row for row in rows]  # a dash where something was not measured
    return {"rows": rows, "setting": setting, **provenance(seed=seed, threads=threads)}


def _request(path: str, user: int, k: int) -> bytes:
    """A request as it goes over the wire."""
    return f"GET {path.format(user, k)} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


@contextlib.contextmanager
def _started(
    command: list[str], path: str, rest: Sequence[str] = ()
) -> Iterator[tuple[int, float, subprocess.Popen[bytes]]]:
    """A service on a free port, as soon as it answers a path: port, seconds up to then, process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    began = time.perf_counter()
    own = os.environ | {"OMP_NUM_THREADS": "1"}
    with (
        tempfile.TemporaryFile() as log,  # what it says costs what it costs, and is shown where it does not start
        subprocess.Popen([*command, str(port), *rest], env=own, stderr=log) as process,
    ):
        try:
            while True:
                with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}{path}"):
                    break
                if process.poll() is not None or time.perf_counter() - began > 600:
                    log.seek(0)
                    said = log.read()[-500:].decode(errors="replace")
                    raise HashLGNError(f"the service did not become ready: {said}")
                time.sleep(0.02)
            yield port, round(time.perf_counter() - began, 2), process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def _load(
    port: int, process: subprocess.Popen[bytes], requests: list[bytes], seconds: float, connections: int
) -> dict[str, Any]:
    """Most requests per second, and latency at half of that, from a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        pool.apply(_ask, (port, requests, min(1.0, seconds), connections, None))  # warm up
        before = _processor_time(process)
        rate, took, own = pool.apply(_ask, (port, requests, seconds, connections, None))
        spent = (_processor_time(process) - before) / len(took)
        _, late, _ = pool.apply(_ask, (port, requests, seconds, connections, rate / 2))
    quantiles = np.quantile(late, (0.5, 0.99))
    return {
        "requests/s": round(rate),
        "CPU us": round(1e6 * spent) or None,
        "requests/CPU s": round(1 / spent) if spent else None,
        "client us": round(1e6 * own / len(took)),
        "p50 ms": round(1e3 * float(quantiles[0]), 2),
        "p99 ms": round(1e3 * float(quantiles[1]), 2),
    }


def _ask(
    port: int, requests: list[bytes], seconds: float, connections: int, rate: float | None
) -> tuple[float, list[float], float]:
    """Answers per second, seconds that each took, and seconds of processor time that asking took.

    ``rate`` is of requests per second; where it is None, a connection asks again as soon as it is free.

    Raises:
        HashLGNError: an answer is not 200.
    """
    # Only ``select`` wakes up at a moment, and not a millisecond later.
    poll = selectors.DefaultSelector() if rate is None else selectors.SelectSelector()
    idle = [_Connection(port, poll) for _ in range(connections)]
    took: list[float] = []
    sent, began, spent = 0, time.perf_counter(), time.process_time()
    while (now := time.perf_counter() - began) < seconds or len(took) < sent:
        while idle and now < seconds and (rate is None or sent / rate <= now):
            idle.pop().send(requests[sent % len(requests)], now if rate is None else sent / rate)
            sent += 1
        wait = 0.05 if rate is None or not idle else max(0.0, sent / rate - (time.perf_counter() - began))
        for key, _ in poll.select(wait):
            connection: _Connection = key.data
            if connection.receive():
                took.append(time.perf_counter() - began - connection.due)
                idle.append(connection)
    elapsed, spent = time.perf_counter() - began, time.process_time() - spent
    for connection in idle:
        connection.close()
    return len(took) / elapsed, took, spent


class _Connection:
    """A connection that is kept open, if the service keeps it open, with one request at a time.

    It spends as little as it can: what the client spends, the service on the same core does not have.
    """

    def __init__(self, port: int, poll: selectors.BaseSelector) -> None:
        self._port, self._poll, self._arrived, self.due = port, poll, b"", 0.0
        self._open()

    def send(self, request: bytes, due: float) -> None:
        """Ask what was due at a moment."""
        self.due = due
        self._socket.sendall(request)

    def receive(self) -> bool:
        """Whether the answer is whole now."""
        arrived = self._socket.recv(1 << 20)
        if not arrived:
            raise HashLGNError("the service closed a connection before it had answered")
        self._arrived += arrived
        head, end, body = self._arrived.partition(b"\r\n\r\n")
        head = head.lower()
        size = re.search(rb"\ncontent-length: *(\d+)", head)
        if not end or (size and len(body) < int(size[1])):
            return False
        if not size or head[9:12] != b"200":
            raise HashLGNError(f"an answer was no 200 with a content-length: {self._arrived[:200]!r}")
        self._arrived = b""
        if b"\nconnection: close" in head or head.startswith(b"http/1.0"):
            self.close()
            self._open()
        return True

    def close(self) -> None:
        """End it."""
        self._poll.unregister(self._socket)
        self._socket.close()

    def _open(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self._port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._poll.register(self._socket, selectors.EVENT_READ, self)


def _batches(port: int, model: ServedModel, k: int, threads: int, seconds: float, seed: int) -> dict[str, Any]:
    """Medians of a request for 256 users, and of the kernel's own time for them."""
    users = np.random.default_rng(seed).choice(len(model.user_ids), min(_BATCH, len(model.user_ids)), replace=False)
    body = json.dumps({"requests": [{"user": user, "k": k} for user in users.tolist()]}).encode()
    url = f"http://127.0.0.1:{port}/v1/recommendations"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    searcher = Recommender(model, threads=threads).searcher
    queries = model.queries_of(users)
    exclude = Exclusion(len(model.item_ids), *rows_of(model.seen, users))
    times: dict[str, list[float]] = {"batch": [], "kernel": []}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["batch"]) < 5:
        start = time.perf_counter()
        with urllib.request.urlopen(request) as answer:
            answer.read()
        middle = time.perf_counter()
        searcher.search(queries, k, exclude)
        times["batch"].append(middle - start)
        times["kernel"].append(time.perf_counter() - middle)
    return {f"{name} ms": round(1e3 * statistics.median(spent[1:]), 2) for name, spent in times.items()}


def _processor_time(process: subprocess.Popen[bytes]) -> float:
    """Seconds of processor time that a process has had; 0 beside Linux."""
    status = Path(f"/proc/{process.pid}/stat")
    if not status.exists():
        return 0.0
    fields = status.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _mebibytes(process: subprocess.Popen[bytes]) -> int | None:
    held = memory("VmRSS", process.pid)
    return held and held >> 20
