"""Spans of OpenTelemetry, by the exporter of its own SDK that keeps them in memory."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from serve_help import saved

from hashlgn.errors import MissingExtraError
from hashlgn.serve.app import Service
from hashlgn.serve.http import Answer, Request
from hashlgn.serve.server import build

sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="opentelemetry is not installed: pip install '.[dev]'")


def test_every_request_is_a_span_without_personal_data(tmp_path: Path) -> None:
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from hashlgn.serve.telemetry import Spans

    exporter, provider = InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    base = build([saved(tmp_path, "one", 1)], journal=tmp_path / "events.db", log=False)
    service = Service(base.registry, base.journal, spans=Spans(provider))
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    headers = [(b"traceparent", f"00-{trace}-{parent}-01".encode()), (b"authorization", b"Bearer hlg_secret")]

    async def asked() -> list[int]:
        requests = [
            Request("GET", b"/v1/users/4711/recommendations", b"k=3", headers),
            Request("POST", b"/v1/events", b"", [], b'{"user": 4711, "item": 5}'),
            Request("GET", b"/nothing/4711", b"", []),
            Request("GET", b"/v1/map", b"", []),
        ]
        service.registry.active.facts["map"] = asyncio.get_running_loop().create_future()
        service.registry.active.facts["map"].set_exception(RuntimeError("a mistake of ours"))
        found = []
        for request in requests:
            answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            request.send = lambda _, sent, answer=answer: answer.set_result(sent)
            service.respond(request)
            found.append((await answer).status)
        return found

    assert asyncio.run(asked()) == [200, 200, 404, 500]
    spans = exporter.get_finished_spans()
    names = ["GET /v1/users/*/recommendations", "POST /v1/events", "GET", "GET /v1/map"]
    assert [span.name for span in spans] == names
    assert [span.attributes["http.response.status_code"] for span in spans] == [200, 200, 404, 500]
    assert [span.status.is_ok for span in spans] == [True, True, True, False]
    assert f"{spans[0].context.trace_id:032x}" == trace and f"{spans[0].parent.span_id:016x}" == parent
    assert spans[1].parent is None and all(span.end_time >= span.start_time for span in spans)
    assert "4711" not in "".join(span.to_json() for span in spans)
    assert "secret" not in "".join(span.to_json() for span in spans)
    service.close()
    base.batcher.close()


def test_without_the_packages_it_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("opentelemetry.trace", "opentelemetry"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"hashlgn\[telemetry\]"):
        build([saved(tmp_path, "one", 1)], telemetry=True)
