"""Each fault is noticed, and told in the words below. Run it with `python -m unittest driver.test_judges`."""

from __future__ import annotations

import json
import re
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .judge_conventions import Conventions
from .judge_tables import TABLES
from .judges import Verdict, judge, judge_exceptions, judge_quickstart

NOW = float(int(time.time()))
TRACE_ID = "4c79f60c11214eb38604f4ae0781bfb2"
EVENT_ID = "9a626ba71cda457197a1d4240d6cf244"

CONVENTIONS: Conventions = {
    "attributes": {
        "rpc.method": {"type": "string", "deprecated": None, "has_dynamic_suffix": False},
        "rpc.system": {
            "type": "string",
            "deprecated": {"replacement": "rpc.system.name"},
            "has_dynamic_suffix": False,
        },
        "net.peer.ip": {
            "type": "string",
            "deprecated": {"replacement": "network.peer.address"},
            "has_dynamic_suffix": False,
        },
        "grpc.error.error_info.metadata.<key>": {
            "type": "string",
            "deprecated": None,
            "has_dynamic_suffix": True,
        },
    },
    "ops": ["function"],
}

Fault = Callable[[dict[str, Any]], Any]


def transaction() -> dict[str, Any]:
    """The header of an envelope, and its payload."""
    return {
        "header": {
            "event_id": EVENT_ID,
            "trace": {
                "trace_id": TRACE_ID,
                "public_key": "0123456789abcdef0123456789abcdef",
                "sample_rate": "1",
                "sample_rand": "0.123456",
                "sampled": "true",
                "environment": "interop",
            },
        },
        "payload": {
            "event_id": EVENT_ID,
            "transaction": "/helloworld.Greeter/SayHello",
            "environment": "interop",
            "server_name": "back",
            "start_timestamp": NOW,
            "timestamp": NOW + 1,
            "contexts": {
                "trace": {
                    "type": "trace",
                    "trace_id": TRACE_ID,
                    "span_id": "a2f28ae7b8fd20bb",
                    "op": "grpc.server",
                    "status": "ok",
                    "data": {
                        "rpc.system": "grpc",
                        "rpc.method": "SayHello",
                        "rpc.request.message_count": 1,
                        "grpc.error.error_info.metadata.zone": "eu",
                    },
                }
            },
            "spans": [
                {
                    "trace_id": TRACE_ID,
                    "span_id": "f7dad8e3c6d78f5b",
                    "parent_span_id": "a2f28ae7b8fd20bb",
                    "op": "function",
                    "start_timestamp": NOW,
                    "timestamp": NOW + 1,
                }
            ],
        },
    }


def error() -> dict[str, Any]:
    event = transaction()
    payload = event["payload"]
    for key in ("spans", "start_timestamp"):
        del payload[key]
    payload |= {"message": "lookup failed", "tags": {"rpc.method": "SayHello"}}
    return event


def envelope(kind: str, event: dict[str, Any]) -> bytes:
    payload = json.dumps(event["payload"])
    lines = (json.dumps(event["header"]), json.dumps({"type": kind, "length": len(payload)}), payload, "")
    return "\n".join(lines).encode()


def problems(verdicts: list[Verdict]) -> list[str]:
    return [problem for verdict in verdicts for problem in verdict.problems]


def problems_of(fault: Fault) -> list[str]:
    event = transaction()
    fault(event)
    return problems(judge([envelope("transaction", event), envelope("event", error())], CONVENTIONS))


def root(event: dict[str, Any]) -> Any:
    return event["payload"]["contexts"]["trace"]


def child(event: dict[str, Any]) -> Any:
    return event["payload"]["spans"][0]


class JudgesTest(unittest.TestCase):
    maxDiff = None

    def test_passes_what_is_right(self) -> None:
        verdicts = judge([envelope("transaction", transaction()), envelope("event", error())], CONVENTIONS)
        self.assertEqual(
            verdicts,
            [
                Verdict("sentry_sdk parses 2 envelopes", []),
                Verdict("headers of 2 envelopes are those of their payloads", [], frozenset({"sent_at"})),
                Verdict("Relay accepts 1 transactions", [], frozenset({"server_name"})),
                Verdict("Relay accepts 1 events", [], frozenset({"message", "server_name", "tags"})),
                Verdict("spans of 1 transactions are one tree each", []),
                Verdict(
                    "keys of 8 span attributes are in the conventions",
                    [],
                    frozenset({"rpc.request.message_count", "rpc.system"}),
                ),
                Verdict("types of 8 span attributes are those of the conventions", []),
                Verdict("operations of 2 spans are in the conventions", [], frozenset({"grpc.server"})),
            ],
        )

    def test_nothing_to_judge_is_a_problem(self) -> None:
        nothing = ["there was nothing to judge"]
        for verdict in judge([], CONVENTIONS) + judge_quickstart("", CONVENTIONS):
            self.assertEqual(verdict.problems, nothing, verdict.name)

    def test_each_fault_is_a_problem(self) -> None:
        smaller = "rejected, invalid transaction event: end timestamp is smaller than start timestamp"
        faults: list[tuple[Fault, list[str]]] = [
            (
                lambda event: event["payload"].update(start_timestamp=NOW + 2),
                [f'{smaller}: "{EVENT_ID}"', f"a span ends before it starts: [{NOW + 2}, {NOW + 1}]"],
            ),
            (
                lambda event: child(event).update(start_timestamp=NOW + 2),
                [f'{smaller}: "{EVENT_ID}"', f"a span ends before it starts: [{NOW + 2}, {NOW + 1}]"],
            ),
            (
                lambda event: child(event).pop("span_id"),
                [f'rejected, invalid transaction event: span is missing span_id: "{EVENT_ID}"'],
            ),
            (
                lambda event: child(event).update(span_id="a2f28ae7b8fd20bb"),
                ['a span_id is that of another span too: "a2f28ae7b8fd20bb"'],
            ),
            (
                lambda event: child(event).update(parent_span_id="1111111111111111"),
                ['the parent of a span is not in its transaction: "1111111111111111"'],
            ),
            (
                lambda event: child(event).update(trace_id="1" * 32),
                [f'a span is of another trace than its transaction: "{"1" * 32}"'],
            ),
            (
                lambda event: event["payload"].update(environment="a/b"),
                [
                    "environment: invalid_data: "
                    '{"type": "invalid_data", "name": "environment", "value": "a/b"}',
                    'environment: changed: {"err": ["invalid_data"], "val": "a/b"}',
                    'environment: not stored as it was sent: {"sent": "a/b", "stored": null}',
                ],
            ),
            (
                lambda event: event["payload"].update(transaction="x" * 201),
                [
                    'transaction: changed: {"rem": [["!limit", "s", 197, 200]], "len": 201}',
                    'transaction: not stored as it was sent: {"sent": "' + "x" * 190 + "...",
                ],
            ),
            (
                lambda event: event["payload"]["contexts"].update(rpc={"type": "unknown", "password": "x"}),
                ['contexts.rpc.password: scrubbed: {"rem": [["@password:filter", "s", 0, 10]], "len": 1}'],
            ),
            (
                lambda event: root(event)["data"].update({"net.peer.ip": "::1", "no.such": [1]}),
                [
                    'net.peer.ip is deprecated: {"replacement": "network.peer.address"}',
                    "no.such is in no convention: [1]",
                ],
            ),
            (
                lambda event: root(event)["data"].update({"rpc.method": 1, "rpc.request.message_count": ""}),
                [
                    "rpc.method is not of type string: 1",
                    'rpc.request.message_count is not of type integer: ""',
                ],
            ),
            (lambda event: root(event).update(op="grpc"), ["operation grpc is in no convention"]),
            (lambda event: event["header"].pop("trace"), ["transaction: the header has no trace"]),
            (
                lambda event: event["header"]["trace"].update(trace_id="1" * 32, sample_rate=1.0),
                [
                    "transaction: trace.sample_rate is not valid: 1.0",
                    f'transaction: trace_id of header and payload differ: ["{"1" * 32}", "{TRACE_ID}"]',
                ],
            ),
            (
                lambda event: event["header"]["trace"].pop("sample_rand"),
                ["transaction: trace.sample_rand is missing"],
            ),
            (
                lambda event: event["header"].update(event_id="1" * 32),
                [f'transaction: event_id of header and payload differ: ["{"1" * 32}", "{EVENT_ID}"]'],
            ),
        ]
        for number, (fault, expected) in enumerate(faults):
            with self.subTest(number):
                self.assertEqual(problems_of(fault), expected)

    def test_each_malformed_envelope_is_a_problem(self) -> None:
        right = envelope("transaction", transaction())
        head, item, payload, _ = right.split(b"\n")
        incomplete = "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
        not_one = f"not an envelope, JSONDecodeError: {incomplete}: "
        cases: list[tuple[list[bytes], list[str]]] = [
            ([b"{"], [not_one + '"{"']),
            ([b"{}", b"{"], [not_one + r'"{}\n{"']),
            ([b"{}", b'{"type": "event"}', b"{"], [not_one + r'"{}\n{\"type\": \"event\"}\n{"']),
            ([head, b'{"type": "event"}', payload], ["event: no `length`"]),
            (
                [head, b'{"type": "event", "length": 9999}', payload],
                ["event: `length` is not that of the payload"],
            ),
            (
                [b"{}", b'{"type": "event", "length": 2}', b"[]"],
                ["event: header or payload is not an object: [{}, []]"],
            ),
            (
                [head, item.replace(b"transaction", b"profile"), payload],
                ['an item of a kind that is not expected: "profile"'],
            ),
        ]
        for lines, expected in cases:
            with self.subTest(lines[-2:]):
                self.assertEqual(judge([b"\n".join(lines)], CONVENTIONS)[0].problems, expected)

    def test_a_problem_is_told_once(self) -> None:
        event = transaction()
        event["header"].pop("trace")
        verdict = judge([envelope("transaction", event)] * 2, CONVENTIONS)[1]
        self.assertEqual(verdict.problems, ["transaction: the header has no trace (2 times)"])

    def test_quickstart(self) -> None:
        item = {"type": "event", "item_header": {"type": "event"}, "envelope_header": {}, "payload": {}}
        lines = [json.dumps(item | {"type": "transaction"}), "{", json.dumps({"type": "event"})]
        verdict = judge_quickstart("\n".join(lines), CONVENTIONS)[0]
        self.assertEqual(
            verdict,
            Verdict(
                "quickstart: 3 lines are items",
                [
                    'types of item and header differ: ["transaction", "event"]',
                    "not an item, JSONDecodeError: Expecting property name enclosed in double quotes:"
                    ' line 1 column 2 (char 1): "{"',
                    'not an item, KeyError: \'item_header\': "{\\"type\\": \\"event\\"}"',
                ],
            ),
        )

    def test_an_exception_that_nothing_needs_is_a_problem(self) -> None:
        needed = {entry.name for table in TABLES.values() for entry in table} - {"sent_at", "unknown_error"}
        verdict = judge_exceptions([Verdict("all", [], frozenset(needed))])
        self.assertEqual(
            verdict, Verdict("each of 21 exceptions is needed", ["Headers: nothing needs `sent_at`"])
        )

    def test_exceptions_are_documented(self) -> None:
        text = (Path(__file__).parent.parent / "EXCEPTIONS.md").read_text()
        documented = {
            title: re.findall(r"^\| `(.+?)` \| (.+?)(?: Rare\.)? \|$", section, re.MULTILINE)
            for title, section in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        }
        tables = {title: [(entry.name, entry.reason) for entry in table] for title, table in TABLES.items()}
        self.assertEqual(documented, tables)

    def test_names_of_exceptions_are_unique(self) -> None:
        names = [entry.name for table in TABLES.values() for entry in table]
        self.assertEqual(len(names), len(set(names)))


if __name__ == "__main__":
    unittest.main()
