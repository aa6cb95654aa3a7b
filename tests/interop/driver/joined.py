"""What must hold of the trace of a call along a route."""

import itertools
import time
from collections import Counter
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
    # Of the clock, around the call.
    start: float
    end_of_call: float
    # What its head decided, once that is known.
    sampled: bool | None = None

    @property
    def trace_id(self) -> str:
        return self.hops[0].sentry_trace[0].split("-")[0]

    @property
    def path(self) -> str:
        return f"/helloworld.Greeter/{KINDS[self.kind]}"


# All calls of the run, to see at its end that nothing came late.
_made: list[Called] = []


def make(
    route: list[Peer],
    kind: str,
    end: str,
    metadata: list[tuple[str, str]] | None = None,
) -> Called:
    name = f"{end}-{next(_numbers)}"
    head, *servers = route
    start = time.time()
    answer = head.call(kind, name, servers, metadata)
    end_of_call = time.time()
    hops = [peer.hop(name) for peer in servers]
    called = Called(route, kind, end, name, answer, hops, start, end_of_call)
    _made.append(called)
    return called


def check_late(problems: Problems, peers: Peers) -> None:
    """Once all peers have ended, no trace has more than it should."""
    everything = peers.ingest.wait_for(lambda _: True)
    counts = Counter(one.root.trace_id for one in transactions(everything))
    failures = Counter(one.trace_id for one in errors(everything))
    for called in _made:
        where = f"of {called.kind} by {called.route[0].service}"
        expected = len(called.route) if called.sampled else 0
        problems.equal(f"transactions {where}", counts[called.trace_id], expected)
        expected = len(failing_services(called))
        problems.equal(f"errors {where}", failures[called.trace_id], expected)


def is_rust(service: str) -> bool:
    return service.startswith("rust")


def check(problems: Problems, peers: Peers, called: Called, sampled: bool = True) -> None:
    """All that must hold of a call whose head took that decision."""
    called.sampled = sampled
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
    for caller, hop in zip(called.route, called.hops, strict=False):
        where = f"sentry-trace from {caller.service} to {hop.service}"
        if not problems.equal(f"values of {where}", len(hop.sentry_trace), 1):
            return False
        parts = hop.sentry_trace[0].split("-")
        problems.equal(where, [parts[0], *parts[2:]], [called.trace_id, flag])
        problems.equal("method", hop.method, called.path)
    check_head(problems, called, sampled)
    for caller, before, after in zip(called.route[1:], called.hops, called.hops[1:], strict=False):
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


def check_head(problems: Problems, called: Called, sampled: bool) -> None:
    """What the head says of the trace that it begins."""
    head, context = called.route[0], sentry_members(called.hops[0].baggage)
    expected = {
        "trace_id": called.trace_id,
        "public_key": public_key(head.service),
        "sampled": "true" if sampled else "false",
        "release": f"{head.service}@1.0",
        "environment": f"{head.service}-env",
        "transaction": "call",
    }
    if is_rust(head.service):
        if head.setup.org:
            expected["org_id"] = head.setup.org
        rate = context.pop("sample_rate", "nan")
        rand = context.pop("sample_rand", "nan")
        problems.equal("rate of the head", float(rate), head.setup.rate)
        problems.equal("decision by the rate", float(rand) < head.setup.rate, sampled)
        problems.equal("context of the head", context, expected)
    else:
        # Which members another SDK has is its own affair.
        told = {key: context.get(key) for key in expected if key in context}
        problems.equal("context of the head", told, {key: expected[key] for key in told})
        problems.equal("trace of the head", told.get("trace_id"), called.trace_id)


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
    failures = len(failing_services(called))

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
    for caller, hop in zip(called.route, called.hops, strict=False):
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
            problems.equal(f"origin of {hop.service}", server.origin, "auto.rpc.tonic")
        port = int(hop_peer(called, hop).uri.rsplit(":")[-1])
        for span in (client, server):
            if is_rust(span.service):
                problems.equal(f"port that {span.service} saw", span.data.get("server.port"), port)
        check_inside(problems, client, server)
    for peer in called.route:
        check_inside_call(problems, called, by_service[peer.service])
        if is_rust(peer.service):
            transaction = by_service[peer.service]
            setup = transaction.release, transaction.environment
            names = f"{peer.service}@1.0", f"{peer.service}-env"
            problems.equal(f"release and environment of {peer.service}", setup, names)
            check_rust_children(problems, called, transaction)


def check_parents(problems: Problems, found: list[Transaction]) -> None:
    ids = [span.id for transaction in found for span in transaction.spans]
    problems.equal("span ids that are not unique", len(ids) - len(set(ids)), 0)
    for transaction in found:
        for span in transaction.spans:
            problems.equal(f"trace of {span}", span.trace_id, transaction.root.trace_id)
            if span.parent is not None and span.parent not in ids:
                problems.add(f"nobody sent the parent of {span}")


# In seconds. The clocks of runtimes differ a little; and a server may be told that it is done
# well after its caller is, on a busy machine.
CLOCK = 0.05
LATE = 2.0


def check_inside(problems: Problems, outer: Span, inner: Span) -> None:
    """As all clocks are one, a server's span lies in that of its caller."""
    begins = outer.start - CLOCK <= inner.start
    ends = inner.end <= outer.end + LATE
    skew = 0 if is_rust(inner.service) else CLOCK
    lasts = inner.start <= outer.end + skew or not is_rust(outer.service)
    if not (begins and ends and lasts):
        problems.add(f"{inner.start} to {inner.end} of {inner} is not inside {outer}")


def check_inside_call(problems: Problems, called: Called, transaction: Transaction) -> None:
    """Spans lie in their transaction, and that lies in the call."""
    root = transaction.root
    if not called.start - CLOCK <= root.start <= root.end <= called.end_of_call + LATE:
        problems.add(f"{root.start} to {root.end} of {root} is not inside the call")
    for span in transaction.children:
        if not root.start - CLOCK <= span.start <= span.end <= root.end + LATE:
            problems.add(f"{span.start} to {span.end} of {span} is not inside {root}")
    if is_rust(transaction.service) and transaction.children:
        # It ends with its stream, not with the head of its response.
        last = max(span.end for span in transaction.children)
        if root.end < last:
            problems.add(f"{root} ends before what is in it, at {last}")


def hop_peer(called: Called, hop: Hop) -> Peer:
    return next(peer for peer in called.route if peer.service == hop.service)


def check_rust_children(problems: Problems, called: Called, transaction: Transaction) -> None:
    """Below the root, and nothing else: the call to the next server, or what the last one does."""
    service = transaction.service
    if called.route[-1].service == service:
        # A stream that fails greets once before.
        is_stream = called.kind in ("server_stream", "bidi")
        count = 3 if is_stream and called.end == "Ferris" else 1
        expected = [("function", "find_name", transaction.root.id)] * count
    else:
        expected = [("grpc.client", called.path, transaction.root.id)]
    actual = [(span.op, span.description, span.parent) for span in transaction.children]
    problems.equal(f"spans inside {service}", actual, expected)


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
    if side == "client":
        expected["sentry.origin"] = "auto.rpc.tonic"
    # A server may break off its requests where it fails.
    if code != "OK" and called.kind == "bidi":
        data.pop("rpc.request.message_count")
        expected.pop("rpc.request.message_count")
    what = f"{side} span of {span.service}"
    names = (span.op, span.description, span.status)
    problems.equal(what, names, (f"grpc.{side}", called.path, status))
    for key in sorted(data.keys() | expected.keys()):
        problems.equal(f"{key} of the {what}", data.get(key), expected.get(key))


def replies_sent(called: Called, server: str) -> int:
    received = len(called.answer.replies)
    # A servicer in Python replies before any status that it sets, and clients drop the reply.
    if server.startswith("python") and called.end != "Ferris" and KINDS[called.kind] in (
        "SayHello",
        "CollectHellos",
    ):
        return received + 1
    return received


def failing_services(called: Called) -> list[str]:
    """Who reports an error: the last server what it captures, Rust's others what they return."""
    if called.end != "internal":
        return []
    *others, last = [peer.service for peer in called.route[1:]]
    return [*filter(is_rust, others), last]


def check_errors(
    problems: Problems, called: Called, found: list[Transaction], failures: list[Error]
) -> None:
    """Each in the span that it belongs to."""
    by_service = {error.service: error for error in failures}
    expected = sorted(failing_services(called))
    if not problems.equal("errors from", sorted(error.service for error in failures), expected):
        return
    last = called.hops[-1].service
    for service, error in by_service.items():
        problems.equal("trace of the error", error.trace_id, called.trace_id)
        problems.equal("exceptions", error.exceptions[-1:], ["lookup failed"])
        if is_rust(service):
            hop = next(hop for hop in called.hops if hop.service == service)
            check_rust_error(problems, called, hop, error)
        transaction = next((one for one in found if one.service == service), None)
        if transaction is None:
            continue
        spans = [transaction.root]
        if service == last:
            spans = [span for span in transaction.children if span.description == "find_name"]
        ids = [span.id for span in spans[-1:]]
        problems.equal(f"span of the error of {service}", [error.span_id], ids)


def check_rust_error(problems: Problems, called: Called, hop: Hop, error: Error) -> None:
    problems.equal("transaction of the error", error.transaction, called.path)
    told = sentry_members(hop.baggage)
    problems.equal("context of the error", rounded(error.context), rounded(told))
    method = {"rpc.service": "helloworld.Greeter", "rpc.method": KINDS[called.kind]}
    tags = method
    if hop is not called.hops[-1]:
        # Of a status, and not captured by a handler.
        tags = {**method, "rpc.grpc.status_code": "13"}
    problems.equal("tags of the error", error.tags, tags)
    rpc = {key: error.rpc.get(key) for key in ("system", "service", "method")}
    expected = ["grpc", *method.values()]
    problems.equal("call of the error", list(rpc.values()), expected)
