"""One decision for a whole trace, whatever the rates of those that follow the head."""

from collections.abc import Iterator

from .cases import KINDS, Case, Problems
from .joined import Called, check, check_answer, check_headers, make
from .peers import Peer, Peers, Setup
from .traces import transactions

HEADS = ["rust", "go", "python", "python-aio", "node"]

# Of the heads; who follows knows of none, and goes on.
ORG = "7"

# At a rate of one half. That all of these come out alike is as likely as 1 in 2^59.
CALLS = 60


def cases(peers: Peers) -> Iterator[Case]:
    for head in HEADS:
        for rate in (0.0, 1.0):
            yield _agreed(peers, head, rate)
        yield _not_torn(peers, head)


def _route(peers: Peers, head: str, rate: float) -> list[Peer]:
    """Below the head, one that would take nearly nothing, and two that would take much."""
    other = "go" if head != "go" else "node"
    return [
        peers.get(head, f"{head}-at-{rate}", Setup(rate=rate, org=ORG)),
        peers.get("rust", "rust-at-0.01", Setup(rate=0.01)),
        peers.get(other, f"{other}-at-0.99", Setup(rate=0.99)),
        peers.get("rust", "rust-at-0.9", Setup(rate=0.9)),
    ]


def _agreed(peers: Peers, head: str, rate: float) -> Case:
    def run(problems: Problems) -> None:
        route = _route(peers, head, rate)
        for kind in KINDS:
            check(problems, peers, make(route, kind, "Ferris"), sampled=rate == 1.0)
        check(problems, peers, make(route, "unary", "internal"), sampled=rate == 1.0)

    return Case(f"head {head} at {rate}: all agree, errors are sent", run)


def _not_torn(peers: Peers, head: str) -> Case:
    def run(problems: Problems) -> None:
        route = _route(peers, head, 0.5)
        kinds = list(KINDS)
        calls = [make(route, kinds[number % 4], "Ferris") for number in range(CALLS)]
        sampled = [called.hops[0].sentry_trace[0].endswith("-1") for called in calls]
        peers.flush(route)
        expected = sum(sampled) * len(route)
        ids = {called.trace_id for called in calls}
        problems.equal("traces", len(ids), CALLS)
        everything = peers.ingest.wait_for(
            lambda received: sum(len(transactions(received, id)) for id in ids) >= expected
        )
        for called, is_sampled in zip(calls, sampled, strict=True):
            called.sampled = is_sampled
            check_answer(problems, called)
            check_headers(problems, called, is_sampled)
            _check_whole(problems, called, transactions(everything, called.trace_id), is_sampled)
        if not 0 < sum(sampled) < CALLS:
            problems.add(f"{sum(sampled)} of {CALLS} were sampled at 0.5")

    return Case(f"head {head} at 0.5: none of {CALLS} traces is torn", run)


def _check_whole(problems: Problems, called: Called, found: list, sampled: bool) -> None:
    services = sorted(transaction.service for transaction in found)
    expected = sorted(peer.service for peer in called.route) if sampled else []
    problems.equal(f"transactions of {called.trace_id}", services, expected)
