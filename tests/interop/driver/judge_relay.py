"""What Relay, which takes in what Sentry stores, makes of transactions and errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sentry_relay.exceptions import RelayError
from sentry_relay.processing import StoreNormalizer, convert_datascrubbing_config, pii_strip_event

from .judge_envelopes import JUDGED_KINDS, Item, of_kind
from .judge_paths import Path, at, leaves, text_of
from .judge_tables import RELAY_CHANGES
from .judge_verdict import Findings, Verdict

# As in Relay's defaults: five days, one minute.
NORMALIZER = StoreNormalizer(
    project_id=1,
    key_id="1",
    protocol_version="7",
    enable_trimming=True,
    remove_other=True,
    is_renormalize=False,
    normalize_spans=True,
    normalize_user_agent=True,
    max_secs_in_past=5 * 24 * 60 * 60,
    max_secs_in_future=60,
)

# As in a new project.
SCRUBBING = convert_datascrubbing_config(
    {
        "scrubData": True,
        "scrubDefaults": True,
        "scrubIpAddresses": False,
        "sensitiveFields": [],
        "excludeFields": [],
    }
)


def judge_relay(items: list[Item]) -> list[Verdict]:
    verdicts = []
    for kind in JUDGED_KINDS:
        findings = Findings()
        judged = of_kind(items, kind)
        for item in judged:
            _judge(_typed(item), findings)
        verdicts.append(findings.verdict(f"Relay accepts {{}} {kind}s", len(judged)))
    return verdicts


def _typed(item: Item) -> dict[str, Any]:
    """Relay looks for a transaction's type in its item's header, which the normaliser does not see."""
    return item.payload | {"type": "transaction"} if item.kind == "transaction" else item.payload


def _judge(event: dict[str, Any], findings: Findings) -> None:
    try:
        stored = NORMALIZER.normalize_event(event)
        scrubbed = pii_strip_event(SCRUBBING, event)
    except RelayError as rejection:
        # A stack trace of Relay follows.
        findings.add(f"rejected, {str(rejection).splitlines()[0]}", event.get("event_id"))
        return
    for error in stored.get("errors", []):
        findings.add(f"{_general(error.get('name', ''))}: {error['type']}", error)
    for path, note in _notes(stored.get("_meta", {})):
        findings.add(f"{path}: changed", note)
    for path, note in _notes(scrubbed.get("_meta", {})):
        # Else an error, which the normaliser has found too.
        if "rem" in note:
            findings.add(f"{path}: scrubbed", note)
    for leaf, sent in leaves(event):
        _judge_leaf(leaf, sent, stored, findings)


def _judge_leaf(path: Path, sent: Any, stored: dict[str, Any], findings: Findings) -> None:
    after = at(stored, *path)
    # For Python, 1 is 1.0 is True.
    if type(after) is type(sent) and after == sent:
        return
    for change in RELAY_CHANGES:
        if change.explains(path, sent, stored):
            findings.excuse(change.name)
            return
    findings.add(f"{text_of(path)}: not stored as it was sent", {"sent": sent, "stored": after})


def _notes(meta: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Each stands under the key "" of the object that mirrors a value."""
    for key, child in meta.items():
        if key == "":
            yield _general(".".join(path)), child
        else:
            yield from _notes(child, (*path, key))


def _general(path: str) -> str:
    """The same for all elements of a list, whose indices are text here."""
    return ".".join("*" if key.isdigit() else key for key in path.split("."))
