"""What was received, as spans and errors that can be joined to traces."""

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote

from .ingest import Received

Json = dict[str, Any]


@dataclass(frozen=True)
class Span:
    """A span, the one of a transaction included."""

    service: str
    trace_id: str
    id: str
    parent: str | None
    op: str | None
    description: str | None
    status: str | None
    data: Json
    # In seconds.
    start: float
    end: float
    origin: str | None


@dataclass(frozen=True)
class Transaction:
    service: str
    root: Span
    children: list[Span]
    # What the header of its envelope says of its trace.
    context: Json
    release: str | None
    environment: str | None

    @property
    def spans(self) -> list[Span]:
        return [self.root, *self.children]

    def child(self, **expected: Any) -> Span | None:
        """The only child with these attributes."""
        found = [
            span
            for span in self.children
            if all(getattr(span, key) == value for key, value in expected.items())
        ]
        return found[0] if len(found) == 1 else None


@dataclass(frozen=True)
class Error:
    service: str
    trace_id: str
    span_id: str
    exceptions: list[str]
    transaction: str | None
    tags: Json
    rpc: Json
    # What the header of its envelope says of its trace.
    context: Json


def transactions(received: Iterable[Received], trace_id: str | None = None) -> list[Transaction]:
    """Of one trace, or all."""
    found = []
    for envelope in received:
        context = envelope.envelope.headers.get("trace") or {}
        for payload in _payloads(envelope, "transaction"):
            root = _root(envelope.service, payload)
            if trace_id in (None, root.trace_id):
                children = [_child(envelope.service, span) for span in payload.get("spans") or []]
                setup = payload.get("release"), payload.get("environment")
                found.append(Transaction(envelope.service, root, children, context, *setup))
    return found


def errors(received: Iterable[Received], trace_id: str | None = None) -> list[Error]:
    """Of one trace, or all."""
    found = []
    for envelope in received:
        context = envelope.envelope.headers.get("trace") or {}
        for payload in _payloads(envelope, "event"):
            trace = payload.get("contexts", {}).get("trace", {})
            if trace_id in (None, trace.get("trace_id")):
                found.append(_error(envelope.service, payload, trace, context))
    return found


def _payloads(received: Received, kind: str) -> Iterable[Json]:
    return (item.payload.json for item in received.envelope.items if item.type == kind)


def _root(service: str, payload: Json) -> Span:
    trace = payload["contexts"]["trace"]
    return Span(
        service=service,
        trace_id=trace["trace_id"],
        id=trace["span_id"],
        # A head has none, which SDKs write in three ways.
        parent=trace.get("parent_span_id") or None,
        op=trace.get("op"),
        description=payload.get("transaction"),
        status=trace.get("status"),
        data=trace.get("data") or {},
        start=_seconds(payload["start_timestamp"]),
        end=_seconds(payload["timestamp"]),
        origin=trace.get("origin"),
    )


def _child(service: str, span: Json) -> Span:
    return Span(
        service=service,
        trace_id=span["trace_id"],
        id=span["span_id"],
        parent=span.get("parent_span_id"),
        op=span.get("op"),
        description=span.get("description"),
        status=span.get("status"),
        data=span.get("data") or {},
        start=_seconds(span["start_timestamp"]),
        end=_seconds(span["timestamp"]),
        origin=(span.get("data") or {}).get("sentry.origin"),
    )


def _seconds(timestamp: float | str) -> float:
    if isinstance(timestamp, str):
        # Python knows microseconds at most.
        text = re.sub(r"(\.\d{6})\d+", r"\1", timestamp)
        return datetime.fromisoformat(text).timestamp()
    return timestamp


def _error(service: str, payload: Json, trace: Json, context: Json) -> Error:
    exception = payload.get("exception") or {}
    values = exception.get("values", []) if isinstance(exception, dict) else exception
    return Error(
        service=service,
        trace_id=trace["trace_id"],
        span_id=trace["span_id"],
        exceptions=[value.get("value") for value in values],
        transaction=payload.get("transaction"),
        tags=payload.get("tags") or {},
        rpc=payload.get("contexts", {}).get("rpc", {}),
        context=context,
    )


def sentry_members(baggage: Iterable[str]) -> dict[str, str]:
    """The sampling context in the values of a `baggage` header."""
    members = {}
    for member in ",".join(baggage).split(","):
        key, _, value = member.strip().partition("=")
        if key.startswith("sentry-"):
            members[key.removeprefix("sentry-")] = unquote(value.split(";")[0])
    return members


def other_members(baggage: Iterable[str]) -> list[str]:
    members = [member.strip() for member in ",".join(baggage).split(",")]
    return [member for member in members if member and not member.startswith("sentry-")]


def rounded(context: Json) -> Json:
    """With numbers as sentry-types writes them: a rate of 32 bits, six digits of `sample_rand`."""
    return {key: _rounded(key, value) for key, value in context.items()}


def _rounded(key: str, value: Any) -> Any:
    match key:
        case "sample_rate":
            return struct.unpack("f", struct.pack("f", float(value)))[0]
        case "sample_rand":
            return f"{min(float(value), 0.999999):.6f}"
        case _:
            return str(value)
