"""Whose traces a server goes on with: by organization, strict or not, as other SDKs do."""

import itertools
from collections.abc import Iterator

import grpc

import helloworld_pb2
import helloworld_pb2_grpc

from .cases import Case, Problems
from .ingest import public_key
from .joined import is_rust
from .peers import Peer, Peers, Setup
from .watch import Watch

TRACE = "771a43a4192642f0b136d5159a501700"
SPAN = "1234567890abcdef"
HEAD = "0" * 32


def cases(peers: Peers) -> Iterator[Case]:
    for strict, own, incoming in itertools.product([False, True], ["", "1"], ["", "1", "2"]):
        yield _case(peers, strict, own, incoming)


def expected(strict: bool, own: str, incoming: str) -> bool:
    """https://develop.sentry.dev/sdk/foundations/trace-propagation/#strict-trace-continuation"""
    if own and incoming:
        return own == incoming
    return not strict or own == incoming


def _case(peers: Peers, strict: bool, own: str, incoming: str) -> Case:
    def run(problems: Problems) -> None:
        for language in ("go", "python", "python-aio", "node", "rust"):
            name = f"{language}-org-{own or 'none'}{'-strict' if strict else ''}"
            peer = peers.get(language, name, Setup(org=own, strict=strict))
            problems.equal(
                f"{language} continues",
                _continues(problems, peers, peer, incoming),
                expected(strict, own, incoming),
            )

    how = "strict" if strict else "lenient"
    return Case(f"{how}, organization {own or 'unknown'}, trace of {incoming or 'unknown'}", run)


_numbers = itertools.count(1)


def _continues(problems: Problems, peers: Peers, peer: Peer, org: str) -> bool:
    # A trace for each call, to tell them apart.
    trace_id = f"{next(_numbers):08x}{TRACE[8:]}"
    baggage = f"sentry-trace_id={trace_id},sentry-public_key={HEAD},sentry-sample_rand=0.250000"
    if org:
        baggage += f",sentry-org_id={org}"
    metadata = [("sentry-trace", f"{trace_id}-{SPAN}-1"), ("baggage", baggage)]
    watch = Watch(peers, peer)
    with grpc.insecure_channel(peer.address) as channel:
        stub = helloworld_pb2_grpc.GreeterStub(channel)
        stub.SayHello(helloworld_pb2.HelloRequest(name="Ferris"), metadata=metadata)
    [transaction] = watch.take(1)
    continues = transaction.root.trace_id == trace_id
    # Nothing is left of a trace that is refused.
    parent, key = (SPAN, HEAD) if continues else (None, public_key(peer.service))
    problems.equal(f"parent at {peer.service}", transaction.root.parent, parent)
    if is_rust(peer.service):
        problems.equal("key in the context", transaction.context.get("public_key"), key)
    return continues
