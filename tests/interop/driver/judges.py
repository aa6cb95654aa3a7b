"""Judges what Rust processes sent to Sentry by software that is not of this crate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

from .judge_conventions import Conventions, judge_conventions
from .judge_envelopes import Item, checked_item, judge_headers, parse
from .judge_relay import judge_relay
from .judge_tables import TABLES, Change
from .judge_traces import judge_traces
from .judge_verdict import Findings, Verdict

__all__ = ["Verdict", "judge", "judge_exceptions", "judge_quickstart"]


def judge(envelopes: list[bytes], conventions: Conventions) -> list[Verdict]:
    """Of envelopes as they came in, uncompressed."""
    items, verdict = parse(envelopes)
    return [verdict, *_judge_items(items, conventions)]


def judge_quickstart(json_lines: str, conventions: Conventions) -> list[Verdict]:
    """Of the output of `quickstart --json`."""
    findings = Findings()
    lines = json_lines.splitlines()
    items = [item for line in lines for item in _quickstart_items(line, findings)]
    verdicts = [findings.verdict("{} lines are items", len(lines)), *_judge_items(items, conventions)]
    return [replace(verdict, name=f"quickstart: {verdict.name}") for verdict in verdicts]


def judge_exceptions(verdicts: list[Verdict]) -> Verdict:
    """Whether all exceptions are still needed, by all the verdicts of a run."""
    findings = Findings()
    needed = {name for verdict in verdicts for name in verdict.exceptions}
    for title, table in TABLES.items():
        for entry in table:
            is_rare = isinstance(entry, Change) and entry.rare
            if entry.name not in needed and not is_rare:
                findings.add(f"{title}: nothing needs `{entry.name}`")
    return findings.verdict("each of {} exceptions is needed", sum(map(len, TABLES.values())))


def _judge_items(items: list[Item], conventions: Conventions) -> list[Verdict]:
    return [
        judge_headers(items),
        *judge_relay(items),
        judge_traces(items),
        *judge_conventions(items, conventions),
    ]


def _quickstart_items(line: str, findings: Findings) -> Iterator[Item]:
    try:
        item = json.loads(line)
        kinds = [item["type"], item["item_header"]["type"]]
        header, payload = item["envelope_header"], item["payload"]
    except (KeyError, TypeError, ValueError) as error:
        findings.add(f"not an item, {type(error).__name__}: {error}", line)
        return
    if kinds[0] != kinds[1]:
        findings.add("types of item and header differ", kinds)
    yield from checked_item(kinds[0], header, payload, findings)
