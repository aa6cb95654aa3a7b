"""What must hold of the trace of a call along a route."""

import itertools
from dataclasses import dataclass

from .cases import ENDS, KINDS, Problems
from .ingest import Received, public_key
from .peers import Answer, Hop, Peer, Peers
from .traces import (
    Error,
    Json,
    Span,
    Transaction,
    errors,
    other_members,
    rounded,
    sentry_members,
    transactions,
)

_numbers = itertools.count(1)


@dataclass
class Called:
    """A call that was made along a route, whose first peer is the head."""

    route: list[Peer]
    kind: str
    end: str
    name: str
    answer: Answer
    hops: list[Hop]

    @property
    def trace_id(self) -> str:
        return self.hops[0].sentry_trace[0].split("-")[0]

    @property
    def path(self) -> str:
        return f"/helloworld.Greeter/{KINDS[self.kind]}"


def make(
    route: list[Peer],
    kind: str,
    end: str,
    metadata: list[tuple[str, str]] | None = None,
) -> Called:
    name = f"{end}-{next(_numbers)}"
    head, *servers = route
    answer = head.call(kind, name, servers, metadata)
    return Called(route, kind, end, name, answer, [peer.hop(name) for peer in servers])


def is_rust(service: str) -> bool:
    return service.startswith("rust")


def check(problems: Problems, peers: Peers, called: Called, sampled: bool = True) -> None:
    """All that must hold of a call whose head took that decision."""
    check_answer(problems, called)
    if not check_headers(problems, called, sampled):
        return
    found, failures = received(peers, called, len(called.route) if sampled else 0)
    services = sorted(transaction.service for transaction in found)
    expected = sorted(peer.service for peer in called.route) if sampled else []
    if not problems.equal("transactions from", services, expected):
        return
    for transaction in found:
        check_context(problems, called, transaction)
    if sampled:
        check_tree(problems, called, found)
    check_errors(problems, called, found, failures)


def check_answer(problems: Problems, called: Called) -> None:
    code, message, _ = ENDS[called.end]
    problems.equal("code", called.answer.code, code)
    problems.equal("message", called.answer.message, message)
    replies = {
        ("unary", "Ferris"): 1,
        ("client_stream", "Ferris"): 1,
        ("server_stream", "Ferris"): 3,
        ("bidi", "Ferris"): 3,
        ("server_stream", "notfound"): 1,
        ("server_stream", "internal"): 1,
        ("bidi", "notfound"): 1,
        ("bidi", "internal"): 1,
    }.get((called.kind, called.end), 0)
    problems.equal("replies", called.answer.replies, [f"Hello {called.name}!"] * replies)


def check_headers(problems: Problems, called: Called, sampled: bool) -> bool:
    """One trace, one decision and one sampling context from hop to hop."""
    flag = "1" if sampled else "0"
    for caller, hop in zip(called.route, called.hops):
        where = f"sentry-trace from {caller.service} to {hop.service}"
        if not problems.equal(f"values of {where}", len(hop.sentry_trace), 1):
            return False
        parts = hop.sentry_trace[0].split("-")
        problems.equal(where, [parts[0], *parts[2:]], [called.trace_id, flag])
        problems.equal("method", hop.method, called.path)
    head = sentry_members(called.hops[0].baggage)
    problems.equal("sampled in the context", head.get("sampled"), "true" if sampled else "false")
    problems.equal("trace id in the context", head.get("trace_id"), called.trace_id)
    problems.equal("key in the context", head.get("public_key"), public_key(called.route[0].service))
    for caller, before, after in zip(called.route[1:], called.hops, called.hops[1:]):
        where = f"baggage from {caller.service} to {after.service}"
        if is_rust(caller.service):
            problems.equal(where, own_baggage(after), own_baggage(before))
        else:
            check_passed_on(
                problems,
                where,
                caller.service,
                sentry_members(before.baggage),
                sentry_members(after.baggage),
            )
    return True


# sentry-go 0.50 makes a context of its own in the middle of a trace: Span.ToBaggage looks whether
# the child is frozen, and not its transaction; Scope.ApplyToEvent does not look at all.
KEPT_BY_GO = ["trace_id", "sampled"]


def check_passed_on(
    problems: Problems, what: str, service: str, before: Json, after: Json
) -> None:
    """By another SDK, which may add a `sample_rand` where there was none, and write it anew."""
    keys = KEPT_BY_GO if service.startswith("go") else before
    before, after = rounded(before), rounded(after)
    problems.equal(what, {k: after.get(k) for k in keys}, {k: before.get(k) for k in keys})


def check_context(problems: Problems, called: Called, transaction: Transaction) -> None:
    """What the envelope says of the trace is what the service was told of it."""
    service = transaction.service
    hop = next((hop for hop in called.hops if hop.service == service), called.hops[0])
    told = sentry_members(hop.baggage)
    what = f"context in the envelope of {service}"
    if is_rust(service):
        problems.equal(what, rounded(transaction.context), rounded(told))
    else:
        check_passed_on(problems, what, service, told, transaction.context)


def own_baggage(hop: Hop) -> list[str]:
    """Sentry's members, byte for byte and in their order."""
    members = [member.strip(" \t") for member in ",".join(hop.baggage).split(",")]
    return [member for member in members if member.startswith("sentry-")]


def received(peers: Peers, called: Called, count: int) -> tuple[list[Transaction], list[Error]]:
    peers.flush(called.route)
    failures = 1 if called.end == "internal" else 0

    def done(everything: list[Received]) -> bool:
        return (
            len(transactions(everything, called.trace_id)) >= count
            and len(errors(everything, called.trace_id)) >= failures
        )

    everything = peers.ingest.wait_for(done)
    return transactions(everything, called.trace_id), errors(everything, called.trace_id)


def check_tree(problems: Problems, called: Called, found: list[Transaction]) -> None:
    """Each server's transaction below the client's span that called it, up to the head."""
    by_service = {transaction.service: transaction for transaction in found}
    check_parents(problems, found)
    head = by_service[called.route[0].service]
    problems.equal("the head's parent", head.root.parent, None)
    problems.equal("the head", (head.root.op, head.root.description), ("test", "call"))
    for caller, hop in zip(called.route, called.hops):
        server = by_service[hop.service].root
        parent = hop.sentry_trace[0].split("-")[1]
        problems.equal(f"parent of {hop.service}", server.parent, parent)
        client = next((s for s in by_service[caller.service].spans if s.id == parent), None)
        if client is None:
            problems.add(f"{caller.service} sent no span {parent}")
            continue
        if is_rust(caller.service):
            check_rust_span(problems, client, "client", called, hop.service)
        if is_rust(hop.service):
            check_rust_span(problems, server, "server", called, caller.service)


def check_parents(problems: Problems, found: list[Transaction]) -> None:
    ids = [span.id for transaction in found for span in transaction.spans]
    problems.equal("span ids that are not unique", len(ids) - len(set(ids)), 0)
    for transaction in found:
        for span in transaction.spans:
            problems.equal(f"trace of {span}", span.trace_id, transaction.root.trace_id)
            if span.parent is not None and span.parent not in ids:
                problems.add(f"nobody sent the parent of {span}")


def check_rust_span(
    problems: Problems, span: Span, side: str, called: Called, other: str
) -> None:
    """The span of a call between it and that other service."""
    code, message, status = ENDS[called.end]
    expected = {
        "sentry.kind": side,
        "rpc.system": "grpc",
        "rpc.service": "helloworld.Greeter",
        "rpc.method": KINDS[called.kind],
        "rpc.response.status_code": code,
        "rpc.grpc.status_code": {"OK": 0, "NOT_FOUND": 5, "INTERNAL": 13}[code],
        "rpc.request.message_count": 3 if called.kind in ("client_stream", "bidi") else 1,
        "rpc.response.message_count": replies_sent(called, other if side == "client" else ""),
        "server.address": "127.0.0.1",
    }
    if code != "OK":
        expected["otel.status_description"] = message
    if code == "INTERNAL" or (code != "OK" and side == "client"):
        expected["error.type"] = code
    data = {key: value for key, value in span.data.items() if key != "server.port"}
    # A server may break off its requests where it fails.
    if code != "OK" and called.kind == "bidi":
        data.pop("rpc.request.message_count")
        expected.pop("rpc.request.message_count")
    what = f"{side} span of {span.service}"
    names = (span.op, span.description, span.status)
    problems.equal(what, names, (f"grpc.{side}", called.path, status))
    for key in sorted(data.keys() | expected.keys()):
        problems.equal(f"{key} of the {what}", data.get(key), expected.get(key))
    problems.equal(f"type of the port of the {what}", type(span.data.get("server.port")), int)


def replies_sent(called: Called, server: str) -> int:
    received = len(called.answer.replies)
    # A servicer in Python replies before any status that it sets, and clients drop the reply.
    if server.startswith("python") and called.end != "Ferris" and KINDS[called.kind] in (
        "SayHello",
        "CollectHellos",
    ):
        return received + 1
    return received


def check_errors(
    problems: Problems, called: Called, found: list[Transaction], failures: list[Error]
) -> None:
    """One error of the last server, in the span that it was captured in."""
    if called.end != "internal":
        problems.equal("errors", failures, [])
        return
    last = called.hops[-1].service
    if not problems.equal("errors from", [error.service for error in failures], [last]):
        return
    [error] = failures
    problems.equal("trace of the error", error.trace_id, called.trace_id)
    problems.equal("exceptions", error.exceptions[-1:], ["lookup failed"])
    if is_rust(last):
        problems.equal("transaction of the error", error.transaction, called.path)
    transaction = next((one for one in found if one.service == last), None)
    if transaction is None:
        return
    names = [span for span in transaction.children if span.description == "find_name"]
    problems.equal("span of the error", [error.span_id], [span.id for span in names[-1:]])


def third_party(hop: Hop) -> list[str]:
    return other_members(hop.baggage)
