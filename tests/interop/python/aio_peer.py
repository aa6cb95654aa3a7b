"""The peer of grpcio's asyncio API and sentry-sdk."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from functools import cache
from typing import Any

import grpc
import sentry_sdk

import common
import helloworld_pb2_grpc
from common import Answer, Metadata
from helloworld_pb2 import HelloReply, HelloRequest

GRACE = 5


@cache
def client(server: str) -> helloworld_pb2_grpc.GreeterStub:
    return helloworld_pb2_grpc.GreeterStub(
        grpc.aio.insecure_channel(server.removeprefix("http://"))
    )


async def call(kind: str, name: str, route: list[str], metadata: Metadata) -> Answer:
    server, *others = route
    stub, metadata = client(server), common.with_route(metadata, others)
    requests = common.requests(kind, name)
    answer = Answer()
    try:
        match kind:
            case "unary":
                reply = await stub.SayHello(requests[0], metadata=metadata)
                answer.replies.append(reply.message)
            case "server_stream":
                await collect(stub.SayHelloStream(requests[0], metadata=metadata), answer)
            case "client_stream":
                with common.client_span("CollectHellos") as headers:
                    reply = await stub.CollectHellos(requests, metadata=[*metadata, *headers])
                    answer.replies.append(reply.message)
            case "bidi":
                with common.client_span("Chat") as headers:
                    await collect(stub.Chat(requests, metadata=[*metadata, *headers]), answer)
            case _:
                raise ValueError(f"unknown kind of call {kind!r}")
    except grpc.RpcError as error:
        answer.fail(error)
    return answer


async def collect(replies: AsyncIterator[HelloReply], answer: Answer) -> None:
    async for reply in replies:
        answer.replies.append(reply.message)


async def forward(kind: str, name: str, metadata: Metadata) -> Iterator[HelloReply] | None:
    """What the rest of the route replies; None where it ends here."""
    route = common.route_of(metadata)
    return common.relay(await call(kind, name, route, [])) if route else None


class Greeter(helloworld_pb2_grpc.GreeterServicer):
    async def SayHello(
        self, request: HelloRequest, context: grpc.aio.ServicerContext
    ) -> HelloReply:
        metadata = context.invocation_metadata()
        common.say_hop("SayHello", request.name, metadata)
        with common.status(context):
            replies = await forward("unary", request.name, metadata)
            return next(replies) if replies else common.find_name(request.name)
        return HelloReply()

    async def SayHelloStream(
        self, request: HelloRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[HelloReply]:
        metadata = context.invocation_metadata()
        common.say_hop("SayHelloStream", request.name, metadata)
        with common.status(context), common.server_transaction("SayHelloStream", metadata):
            replies = await forward("server_stream", request.name, metadata)
            if replies:
                for reply in replies:
                    yield reply
            else:
                for number in range(3):
                    yield common.find_or_greet(number, request.name)

    async def CollectHellos(
        self, requests: AsyncIterator[HelloRequest], context: grpc.aio.ServicerContext
    ) -> HelloReply:
        metadata = context.invocation_metadata()
        name = (await anext(requests)).name
        common.say_hop("CollectHellos", name, metadata)
        with common.status(context), common.server_transaction("CollectHellos", metadata):
            async for _ in requests:
                pass
            replies = await forward("client_stream", name, metadata)
            return next(replies) if replies else common.find_name(name)
        return HelloReply()

    async def Chat(
        self, requests: AsyncIterator[HelloRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[HelloReply]:
        metadata = context.invocation_metadata()
        name = (await anext(requests)).name
        common.say_hop("Chat", name, metadata)
        with common.status(context), common.server_transaction("Chat", metadata):
            replies = await forward("bidi", name, metadata)
            if replies:
                for reply in replies:
                    yield reply
                return
            yield common.find_or_greet(0, name)
            number = 1
            async for request in requests:
                yield common.find_or_greet(number, request.name)
                number += 1


async def obey(order: dict[str, Any]) -> None:
    if order.get("flush"):
        await asyncio.to_thread(common.say_flushed, order)
        return
    metadata = [(key, value) for key, value in order.get("metadata", [])]
    with common.root():
        answer = await call(order["call"], order["name"], order["route"], metadata)
    common.say_answer(order, answer)


async def obey_all(orders: asyncio.Queue[dict[str, Any] | None]) -> None:
    async with asyncio.TaskGroup() as running:
        while order := await orders.get():
            running.create_task(obey(order))


async def main() -> None:
    common.init_sentry()
    server = grpc.aio.server()
    helloworld_pb2_grpc.add_GreeterServicer_to_server(Greeter(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    common.say({"listening": f"http://127.0.0.1:{port}"})

    loop = asyncio.get_running_loop()
    orders: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
    loop.add_signal_handler(signal.SIGTERM, orders.put_nowait, None)

    def read() -> None:
        for order in common.orders():
            loop.call_soon_threadsafe(orders.put_nowait, order)
        loop.call_soon_threadsafe(orders.put_nowait, None)

    # Not the loop's executor, which would wait at the end for a read that is under way.
    threading.Thread(target=read, daemon=True).start()
    await obey_all(orders)
    await server.stop(GRACE)
    await asyncio.to_thread(sentry_sdk.flush)


if __name__ == "__main__":
    asyncio.run(main())
