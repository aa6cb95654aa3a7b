"""Each peer with the Rust one in both directions, and chains of them."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from .cases import ENDS, KINDS, Case, Problems
from .joined import Called, check, make
from .peers import Peers
from .traces import other_members

STRANGERS = ["go", "python", "python-aio", "node"]

CHAINS = [
    ["go", "rust", "python"],
    ["python", "rust", "go"],
    ["python-aio", "rust", "node"],
    ["node", "rust", "python-aio"],
    ["rust", "go", "rust-2"],
    ["rust", "node", "rust-2", "python"],
    ["go", "rust", "rust-2", "node"],
]

# Not a multiple of what they cycle through, and less than the threads of a peer.
AT_ONCE = 50

# Of two header values, with what a parser may stumble over.
THIRD_PARTY = ["vendor=1;property=p, other=%20x", "third=3"]


def cases(peers: Peers) -> Iterator[Case]:
    pairs = [["rust", "rust-2"]]
    for stranger in STRANGERS:
        pairs += [[stranger, "rust"], ["rust", stranger]]
    for services in pairs + CHAINS:
        for kind in KINDS:
            for end in ENDS:
                yield _joined(peers, services, kind, end)
    for services in pairs:
        yield _third_party(peers, services)
    for services in CHAINS:
        yield _at_once(peers, services)


def route(peers: Peers, services: list[str]) -> list:
    return [peers.get(service.removesuffix("-2"), service) for service in services]


def _joined(peers: Peers, services: list[str], kind: str, end: str) -> Case:
    def run(problems: Problems) -> None:
        check(problems, peers, make(route(peers, services), kind, end))

    return Case(f"{' -> '.join(services)}, {kind}, {ENDS[end][0]}", run)


def _third_party(peers: Peers, services: list[str]) -> Case:
    def run(problems: Problems) -> None:
        metadata = [("baggage", value) for value in THIRD_PARTY]
        called = make(route(peers, services), "unary", "Ferris", metadata)
        check(problems, peers, called)
        # sentry-go keeps baggage in a map, and with it no order.
        expected = ["other=%20x", "third=3", "vendor=1;property=p"]
        problems.equal("others' baggage", sorted(other_members(called.hops[0].baggage)), expected)

    return Case(f"{' -> '.join(services)}, others' baggage goes out with Sentry's", run)


def _at_once(peers: Peers, services: list[str]) -> Case:
    def run(problems: Problems) -> None:
        peers_of_route = route(peers, services)
        kinds, ends = itertools.cycle(KINDS), itertools.cycle(ENDS)
        orders = [(next(kinds), next(ends)) for _ in range(AT_ONCE)]

        def call(order: tuple[str, str]) -> Called:
            return make(peers_of_route, *order)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            calls = list(pool.map(call, orders))
        for called in calls:
            check(problems, peers, called)

    return Case(f"{' -> '.join(services)}, {AT_ONCE} calls at once", run)
