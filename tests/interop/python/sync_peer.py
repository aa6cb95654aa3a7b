"""The peer of grpcio and sentry-sdk."""

import os
import signal
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import chain
from typing import Any

import grpc
import sentry_sdk

import common
import helloworld_pb2_grpc
from common import Answer, Metadata
from helloworld_pb2 import HelloReply, HelloRequest

# Each running call holds a thread, and a call in a route waits for one in another process.
THREADS = 64
GRACE = 5


@cache
def client(server: str) -> helloworld_pb2_grpc.GreeterStub:
    return helloworld_pb2_grpc.GreeterStub(grpc.insecure_channel(server.removeprefix("http://")))


def call(kind: str, name: str, route: list[str], metadata: Metadata) -> Answer:
    server, *others = route
    stub, metadata = client(server), common.with_route(metadata, others)
    requests = common.requests(kind, name)
    answer = Answer()
    try:
        match kind:
            case "unary":
                answer.replies.append(stub.SayHello(requests[0], metadata=metadata).message)
            case "server_stream":
                collect(stub.SayHelloStream(requests[0], metadata=metadata), answer)
            case "client_stream":
                with common.client_span("CollectHellos") as headers:
                    reply = stub.CollectHellos(iter(requests), metadata=[*metadata, *headers])
                    answer.replies.append(reply.message)
            case "bidi":
                with common.client_span("Chat") as headers:
                    collect(stub.Chat(iter(requests), metadata=[*metadata, *headers]), answer)
            case _:
                raise ValueError(f"unknown kind of call {kind!r}")
    except grpc.RpcError as error:
        answer.fail(error)
    return answer


def collect(replies: Iterator[HelloReply], answer: Answer) -> None:
    for reply in replies:
        answer.replies.append(reply.message)


def forward(kind: str, name: str, metadata: Metadata) -> Iterator[HelloReply] | None:
    """What the rest of the route replies; None where it ends here."""
    route = common.route_of(metadata)
    return common.relay(call(kind, name, route, [])) if route else None


def first(requests: Iterator[HelloRequest]) -> tuple[str, Iterator[HelloRequest]]:
    request = next(requests)
    return request.name, chain([request], requests)


class Greeter(helloworld_pb2_grpc.GreeterServicer):
    def SayHello(self, request: HelloRequest, context: grpc.ServicerContext) -> HelloReply:
        metadata = context.invocation_metadata()
        common.say_hop("SayHello", request.name, metadata)
        with common.status(context):
            replies = forward("unary", request.name, metadata)
            return next(replies) if replies else common.find_name(request.name)
        return HelloReply()

    def SayHelloStream(
        self, request: HelloRequest, context: grpc.ServicerContext
    ) -> Iterator[HelloReply]:
        metadata = context.invocation_metadata()
        common.say_hop("SayHelloStream", request.name, metadata)
        with common.status(context), common.server_transaction("SayHelloStream", metadata):
            replies = forward("server_stream", request.name, metadata)
            if replies:
                yield from replies
            else:
                for number in range(3):
                    yield common.find_or_greet(number, request.name)

    def CollectHellos(
        self, requests: Iterator[HelloRequest], context: grpc.ServicerContext
    ) -> HelloReply:
        metadata = context.invocation_metadata()
        name, requests = first(requests)
        common.say_hop("CollectHellos", name, metadata)
        with common.status(context), common.server_transaction("CollectHellos", metadata):
            for _ in requests:
                pass
            replies = forward("client_stream", name, metadata)
            return next(replies) if replies else common.find_name(name)
        return HelloReply()

    def Chat(
        self, requests: Iterator[HelloRequest], context: grpc.ServicerContext
    ) -> Iterator[HelloReply]:
        metadata = context.invocation_metadata()
        name, requests = first(requests)
        common.say_hop("Chat", name, metadata)
        with common.status(context), common.server_transaction("Chat", metadata):
            replies = forward("bidi", name, metadata)
            if replies:
                yield from replies
            else:
                for number, request in enumerate(requests):
                    yield common.find_or_greet(number, request.name)


def obey(order: dict[str, Any]) -> None:
    try:
        obey_or_raise(order)
    except Exception:
        # Nobody waits for the result before the last order.
        traceback.print_exc()
        os._exit(1)


def obey_or_raise(order: dict[str, Any]) -> None:
    if order.get("flush"):
        common.say_flushed(order)
        return
    metadata = [(key, value) for key, value in order.get("metadata", [])]
    with common.root():
        answer = call(order["call"], order["name"], order["route"], metadata)
    common.say_answer(order, answer)


def read_orders(pool: ThreadPoolExecutor, done: threading.Event) -> None:
    for order in common.orders():
        pool.submit(obey, order)
    pool.shutdown()
    done.set()


def main() -> None:
    common.init_sentry()
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    server = grpc.server(ThreadPoolExecutor(THREADS))
    helloworld_pb2_grpc.add_GreeterServicer_to_server(Greeter(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    common.say({"listening": f"http://127.0.0.1:{port}"})
    pool = ThreadPoolExecutor(THREADS)
    threading.Thread(target=read_orders, args=(pool, done), daemon=True).start()
    done.wait()
    server.stop(GRACE).wait()
    sentry_sdk.flush()


if __name__ == "__main__":
    main()
