"""Span data and operations against the package `@sentry/conventions`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypedDict

from .judge_envelopes import Item, of_kind
from .judge_tables import DEPRECATED_ATTRIBUTES, OPERATIONS, UNKNOWN_ATTRIBUTES, Allowed
from .judge_traces import children_of, root_of
from .judge_verdict import Findings, Verdict

DYNAMIC_SUFFIX = "<key>"

# For Python, `True` is an integer.
TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: type(value) is int,
    "double": lambda value: type(value) in (int, float),
    "boolean": lambda value: isinstance(value, bool),
    "string[]": lambda value: isinstance(value, list) and all(isinstance(element, str) for element in value),
}


class Convention(TypedDict):
    type: str
    deprecated: dict[str, Any] | None
    has_dynamic_suffix: bool


class Conventions(TypedDict):
    """As `node/conventions.mjs` prints them."""

    attributes: dict[str, Convention]
    ops: list[str]


def judge_conventions(items: list[Item], conventions: Conventions) -> list[Verdict]:
    data = [entry for item in items for entry in _data(item.payload)]
    known = {key: _convention(key, conventions["attributes"]) for key in {key for key, _ in data}}
    return [
        _judge_keys(data, known),
        _judge_types(data, known),
        _judge_operations(items, conventions["ops"]),
    ]


def _data(payload: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for span in (root_of(payload), *children_of(payload)):
        yield from (span.get("data") or {}).items()


def _convention(key: str, attributes: dict[str, Convention]) -> Convention | None:
    if key in attributes:
        return attributes[key]
    for pattern, convention in attributes.items():
        if convention["has_dynamic_suffix"] and key.startswith(pattern.removesuffix(DYNAMIC_SUFFIX)):
            return convention
    return None


def _judge_keys(data: list[tuple[str, Any]], known: dict[str, Convention | None]) -> Verdict:
    findings = Findings()
    for key, value in data:
        convention = known[key]
        if convention is None:
            _allow(key, UNKNOWN_ATTRIBUTES, f"{key} is in no convention", value, findings)
        elif convention["deprecated"]:
            _allow(key, DEPRECATED_ATTRIBUTES, f"{key} is deprecated", convention["deprecated"], findings)
    return findings.verdict("keys of {} span attributes are in the conventions", len(data))


def _judge_types(data: list[tuple[str, Any]], known: dict[str, Convention | None]) -> Verdict:
    findings = Findings()
    own = {attribute.name: attribute.type for attribute in UNKNOWN_ATTRIBUTES}
    for key, value in data:
        convention = known[key]
        expected = convention["type"] if convention else own.get(key)
        if expected is not None and not TYPES[expected](value):
            findings.add(f"{key} is not of type {expected}", value)
    return findings.verdict("types of {} span attributes are those of the conventions", len(data))


def _judge_operations(items: list[Item], known: list[str]) -> Verdict:
    findings = Findings()
    transactions = [item.payload for item in of_kind(items, "transaction")]
    spans = [span for payload in transactions for span in (root_of(payload), *children_of(payload))]
    for span in spans:
        op = span.get("op")
        if op not in known:
            _allow(op, OPERATIONS, f"operation {op} is in no convention", span.get("description"), findings)
    return findings.verdict("operations of {} spans are in the conventions", len(spans))


def _allow(name: Any, allowed: Sequence[Allowed], problem: str, example: Any, findings: Findings) -> None:
    if any(entry.name == name for entry in allowed):
        findings.excuse(name)
    else:
        findings.add(problem, example)
