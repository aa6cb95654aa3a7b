"""Each fault in a joined trace is noticed. Run it with `python -m unittest driver.test_joined`."""

import unittest
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from .cases import Problems
from .ingest import public_key
from .joined import Called, check_context, check_errors, check_headers, check_tree
from .peers import Answer, Hop, Peer, Setup
from .traces import Error, Span, Transaction

TRACE = "4c79f60c11214eb38604f4ae0781bfb2"
PATH = "/helloworld.Greeter/SayHello"


def baggage(service: str) -> str:
    key = public_key(service)
    return (
        f"sentry-trace_id={TRACE},sentry-public_key={key},sentry-sampled=true,sentry-sample_rate=0.5,"
        f"sentry-sample_rand=0.25,sentry-environment={service}-env,sentry-release={service}%401.0,"
        "sentry-transaction=call"
    )


def rust_span(side: str, **more: Any) -> Span:
    data: dict[str, Any] = {
        "sentry.kind": side,
        "rpc.system": "grpc",
        "rpc.service": "helloworld.Greeter",
        "rpc.method": "SayHello",
        "rpc.response.status_code": "INTERNAL",
        "rpc.grpc.status_code": 13,
        "rpc.request.message_count": 1,
        "rpc.response.message_count": 0,
        "server.address": "127.0.0.1",
        "server.port": 50051,
        "otel.status_description": "lookup failed",
        "error.type": "INTERNAL",
    }
    if side == "client":
        data["sentry.origin"] = "auto.rpc.tonic"
    return Span(
        service="rust",
        trace_id=TRACE,
        op=f"grpc.{side}",
        description=PATH,
        status="internal_error",
        data=data,
        origin="auto.rpc.tonic",
        **more,
    )


def context() -> dict[str, str]:
    return {
        "trace_id": TRACE,
        "public_key": public_key("rust"),
        "sampled": "true",
        "sample_rate": "0.5",
        "sample_rand": "0.250000",
        "environment": "rust-env",
        "release": "rust@1.0",
        "transaction": "call",
    }


def peer(service: str) -> Peer:
    setup = Setup(rate=0.5)
    return cast(Peer, SimpleNamespace(service=service, setup=setup, uri="http://127.0.0.1:50051"))


class World:
    """A Rust head that calls a Rust server, which fails with an error."""

    def __init__(self) -> None:
        route = [peer("rust"), peer("rust-2")]
        hop = Hop("rust-2", PATH, "internal-1", [f"{TRACE}-client-1"], [baggage("rust")], [], [])
        answer = Answer("INTERNAL", "lookup failed", [])
        self.called = Called(route, "unary", "internal", "internal-1", answer, [hop], 10.0, 20.0)
        head = Span("rust", TRACE, "head", None, "test", "call", "ok", {}, 11.0, 19.0, None)
        client = rust_span("client", id="client", parent="head", start=12.0, end=18.0)
        server = rust_span("server", id="server", parent="client", start=13.0, end=17.0)
        server = replace(server, service="rust-2")
        inside = Span(
            *("rust-2", TRACE, "inside", "server", "function", "find_name", "ok", {}, 14.0, 16.0, None)
        )
        self.head = Transaction("rust", head, [client], context(), "rust@1.0", "rust-env")
        self.server = Transaction("rust-2", server, [inside], context(), "rust-2@1.0", "rust-2-env")
        self.error = Error(
            service="rust-2",
            trace_id=TRACE,
            span_id="inside",
            exceptions=["lookup failed"],
            transaction=PATH,
            tags={"rpc.service": "helloworld.Greeter", "rpc.method": "SayHello"},
            rpc={"system": "grpc", "service": "helloworld.Greeter", "method": "SayHello"},
            context=context(),
        )

    def alter_hop(self, **more: Any) -> None:
        self.called.hops = [replace(self.called.hops[0], **more)]

    def alter_server(self, **more: Any) -> None:
        self.server = replace(self.server, root=replace(self.server.root, **more))

    def alter_client(self, **more: Any) -> None:
        self.head = replace(self.head, children=[replace(self.head.children[0], **more)])

    def alter_inside(self, **more: Any) -> None:
        self.server = replace(self.server, children=[replace(self.server.children[0], **more)])

    def alter_error(self, **more: Any) -> None:
        self.error = replace(self.error, **more)

    def problems(self) -> list[str]:
        problems = Problems()
        found = [self.head, self.server]
        if check_headers(problems, self.called, sampled=True):
            for transaction in found:
                check_context(problems, self.called, transaction)
            check_tree(problems, self.called, found)
            check_errors(problems, self.called, found, [self.error])
        return problems.lines


FAULTS: dict[str, Callable[[World], None]] = {
    "no sentry-trace": lambda world: world.alter_hop(sentry_trace=[]),
    "two of them": lambda world: world.alter_hop(sentry_trace=[f"{TRACE}-client-1"] * 2),
    "unsampled in the header": lambda world: world.alter_hop(sentry_trace=[f"{TRACE}-client-0"]),
    "no baggage": lambda world: world.alter_hop(baggage=[]),
    "baggage of another head": lambda world: world.alter_hop(baggage=[baggage("go")]),
    "a parent that nobody sent": lambda world: world.alter_server(parent="other"),
    "a parent in the wrong place": lambda world: world.alter_server(parent="head"),
    "another trace": lambda world: world.alter_server(trace_id="0" * 32),
    "another status": lambda world: world.alter_server(status="ok"),
    "another name": lambda world: world.alter_server(description="/other"),
    "another operation": lambda world: world.alter_client(op="rpc"),
    "another origin": lambda world: world.alter_server(origin="manual"),
    "a client's span below another": lambda world: world.alter_client(parent="server"),
    "an attribute too few": lambda world: world.alter_client(data={}),
    "an attribute too many": lambda world: world.alter_server(
        data={**world.server.root.data, "more": 1}
    ),
    "a port that is text": lambda world: world.alter_server(
        data={**world.server.root.data, "server.port": "1"}
    ),
    "the span inside below another": lambda world: world.alter_inside(parent="client"),
    "no span inside": lambda world: setattr(
        world, "server", replace(world.server, children=[])
    ),
    "a span twice": lambda world: setattr(
        world, "server", replace(world.server, children=world.server.children * 2)
    ),
    "another port": lambda world: world.alter_client(
        data={**world.head.children[0].data, "server.port": 1}
    ),
    "a server before its caller": lambda world: world.alter_server(start=11.5),
    "a server that ends with its head": lambda world: world.alter_server(end=15.0),
    "a span of another day": lambda world: world.alter_inside(start=1.0, end=2.0),
    "a call of no time": lambda world: world.alter_client(end=12.0),
    "another rate of the head": lambda world: world.alter_hop(
        baggage=[baggage("rust").replace("rate=0.5", "rate=1")]
    ),
    "a decision against the rate": lambda world: world.alter_hop(
        baggage=[baggage("rust").replace("rand=0.25", "rand=0.75")]
    ),
    "a head without release": lambda world: world.alter_hop(
        baggage=[baggage("rust").replace("sentry-release=rust%401.0,", "")]
    ),
    "no release": lambda world: setattr(world, "server", replace(world.server, release=None)),
    "no context in the envelope": lambda world: setattr(
        world, "server", replace(world.server, context={})
    ),
    "another decision in the envelope": lambda world: setattr(
        world, "head", replace(world.head, context={**context(), "sampled": "false"})
    ),
    "the error in the server's span": lambda world: world.alter_error(span_id="server"),
    "the error of another service": lambda world: world.alter_error(service="rust"),
    "the error without its call": lambda world: world.alter_error(rpc={}),
    "the error without tags": lambda world: world.alter_error(tags={}),
    "the error without context": lambda world: world.alter_error(context={}),
    "the error of another transaction": lambda world: world.alter_error(transaction="call"),
}


class JoinedTraces(unittest.TestCase):
    def test_a_right_trace_has_no_problem(self) -> None:
        self.assertEqual(World().problems(), [])

    def test_each_fault_is_noticed(self) -> None:
        for name, fault in FAULTS.items():
            with self.subTest(name):
                world = World()
                fault(world)
                self.assertNotEqual(world.problems(), [])
