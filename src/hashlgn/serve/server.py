"""Start a service: open journal, keys and models, bind the port, serve until SIGTERM, finish what was begun."""

from __future__ import annotations

import gc
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hashlgn.errors import ArgumentError, need
from hashlgn.serve.shapes import Limits

__all__ = ["build", "serve"]


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
) -> Any:
    """The application, see ``serve``; ``close`` it at the end.

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

    held = None if journal is None else Journal.open(journal)
    try:
        attributes = Attributes(None if journal is None else journal.with_name(f"{journal.name}.items"))
        registry = Registry(models, held, attributes, watch=watch, split=split, threads=threads)
        known = None if keys is None else KeyFile(keys)
    except BaseException:
        if held is not None:
            held.close()
        raise
    for refused in registry.refused:
        print(f"refused: {refused}", file=sys.stderr)
    metrics = Metrics(sys.stderr if log else None)
    return Service(registry, held, known, limits, metrics, None if watch is None else 1.0)


def serve(
    models: Sequence[Path],
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    journal: Path | None = None,
    keys: Path | None = None,
    watch: Path | None = None,
    split: Mapping[str, float] | None = None,
    threads: int | None = None,
    limits: Limits | None = None,
    log: bool = True,
) -> None:
    """Serve models until SIGTERM or Ctrl-C.

    Args:
        models: paths of models; the first one answers, the others can be activated.
        host: address to listen at.
        port: to listen at; any free one where 0.
        journal: file of the events; without it histories are those of the training.
        keys: file of the keys; without it everybody may do everything.
        watch: folder whose newest model is activated by itself.
        split: shares of the traffic by names of models.
        threads: processor threads of a search.
        limits: what a client may ask for.
        log: whether lines of JSON go to standard error.

    Raises:
        HashLGNError: a file is missing or broken, or an option breaks its rule.
    """
    uvicorn = need("uvicorn", "serve", "hashlgn serve")
    _check_free(host, port)
    app = build(models, journal=journal, keys=keys, watch=watch, split=split, threads=threads, limits=limits, log=log)

    class Server(uvicorn.Server):  # type: ignore[misc, name-defined]
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started and not self.should_exit:
                bound = self.servers[0].sockets[0].getsockname()
                shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
                version = app.registry.active.version
                print(f"serving {version} at http://{shown}:{bound[1]}", file=sys.stderr, flush=True)

    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="error",
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=15,
    )
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again once it has finished: that is no error
        signal.signal(number, lambda *_: None)
    gc.collect()
    gc.freeze()  # what was loaded stays: collections look at what requests make
    try:
        Server(config).run()
    finally:
        app.close()


def _check_free(host: str, port: int) -> None:
    """Refuse an address that cannot be listened at, before anything is loaded."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, number) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ArgumentError(f"host and port must be free to listen at (got {host}:{port}: {error})") from error
