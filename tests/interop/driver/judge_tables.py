"""What the judges let pass, and why. EXCEPTIONS.md has the same tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .judge_paths import Path, at, seconds

# Relay rounds to microseconds, and a float of today's time has steps of a quarter of one.
TIMESTAMP_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Allowed:
    name: str
    reason: str


@dataclass(frozen=True)
class Change(Allowed):
    """Of a value that is as it should be."""

    # Takes where the value was, the value, and the whole event as Relay stores it.
    explains: Callable[[Path, Any, dict[str, Any]], bool]
    # Whether a run may do without it.
    rare: bool = False


@dataclass(frozen=True)
class Attribute(Allowed):
    type: str


def _is_timestamp(path: Path, sent: Any, stored: dict[str, Any]) -> bool:
    before, after = seconds(sent), at(stored, *path)
    return (
        path[-1] in ("start_timestamp", "timestamp")
        and before is not None
        and isinstance(after, float)
        and abs(after - before) <= TIMESTAMP_TOLERANCE
    )


def _is_server_name(path: Path, sent: Any, stored: dict[str, Any]) -> bool:
    return path == ("server_name",) and ["server_name", sent] in stored.get("tags", [])


def _is_tag(path: Path, sent: Any, stored: dict[str, Any]) -> bool:
    return len(path) == 2 and path[0] == "tags" and [path[1], sent] in stored.get("tags", [])


def _is_message(path: Path, sent: Any, stored: dict[str, Any]) -> bool:
    return path == ("message",) and at(stored, "logentry", "formatted") == sent


def _is_unknown_error(path: Path, sent: Any, stored: dict[str, Any]) -> bool:
    return path[-1] == "status" and sent == "unknown_error" and at(stored, *path) == "internal_error"


RELAY_CHANGES = (
    Change("timestamp", "Relay stores seconds as a float, to the microsecond.", _is_timestamp),
    Change("server_name", "Relay makes it a tag.", _is_server_name),
    Change("tags", "Relay stores an object of tags as a list of pairs.", _is_tag),
    Change("message", "Relay stores it as `logentry.formatted`, of which it is the short form.", _is_message),
    Change("unknown_error", "Relay calls this status `internal_error`.", _is_unknown_error, rare=True),
)

_LEGACY = "Of OpenTelemetry's conventions up to 1.38, which the crate follows; "

DEPRECATED_ATTRIBUTES = (
    Attribute("rpc.system", _LEGACY + "Relay adds `rpc.system.name` by itself.", "string"),
    Attribute("rpc.grpc.status_code", _LEGACY + "`rpc.response.status_code` is beside it.", "integer"),
)

_MESSAGES = "Of the crate: length-prefixed messages, which no convention counts."
_TRACING = "Of `tracing`'s metadata, under the name that sentry-tracing gives it."

UNKNOWN_ATTRIBUTES = (
    Attribute("rpc.request.message_count", _MESSAGES, "integer"),
    Attribute("rpc.response.message_count", _MESSAGES, "integer"),
    Attribute("rpc.method_original", "Of OpenTelemetry's conventions: a method nobody knows.", "string"),
    Attribute("code.module.name", _TRACING, "string"),
    Attribute("sentry.tracing.target", _TRACING, "string"),
    Attribute("name", "Of the application: an argument of `#[instrument]` functions.", "string"),
    Attribute("rpc.param.table", "Of the application: a parameter of a call to `quickstart`.", "string"),
    Attribute("rpc.param.api_key", "Of the application: a secret one, which is filtered.", "string"),
)

_GRPC = "Of the crate, as in Sentry's SDK for Python; the conventions have `grpc`."

OPERATIONS = (
    Allowed("grpc.server", _GRPC),
    Allowed("grpc.client", _GRPC),
    Allowed("template.render", "Of the application: `quickstart`; the conventions have `template`."),
    Allowed("test", "Of the application: the transaction around a peer's call."),
)

NO_SENT_AT = Allowed("sent_at", "Missing: sentry 0.49 does not say when it sends an envelope.")
NAMED_KEY = Allowed("public_key", "Not 32 hex digits: `quickstart` tells its services apart by their keys.")

TABLES: dict[str, Sequence[Allowed]] = {
    "Changes by Relay": RELAY_CHANGES,
    "Deprecated attributes": DEPRECATED_ATTRIBUTES,
    "Unknown attributes": UNKNOWN_ATTRIBUTES,
    "Unknown operations": OPERATIONS,
    "Headers": (NO_SENT_AT, NAMED_KEY),
}
