"""What Relay does not look at: how the spans of a transaction belong together."""

from __future__ import annotations

from typing import Any

from .judge_envelopes import Item, of_kind
from .judge_paths import at, seconds
from .judge_verdict import Findings, Verdict


def judge_traces(items: list[Item]) -> Verdict:
    findings = Findings()
    transactions = of_kind(items, "transaction")
    seen: set[Any] = set()
    for item in transactions:
        root, children = root_of(item.payload), children_of(item.payload)
        for span in (root, *children):
            _judge_times(span, findings)
            if span.get("span_id") in seen:
                findings.add("a span_id is that of another span too", span["span_id"])
            seen.add(span.get("span_id"))
        _judge_tree(root, children, findings)
    return findings.verdict("spans of {} transactions are one tree each", len(transactions))


def root_of(payload: dict[str, Any]) -> dict[str, Any]:
    """What an event says of its own span, with the times of the event."""
    context = at(payload, "contexts", "trace")
    times = {key: payload[key] for key in ("start_timestamp", "timestamp") if key in payload}
    return (context if isinstance(context, dict) else {}) | times


def children_of(payload: dict[str, Any]) -> list[dict[str, Any]]:
    return [span for span in payload.get("spans") or [] if isinstance(span, dict)]


def _judge_times(span: dict[str, Any], findings: Findings) -> None:
    times = [span.get("start_timestamp"), span.get("timestamp")]
    start, end = map(seconds, times)
    if start is None or end is None:
        findings.add("a span has no times", times)
    elif end < start:
        findings.add("a span ends before it starts", times)


def _judge_tree(root: dict[str, Any], children: list[dict[str, Any]], findings: Findings) -> None:
    ids = {span.get("span_id") for span in (root, *children)}
    for child in children:
        if child.get("trace_id") != root.get("trace_id"):
            findings.add("a span is of another trace than its transaction", child.get("trace_id"))
        if child.get("parent_span_id") not in ids:
            findings.add("the parent of a span is not in its transaction", child.get("parent_span_id"))
