"""gRPC software without Sentry, which calls the Rust peer."""

import base64
import json
import re
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

import helloworld_pb2
import helloworld_pb2_grpc

from .cases import Case, Problems
from .peers import Peer, Peers, Setup
from .traces import Transaction
from .watch import Watch

HELLO = "/helloworld.Greeter/SayHello"
CHAT = "/helloworld.Greeter/Chat"
HEALTH = "/grpc.health.v1.Health"

LOAD = 2_000
CONNECTIONS = 10
STREAMS = 20

TOOL_PATIENCE = 60


@dataclass(frozen=True)
class Tools:
    """How to start each."""

    buf: list[str]
    h2load: list[str]
    proto: str


def cases(peers: Peers, tools: Tools) -> Iterator[Case]:
    def case(name: str, run) -> Case:
        return Case(name, lambda problems: run(problems, peers, tools))

    yield case("buf curl finds the service by reflection, and calls it", _buf_unary)
    yield case("buf curl, a stream each way", _buf_bidi)
    yield case("buf curl, a status", _buf_status)
    yield case("buf curl, grpc-web over HTTP/1.1", _buf_web)
    yield case("grpc-web as text, in the body of a plain HTTP request", _web_text)
    yield case("a web page is nobody's call", _no_grpc)
    yield case("tonic-health: checked and watched, which leaves no trace", _health)
    yield case("a deadline of grpcio's that runs out", _deadline)
    yield case("an unknown service", _unknown)
    yield case(f"h2load: {LOAD} calls, each a trace, none lost", _h2load)


def _rust(peers: Peers) -> Peer:
    return peers.get("rust", "rust-strangers")


def _web(peers: Peers) -> Peer:
    return peers.get("rust", "rust-web", Setup(arguments=["--web"]))


def _tool(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=TOOL_PATIENCE)


def _curl(tools: Tools, peer: Peer, method: str, data: str, *more: str):
    url = f"{peer.uri}/helloworld.Greeter/{method}"
    return _tool([*tools.buf, "curl", *more, "--data", data, url])


def replies(output: str) -> list[str]:
    """The messages in JSON objects that follow one another."""
    return re.findall(r'"message": *"([^"]*)"', output)


def names(found: list[Transaction]) -> list[tuple]:
    return sorted(
        (one.root.description, one.root.op, one.root.status, one.root.parent) for one in found
    )


def _buf_unary(problems: Problems, peers: Peers, tools: Tools) -> None:
    peer = _rust(peers)
    watch = Watch(peers, peer)
    result = _curl(tools, peer, "SayHello", '{"name": "buf"}', "--protocol", "grpc")
    problems.equal("output", replies(result.stdout), ["Hello buf!"])
    # And none of the reflection that came before.
    problems.equal("transactions", names(watch.take(1)), [(HELLO, "grpc.server", "ok", None)])


def _buf_bidi(problems: Problems, peers: Peers, tools: Tools) -> None:
    peer = _rust(peers)
    watch = Watch(peers, peer)
    data = '{"name": "a"} {"name": "b"}'
    schema = ["--protocol", "grpc", "--schema", tools.proto]
    result = _curl(tools, peer, "Chat", data, *schema)
    problems.equal("output", replies(result.stdout), ["Hello a!", "Hello b!"])
    [chat] = watch.take(1)
    problems.equal("status", (chat.root.op, chat.root.status), ("grpc.server", "ok"))
    counts = [chat.root.data.get(f"rpc.{way}.message_count") for way in ("request", "response")]
    problems.equal("messages", counts, [2, 2])


def _buf_status(problems: Problems, peers: Peers, tools: Tools) -> None:
    peer = _rust(peers)
    watch = Watch(peers, peer)
    trace_id, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    result = _curl(
        tools,
        peer,
        "SayHello",
        '{"name": "notfound"}',
        *("--protocol", "grpc", "--schema", tools.proto),
        *("--header", f"sentry-trace: {trace_id}-{parent}-1"),
        # Of two values: a comma would begin another header.
        *("--header", f"baggage: sentry-trace_id={trace_id}"),
        *("--header", f"baggage: sentry-public_key={'0' * 32}"),
    )
    problems.equal("code", json.loads(result.stderr)["code"], "not_found")
    [transaction] = watch.take(1)
    problems.equal("transaction", names([transaction]), [(HELLO, "grpc.server", "not_found", parent)])
    problems.equal("trace", transaction.root.trace_id, trace_id)
    context = {"trace_id": trace_id, "public_key": "0" * 32}
    problems.equal("context", transaction.context, context)


def _buf_web(problems: Problems, peers: Peers, tools: Tools) -> None:
    peer = _web(peers)
    watch = Watch(peers, peer)
    schema = ["--protocol", "grpcweb", "--schema", tools.proto]
    result = _curl(tools, peer, "SayHello", '{"name": "web"}', *schema)
    problems.equal("output", replies(result.stdout), ["Hello web!"])
    result = _curl(tools, peer, "SayHelloStream", '{"name": "internal"}', *schema)
    problems.equal("code", json.loads(result.stderr)["code"], "internal")
    expected = [
        (HELLO, "grpc.server", "ok", None),
        ("/helloworld.Greeter/SayHelloStream", "grpc.server", "internal_error", None),
    ]
    found = watch.take(2)
    problems.equal("transactions", names(found), expected)
    for transaction in found:
        check_address(problems, peer, transaction)


def check_address(problems: Problems, peer: Peer, transaction: Transaction) -> None:
    host, port = peer.address.split(":")
    data = transaction.root.data
    address = data.get("server.address"), data.get("server.port")
    problems.equal("address", address, (host, int(port)))


def _web_text(problems: Problems, peers: Peers, _: Tools) -> None:
    peer = _web(peers)
    watch = Watch(peers, peer)
    headers = {
        "Content-Type": "application/grpc-web-text",
        "Accept": "application/grpc-web-text",
    }
    data = base64.b64encode(frame(helloworld_pb2.HelloRequest(name="text")))
    with post(peer.uri + HELLO, data, headers) as response:
        body = base64.b64decode(response.read())
    reply = frame(helloworld_pb2.HelloReply(message="Hello text!"))
    problems.equal("reply", body[: len(reply)], reply)
    problems.equal("trailers", b"grpc-status:0" in body[len(reply) :].replace(b" ", b""), True)
    problems.equal("transactions", names(watch.take(1)), [(HELLO, "grpc.server", "ok", None)])


def frame(message) -> bytes:
    """Length-prefixed, as gRPC sends a message."""
    payload = message.SerializeToString()
    return b"\0" + len(payload).to_bytes(4, "big") + payload


def post(uri: str, data: bytes, headers: dict[str, str]):
    request = urllib.request.Request(uri, data, headers)
    return _direct().open(request, timeout=TOOL_PATIENCE)


def _direct() -> urllib.request.OpenerDirector:
    """Past any proxy."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _no_grpc(problems: Problems, peers: Peers, _: Tools) -> None:
    peer = _web(peers)
    watch = Watch(peers, peer)
    try:
        with _direct().open(peer.uri + "/index.html", timeout=TOOL_PATIENCE) as response:
            problems.add(f"answered with {response.status}")
    except urllib.error.HTTPError as error:
        problems.equal("HTTP status", error.code, 400)
    problems.equal("transactions", names(watch.take(0)), [])


def _health(problems: Problems, peers: Peers, _: Tools) -> None:
    peer = _rust(peers)
    watch = Watch(peers, peer)
    with grpc.insecure_channel(peer.address) as channel:
        check = channel.unary_unary(f"{HEALTH}/Check")
        problems.equal("serving", check(b""), b"\x08\x01")
        watching = channel.unary_stream(f"{HEALTH}/Watch")(b"")
        problems.equal("first state", next(watching), b"\x08\x01")
        watching.cancel()
        # After that stream was broken off.
        problems.equal("still serving", check(b""), b"\x08\x01")
    problems.equal("transactions", names(watch.take(0)), [])


def _deadline(problems: Problems, peers: Peers, _: Tools) -> None:
    peer = _rust(peers)
    watch = Watch(peers, peer)
    with grpc.insecure_channel(peer.address) as channel:
        done = threading.Event()

        def requests() -> Iterator[helloworld_pb2.HelloRequest]:
            yield helloworld_pb2.HelloRequest(name="patience")
            done.wait(TOOL_PATIENCE)

        replies = helloworld_pb2_grpc.GreeterStub(channel).Chat(requests(), timeout=0.5)
        problems.equal("first reply", next(replies).message, "Hello patience!")
        try:
            next(replies)
            problems.add("a second reply")
        except grpc.RpcError as error:
            problems.equal("code", error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        done.set()
    expected = [(CHAT, "grpc.server", "deadline_exceeded", None)]
    problems.equal("transactions", names(watch.take(1)), expected)


def _unknown(problems: Problems, peers: Peers, _: Tools) -> None:
    peer = _rust(peers)
    watch = Watch(peers, peer)
    with grpc.insecure_channel(peer.address) as channel:
        try:
            channel.unary_unary("/no.Service/Method")(b"")
            problems.add("answered")
        except grpc.RpcError as error:
            problems.equal("code", error.code(), grpc.StatusCode.UNIMPLEMENTED)
    [transaction] = watch.take(1)
    expected = [("_OTHER", "grpc.server", "unimplemented", None)]
    problems.equal("transactions", names([transaction]), expected)
    path = transaction.root.data.get("rpc.method_original")
    problems.equal("path", path, "/no.Service/Method")


def _h2load(problems: Problems, peers: Peers, tools: Tools) -> None:
    peer = _rust(peers)
    watch = Watch(peers, peer)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "request"
        data.write_bytes(frame(helloworld_pb2.HelloRequest(name="load")))
        headers = ["content-type: application/grpc", "te: trailers"]
        result = _tool(
            [
                *tools.h2load,
                *("-n", str(LOAD), "-c", str(CONNECTIONS), "-m", str(STREAMS), "-t", "1"),
                *(part for header in headers for part in ("-H", header)),
                *("-d", str(data), peer.uri + HELLO),
            ]
        )
    done = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", result.stdout)
    problems.equal("h2load", done and done.groups(), (str(LOAD), "0", "0"))
    found = watch.take(LOAD)
    problems.equal("transactions", set(names(found)), {(HELLO, "grpc.server", "ok", None)})
    problems.equal("traces", len({one.root.trace_id for one in found}), LOAD)
