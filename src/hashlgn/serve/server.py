"""Start a service: open journal, keys and models, bind the port, serve until SIGTERM, finish what was begun."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hashlgn.errors import ArgumentError, need
from hashlgn.serve.limits import Limits

__all__ = ["build", "serve"]

_ARENA_MAX = -8  # the option M_ARENA_MAX of glibc's mallopt


def build(
    models: Sequence[Path],
    *,
    journal: Path | None = None,
    keys: Path | None = None,
    watch: Path | None = None,
    split: Mapping[str, float] | None = None,
    threads: int | None = None,
    limits: Limits | None = None,
    log: bool = True,
    telemetry: bool = False,
) -> Any:
    """The application, which is to be closed at the end; arguments are the options of ``hashlgn serve``.

    Raises:
        HashLGNError: a file is missing or broken, or an option breaks its rule.
    """
    need("msgspec", "serve", "hashlgn serve")
    from hashlgn.serve.app import Service
    from hashlgn.serve.attributes import Attributes
    from hashlgn.serve.journal import Journal
    from hashlgn.serve.keys import KeyFile
    from hashlgn.serve.metrics import Metrics
    from hashlgn.serve.registry import Registry
    from hashlgn.serve.telemetry import Spans

    spans = Spans() if telemetry else None
    journal = None if journal is None else journal.expanduser().absolute()
    new = journal is not None and not journal.exists()
    held = None if journal is None else Journal.open(journal)
    try:
        attributes = Attributes(None if journal is None else journal.with_name(f"{journal.name}.items"))
        registry = Registry(models, held, attributes, watch=watch, split=split, threads=threads)
        known = None if keys is None else KeyFile(keys)
    except BaseException:
        if held is not None:
            held.close()
        raise
    if journal is not None:
        print(f"events are kept in {journal}{' (new)' if new else ''}", file=sys.stderr)
    for refused in registry.refused:
        print(f"refused: {refused}", file=sys.stderr)
    metrics = Metrics(sys.stderr, requests=log)
    return Service(registry, held, known, limits, metrics, spans)


def serve(
    models: Sequence[Path], *, host: str = "127.0.0.1", port: int = 8765, watch: Path | None = None, **how: Any
) -> None:
    """Serve models until SIGTERM or Ctrl-C, at any free port where that is 0; ``how`` is what else ``build`` takes.

    Raises:
        HashLGNError: a file is missing or broken, or an option breaks its rule.
    """
    need("httptools", "serve", "hashlgn serve")
    _check_free(host, port)
    _few_arenas()
    app = build(models, watch=watch, **how)
    sys.setswitchinterval(0.0002)  # the thread that searches shall not wait for all answers that the loop has to send
    gc.collect()
    gc.freeze()  # what was loaded stays: collections look at what requests make
    try:
        _loop()(_run(app, host, port, watch is not None))
    finally:
        app.close()


def _loop() -> Callable[[Coroutine[Any, Any, None]], None]:
    """What runs a coroutine: the fastest loop that there is."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run
    run: Callable[[Coroutine[Any, Any, None]], None] = uvloop.run
    return run


async def _run(app: Any, host: str, port: int, watch: bool) -> None:
    """Answer until SIGTERM or Ctrl-C; then let requests that have begun end."""
    from hashlgn.serve.connections import Connections

    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, stop.set)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    loop.set_default_executor(ThreadPoolExecutor(4, "hashlgn-helper"))
    connections = Connections(app)
    server = await loop.create_server(connections.connect, host, port, backlog=1024)
    address = server.sockets[0].getsockname()
    shown = f"[{address[0]}]" if ":" in address[0] else address[0]
    print(f"serving {app.registry.active.version} at http://{shown}:{address[1]}", file=sys.stderr, flush=True)
    watching = asyncio.create_task(app.watch()) if watch else None
    await stop.wait()
    app.ready = False
    server.close()
    if watching is not None:
        watching.cancel()
    await connections.close()


def _few_arenas() -> None:
    """Let threads share their heaps: glibc gives each one its own, which never shrinks where others free its blocks."""
    with contextlib.suppress(OSError, AttributeError):  # other C libraries have no such option
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 2)


def _check_free(host: str, port: int) -> None:
    """Refuse an address that cannot be listened at, before anything is loaded."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, number) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ArgumentError(f"host and port must be free to listen at (got {host}:{port}: {error})") from error
