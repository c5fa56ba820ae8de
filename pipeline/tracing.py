"""OpenTelemetry traces where the standard variables name a receiver, else nothing and no import.

Prefect makes the spans of flows and tasks by itself, with `prefect.run.id`; `traced` makes those of
requests. A span carries more ids by `annotate`, and a log record those of its span by `ids`.
"""

import logging
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any, Final

_RECEIVERS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
"""An application as ASGI defines it."""


def is_wanted() -> bool:
    """Whether the standard variables (OTEL_...) ask for traces by OTLP."""
    return (
        any(os.environ.get(name) for name in _RECEIVERS)
        and os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true"
        and os.environ.get("OTEL_TRACES_EXPORTER", "otlp") == "otlp"
    )


def start() -> None:
    """Send the traces of this process from now on, if they are wanted and it does not yet."""
    if not is_wanted():
        return
    try:
        from opentelemetry import trace  # noqa: PLC0415 -- only where traces are wanted
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        logger.warning(
            "No traces are sent, because a package is missing (%s). Install holdfast[otel], or "
            "unset %s.",
            error,
            " and ".join(_RECEIVERS),
        )
        return
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    if "service.name" not in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        os.environ.setdefault("OTEL_SERVICE_NAME", "holdfast")
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def traced(app: App) -> App:
    """Give each request of an application a span, which continues the caller's `traceparent`.

    Parameters
    ----------
    app : ASGI application
        It is returned as it is where no traces are wanted.
    """
    start()
    if not is_wanted() or "opentelemetry.sdk.trace" not in sys.modules:
        return app
    from opentelemetry import propagate, trace  # noqa: PLC0415 -- only where traces are wanted

    tracer = trace.get_tracer("holdfast")

    async def answer(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        pairs = (
            (name.decode("latin-1"), text.decode("latin-1")) for name, text in scope["headers"]
        )
        method, path = scope["method"], scope["path"]
        with tracer.start_as_current_span(
            method,
            context=propagate.extract(dict(pairs)),
            kind=trace.SpanKind.SERVER,
            attributes={"http.request.method": method, "url.path": path},
        ) as span:

            async def watched(message: Message) -> None:
                if status := message.get("status"):
                    span.set_attribute("http.response.status_code", status)
                    if status != HTTPStatus.NOT_FOUND:  # names of spans are few
                        span.update_name(f"{method} {path}")
                    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                        span.set_status(trace.StatusCode.ERROR)
                await send(message)

            await app(scope, receive, watched)

    return answer


def annotate(attributes: Mapping[str, str]) -> None:
    """Add attributes to the span of this moment, if there is one."""
    if trace := sys.modules.get("opentelemetry.trace"):
        trace.get_current_span().set_attributes(attributes)


def ids() -> dict[str, str]:
    """`trace_id` and `span_id` of this moment in hexadecimal digits; empty without a span."""
    trace = sys.modules.get("opentelemetry.trace")
    context = trace.get_current_span().get_span_context() if trace else None
    if context is None or not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
