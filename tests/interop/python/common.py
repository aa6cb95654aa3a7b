"""What the sync and the asyncio peer share: Sentry, the protocol, the parts of a call."""

import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import sentry_sdk
from sentry_sdk.integrations.grpc import GRPCIntegration

import helloworld_pb2

SERVICE = "/helloworld.Greeter/"
ROUTE = "x-route"

Metadata = list[tuple[str, str]]

_stdout = threading.Lock()


class LookupFailed(Exception):
    pass


class Failed(Exception):
    """How a handler's work ends that ends with a status."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass
class Answer:
    """All that came of a call."""

    replies: list[str] = field(default_factory=list)
    code: grpc.StatusCode = grpc.StatusCode.OK
    message: str = ""

    def fail(self, error: grpc.RpcError) -> None:
        self.code = error.code()
        self.message = error.details()


def init_sentry() -> None:
    """The DSN, the environment and the release are read by the SDK."""
    sentry_sdk.init(
        traces_sample_rate=float(os.environ["SENTRY_TRACES_SAMPLE_RATE"]),
        integrations=[GRPCIntegration()],
        default_integrations=False,
        org_id=os.environ.get("PEER_ORG_ID") or None,
        strict_trace_continuation=os.environ.get("PEER_STRICT") == "1",
        # The default queue holds 100 envelopes, and drops what comes on top.
        transport_queue_size=10_000,
    )


def say(line: dict[str, Any]) -> None:
    with _stdout:
        print(json.dumps(line), flush=True)


def say_hop(method: str, name: str, metadata: Metadata) -> None:
    def values(key: str) -> list[str]:
        return [value for name, value in metadata if name == key]

    hop = {
        "method": SERVICE + method,
        "name": name,
        "sentry-trace": values("sentry-trace"),
        "baggage": values("baggage"),
        "metadata": sorted(
            (key, value) for key, value in metadata if key.startswith("x-") and key != ROUTE
        ),
    }
    say({"hop": hop})


def orders() -> Iterator[dict[str, Any]]:
    """Until the end of standard input."""
    for line in sys.stdin:
        yield json.loads(line)


def say_answer(order: dict[str, Any], answer: Answer) -> None:
    say(
        {
            "id": order["id"],
            "code": answer.code.name,
            "message": answer.message,
            "replies": answer.replies,
        }
    )


def say_flushed(order: dict[str, Any]) -> None:
    sentry_sdk.flush(timeout=10)
    say({"id": order["id"], "flushed": True})


def requests(kind: str, name: str) -> list[helloworld_pb2.HelloRequest]:
    count = 3 if kind in ("client_stream", "bidi") else 1
    return [helloworld_pb2.HelloRequest(name=name)] * count


def with_route(metadata: Metadata, route: list[str]) -> Metadata:
    return [*metadata, (ROUTE, ",".join(route))] if route else list(metadata)


def route_of(metadata: Metadata) -> list[str]:
    """The servers that are to be called next."""
    route = dict(metadata).get(ROUTE, "")
    return route.split(",") if route else []


def find_name(name: str) -> helloworld_pb2.HelloReply:
    with sentry_sdk.start_span(op="function", name="find_name"):
        match name.split("-")[0]:
            case "notfound":
                raise Failed(grpc.StatusCode.NOT_FOUND, "nobody has this name")
            case "internal":
                try:
                    raise LookupFailed("lookup failed")
                except LookupFailed as error:
                    sentry_sdk.capture_exception(error)
                raise Failed(grpc.StatusCode.INTERNAL, "lookup failed")
            case _:
                return hello(name)


def find_or_greet(number: int, name: str) -> helloworld_pb2.HelloReply:
    """A stream that fails does so after its first reply."""
    if number == 0 and name.split("-")[0] in ("notfound", "internal"):
        return hello(name)
    return find_name(name)


def hello(name: str) -> helloworld_pb2.HelloReply:
    return helloworld_pb2.HelloReply(message=f"Hello {name}!")


def relay(answer: Answer) -> Iterator[helloworld_pb2.HelloReply]:
    """Gives back what came of a call to the next server."""
    for message in answer.replies:
        yield helloworld_pb2.HelloReply(message=message)
    if answer.code != grpc.StatusCode.OK:
        raise Failed(answer.code, answer.message)


@contextlib.contextmanager
def status(context: grpc.ServicerContext | grpc.aio.ServicerContext) -> Iterator[None]:
    """Sets a status instead of raising it: the SDK takes every exception for a fault."""
    try:
        yield
    except Failed as failed:
        context.set_code(failed.code)
        context.set_details(failed.message)


@contextlib.contextmanager
def root() -> Iterator[None]:
    """A transaction that begins a trace."""
    with sentry_sdk.isolation_scope():
        transaction = sentry_sdk.continue_trace({}, op="test", name="call", source="custom")
        with sentry_sdk.start_transaction(transaction):
            yield


@contextlib.contextmanager
def server_transaction(method: str, metadata: Metadata) -> Iterator[None]:
    """Of a call that GRPCIntegration leaves alone, which are all but unary ones."""
    with sentry_sdk.isolation_scope():
        transaction = sentry_sdk.continue_trace(
            dict(metadata), op="grpc.server", name=SERVICE + method, source="custom"
        )
        failed = None
        with sentry_sdk.start_transaction(transaction):
            try:
                yield
                transaction.set_status("ok")
            except Failed as error:
                # Raised again only outside: the transaction calls every exception internal_error.
                transaction.set_status(status_of(error.code))
                failed = error
        if failed:
            raise failed


@contextlib.contextmanager
def client_span(method: str) -> Iterator[Metadata]:
    """Of a call that GRPCIntegration leaves alone: those with a stream of requests."""
    with sentry_sdk.start_span(op="grpc.client", name=SERVICE + method):
        scope = sentry_sdk.get_current_scope()
        yield list(scope.iter_trace_propagation_headers())


def status_of(code: grpc.StatusCode) -> str:
    """As Sentry names it."""
    return {"UNKNOWN": "unknown_error", "INTERNAL": "internal_error"}.get(code.name, code.name.lower())
