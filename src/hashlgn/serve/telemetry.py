"""Spans of OpenTelemetry, one per request: route, status and request id, and nothing about anybody."""

from __future__ import annotations

from typing import Any

from hashlgn.errors import need
from hashlgn.serve.http import Answer, Request

__all__ = ["Spans"]


class Spans:
    """Notes requests as spans.

    Args:
        provider: of tracers. Default: one that sends spans by OTLP over HTTP, as the variables ``OTEL_…`` of the
            environment say (``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_SERVICE_NAME``, ``OTEL_TRACES_SAMPLER``).

    Raises:
        MissingExtraError: a package of the extra ``telemetry`` is not installed.
    """

    def __init__(self, provider: Any = None) -> None:
        purpose = "hashlgn serve --telemetry"
        self._trace = need("opentelemetry.trace", "telemetry", purpose)
        propagation = need("opentelemetry.trace.propagation.tracecontext", "telemetry", purpose)
        self._parents = propagation.TraceContextTextMapPropagator()
        self._provider = _exporting(purpose) if provider is None else provider
        self._tracer = self._provider.get_tracer("hashlgn.serve")

    def note(self, request: Request, route: str, answer: Answer, start: int, end: int) -> None:
        """Note a request that was answered; ``start`` and ``end`` are nanoseconds since 1970.

        A header ``traceparent`` makes the span a part of the client's trace. The route is named as in the log.
        """
        parent = request.header(b"traceparent")
        carrier = {} if parent is None else {"traceparent": parent.decode("latin-1")}
        span = self._tracer.start_span(
            route if route != "none" else request.method,
            context=self._parents.extract(carrier),
            kind=self._trace.SpanKind.SERVER,
            start_time=start,
            attributes={
                "http.request.method": request.method,
                "http.route": route.partition(" ")[2],
                "http.response.status_code": answer.status,
                "http.response.body.size": len(answer.body),
                "hashlgn.request_id": request.request_id,
            },
        )
        if answer.status >= 500:
            span.set_status(self._trace.StatusCode.ERROR)
        span.end(end)

    def close(self) -> None:
        """Send what has not been sent."""
        self._provider.shutdown()


def _exporting(purpose: str) -> Any:
    sdk = need("opentelemetry.sdk.trace", "telemetry", purpose)
    resources = need("opentelemetry.sdk.resources", "telemetry", purpose)
    export = need("opentelemetry.sdk.trace.export", "telemetry", purpose)
    otlp = need("opentelemetry.exporter.otlp.proto.http.trace_exporter", "telemetry", purpose)
    named = resources.OTELResourceDetector().detect().attributes.get("service.name")
    resource = resources.Resource.create({} if named else {"service.name": "hashlgn"})
    provider = sdk.TracerProvider(resource=resource)
    provider.add_span_processor(export.BatchSpanProcessor(otlp.OTLPSpanExporter()))
    return provider
