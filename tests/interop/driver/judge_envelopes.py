"""Whether envelopes can be read, and say in their headers what they carry."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sentry_sdk.envelope import Envelope

from .judge_paths import at
from .judge_tables import NAMED_KEY, NO_SENT_AT
from .judge_verdict import Findings, Verdict

JUDGED_KINDS = ("transaction", "event")
OTHER_KINDS = ("client_report",)


@dataclass(frozen=True)
class Item:
    """A transaction or an error, and the header of its envelope."""

    kind: str
    header: dict[str, Any]
    payload: dict[str, Any]


def of_kind(items: list[Item], kind: str) -> list[Item]:
    return [item for item in items if item.kind == kind]


def parse(envelopes: list[bytes]) -> tuple[list[Item], Verdict]:
    findings = Findings()
    items = [item for body in envelopes for item in _items(body, findings)]
    return items, findings.verdict("sentry_sdk parses {} envelopes", len(envelopes))


def _items(body: bytes, findings: Findings) -> Iterator[Item]:
    try:
        envelope = Envelope.deserialize(body)
        for problem in _framing_problems(body):
            findings.add(problem)
    # What a parser raises on nonsense is its own affair.
    except Exception as error:
        findings.add(f"not an envelope, {type(error).__name__}: {error}", body.decode(errors="replace"))
        return
    for item in envelope.items:
        yield from checked_item(item.headers.get("type"), envelope.headers, item.payload.json, findings)


def checked_item(kind: Any, header: Any, payload: Any, findings: Findings) -> Iterator[Item]:
    if kind in OTHER_KINDS:
        return
    if kind not in JUDGED_KINDS:
        findings.add("an item of a kind that is not expected", kind)
    elif not isinstance(header, dict) or not isinstance(payload, dict):
        findings.add(f"{kind}: header or payload is not an object", [header, payload])
    else:
        yield Item(kind, header, payload)


def _framing_problems(body: bytes) -> Iterator[str]:
    """sentry_sdk takes an item that is shorter than its `length`."""
    reader = io.BytesIO(body)
    reader.readline()
    while line := reader.readline():
        header = json.loads(line)
        length = header.get("length")
        if not isinstance(length, int):
            yield f"{header.get('type')}: no `length`"
            return
        if len(reader.read(length)) < length or reader.read(1) not in (b"\n", b""):
            yield f"{header.get('type')}: `length` is not that of the payload"
            return


def judge_headers(items: list[Item]) -> Verdict:
    findings = Findings()
    for item in items:
        _judge_event_id(item, findings)
        _judge_sent_at(item, findings)
        _judge_trace(item, findings)
    return findings.verdict("headers of {} envelopes are those of their payloads", len(items))


def _judge_event_id(item: Item, findings: Findings) -> None:
    ids = [item.header.get("event_id"), item.payload.get("event_id")]
    try:
        first, second = (UUID(id) for id in ids)
    except (AttributeError, TypeError, ValueError):
        findings.add(f"{item.kind}: event_id of header and payload are not both UUIDs", ids)
        return
    if first != second:
        findings.add(f"{item.kind}: event_id of header and payload differ", ids)


def _judge_sent_at(item: Item, findings: Findings) -> None:
    if "sent_at" not in item.header:
        findings.excuse(NO_SENT_AT.name)
    elif not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", str(item.header["sent_at"])):
        findings.add(f"{item.kind}: sent_at is not a time in UTC", item.header["sent_at"])


def _judge_trace(item: Item, findings: Findings) -> None:
    trace = item.header.get("trace")
    if not isinstance(trace, dict):
        findings.add(f"{item.kind}: the header has no trace", trace)
        return
    for key in sorted(_members(item) - trace.keys()):
        findings.add(f"{item.kind}: trace.{key} is missing")
    for key, value in trace.items():
        if not isinstance(value, str) or not TRACE_MEMBERS.get(key, bool)(value):
            findings.add(f"{item.kind}: trace.{key} is not valid", value)
    if not re.fullmatch(HEX_32, str(trace.get("public_key"))):
        findings.excuse(NAMED_KEY.name)
    ids = [trace.get("trace_id"), at(item.payload, "contexts", "trace", "trace_id")]
    if ids[0] != ids[1]:
        findings.add(f"{item.kind}: trace_id of header and payload differ", ids)


def _members(item: Item) -> set[str]:
    """What others began is as they told it, if only Relay can use it."""
    is_head = item.kind == "transaction" and not at(item.payload, "contexts", "trace", "parent_span_id")
    others = {"environment", "sample_rand", "sample_rate", "sampled"}
    return {"trace_id", "public_key"} | (others if is_head else set())


def _matches(pattern: str) -> Callable[[str], bool]:
    return lambda value: re.fullmatch(pattern, value) is not None


HEX_32 = "[0-9a-f]{32}"

# Relay takes nothing but strings, for numbers too.
TRACE_MEMBERS = {
    "trace_id": _matches(HEX_32),
    "public_key": _matches(r"[\w.-]+"),
    "sample_rate": _matches(r"0(\.\d+)?|1(\.0+)?"),
    "sample_rand": _matches(r"0(\.\d+)?"),
    "sampled": _matches("true|false"),
}
