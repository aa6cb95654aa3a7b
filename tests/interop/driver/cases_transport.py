"""TLS, Unix sockets, compression, large messages, and metadata up to the limits of HTTP/2."""

import gzip
import struct
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

import helloworld_pb2
import helloworld_pb2_grpc

from .cases import Case, Problems
from .cases_strangers import HELLO, check_address, frame, names, post
from .joined import check, make
from .peers import Answer, Peers, Setup
from .traces import sentry_members
from .watch import Watch

MIB = 1 << 20

# What the Rust peer takes at most, and what tonic takes of headers.
LARGEST_MESSAGE = 64 * MIB
LARGEST_HEADERS = 16 * 1024

UNLIMITED = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
]


def cases(peers: Peers, folder: Path) -> Iterator[Case]:
    def case(name: str, run: Callable) -> Case:
        return Case(name, lambda problems: run(problems, peers, folder))

    yield case("TLS: grpcio calls, Rust calls", _tls)
    yield case("a Unix socket: grpcio calls, Rust calls", _unix)
    yield case("Rust calls grpcio over TLS, a Unix socket, and with gzip both ways", _to_stranger)
    yield case("gzip from grpcio", _gzip_from_stranger)
    yield case("gzip to who asks for it", _gzip_to_stranger)
    yield case("gzip and zstd from Rust to Rust", _compressed_by_rust)
    yield case("a message of 20 MiB, and one above the server's limit", _large)
    yield case("21 MiB from Rust through Rust", _large_through)
    yield case("metadata below and above the limit of the server", _metadata)
    yield case("baggage of 8192 bytes goes on byte for byte", _full_baggage)
    yield case("metadata of an application beside Sentry's", _metadata_out)


def _certificate(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    if not certificate.exists():
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
                *("-addext", "basicConstraints=critical,CA:FALSE"),
                *("-keyout", str(key), "-out", str(certificate)),
            ],
            check=True,
            capture_output=True,
        )
    return certificate, key


def _stub(channel: grpc.Channel) -> helloworld_pb2_grpc.GreeterStub:
    return helloworld_pb2_grpc.GreeterStub(channel)


def _hello(name: str) -> helloworld_pb2.HelloRequest:
    return helloworld_pb2.HelloRequest(name=name)


def _tls(problems: Problems, peers: Peers, folder: Path) -> None:
    certificate, key = _certificate(folder)
    arguments = ["--tls", str(certificate), str(key)]
    server = peers.get("rust", "rust-tls", Setup(arguments=arguments))
    watch = Watch(peers, server)
    credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
    with grpc.secure_channel(server.address, credentials) as channel:
        problems.equal("reply", _stub(channel).SayHello(_hello("tls")).message, "Hello tls!")
    [transaction] = watch.take(1)
    problems.equal("transaction", names([transaction]), [(HELLO, "grpc.server", "ok", None)])
    check_address(problems, server, transaction)

    caller = peers.get("rust", "rust-tls-client", Setup(env={"PEER_CA": str(certificate)}))
    for kind in ("unary", "bidi"):
        check(problems, peers, make([caller, server], kind, "Ferris"))
    check(problems, peers, make([caller, server], "server_stream", "internal"))


def _unix(problems: Problems, peers: Peers, folder: Path) -> None:
    setup = Setup(arguments=["--unix", str(folder / "socket")])
    server = peers.get("rust", "rust-unix", setup)
    watch = Watch(peers, server)
    # By default it sends the escaped path of the socket, which h2 takes for no authority.
    authority = [("grpc.default_authority", "localhost")]
    with grpc.insecure_channel(server.uri, options=authority) as channel:
        problems.equal("reply", _stub(channel).SayHello(_hello("unix")).message, "Hello unix!")
    problems.equal("transaction", names(watch.take(1)), [(HELLO, "grpc.server", "ok", None)])
    caller = peers.get("rust", "rust-unix-client")
    calls = Watch(peers, caller)
    answer = caller.call("bidi", "unix-socket", [server])
    problems.equal("answer", answer, Answer("OK", "", ["Hello unix-socket!"] * 3))
    [served], [called] = watch.take(1), calls.take(1)
    client = called.child(op="grpc.client", status="ok")
    problems.equal("parent", served.root.parent, client and client.id)
    problems.equal("address", client and client.data.get("server.address"), None)
    problems.equal("address of the server", served.root.data.get("server.address"), None)


def _to_stranger(problems: Problems, peers: Peers, folder: Path) -> None:
    certificate, key = _certificate(folder)
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    socket = f"unix:{folder / 'stranger'}"
    stranger = Stranger()
    port = stranger.server.add_secure_port("127.0.0.1:0", credentials)
    stranger.server.add_insecure_port(socket)
    stranger.server.start()
    caller = peers.get("rust", "rust-tls-client", Setup(env={"PEER_CA": str(certificate)}))
    watch = Watch(peers, caller)
    for number, uri in enumerate([f"https://127.0.0.1:{port}", socket]):
        name = f"stranger-{number}"
        answer = caller.call_at("unary", name, [uri], compression="gzip")
        problems.equal(f"answer of {uri}", answer, Answer("OK", "", [f"Hello {name}!"]))
        [transaction] = watch.take(1)
        client = transaction.child(op="grpc.client", status="ok")
        seen = stranger.seen[name]
        trace = seen["sentry-trace"].split("-")
        problems.equal("span in the header", trace[1], client and client.id)
        problems.equal("context", sentry_members([seen["baggage"]])["trace_id"], trace[0])
    stranger.server.stop(None).wait()


class Stranger(helloworld_pb2_grpc.GreeterServicer):
    """A server of grpcio, without Sentry."""

    def __init__(self) -> None:
        self.seen: dict[str, dict[str, str]] = {}
        self.server = grpc.server(ThreadPoolExecutor(2), compression=grpc.Compression.Gzip)
        helloworld_pb2_grpc.add_GreeterServicer_to_server(self, self.server)

    def SayHello(self, request, context):  # noqa: N802
        self.seen[request.name] = dict(context.invocation_metadata())
        return helloworld_pb2.HelloReply(message=f"Hello {request.name}!")


def _gzip_from_stranger(problems: Problems, peers: Peers, _: Path) -> None:
    server = peers.get("rust", "rust-strangers")
    watch = Watch(peers, server)
    name = "gzip" * 1000
    with grpc.insecure_channel(
        server.address, compression=grpc.Compression.Gzip
    ) as channel:
        replies = _stub(channel).Chat(iter([_hello(name)] * 3))
        problems.equal("replies", [reply.message for reply in replies], [f"Hello {name}!"] * 3)
    problems.equal("encoding", server.hop(name[:100]).encoding, ["gzip"])
    [transaction] = watch.take(1)
    _check_counts(problems, transaction, 3, 3)


def _gzip_to_stranger(problems: Problems, peers: Peers, _: Path) -> None:
    """By grpc-web, whose frames can be looked at."""
    server = peers.get("rust", "rust-web", Setup(arguments=["--web"]))
    watch = Watch(peers, server)
    name = "gzip" * 1000
    headers = {"Content-Type": "application/grpc-web+proto", "grpc-accept-encoding": "gzip"}
    with post(server.uri + HELLO, frame(_hello(name)), headers) as response:
        problems.equal("encoding", response.headers.get("grpc-encoding"), "gzip")
        flag, length = struct.unpack(">BI", response.read(5))
        reply = helloworld_pb2.HelloReply.FromString(gzip.decompress(response.read(length)))
    problems.equal("is compressed", flag, 1)
    problems.equal("reply", reply.message, f"Hello {name}!")
    [transaction] = watch.take(1)
    _check_counts(problems, transaction, 1, 1)


def _check_counts(problems: Problems, transaction, requests: int, responses: int) -> None:
    data = transaction.root.data
    counts = data.get("rpc.request.message_count"), data.get("rpc.response.message_count")
    problems.equal("messages", counts, (requests, responses))


def _compressed_by_rust(problems: Problems, peers: Peers, _: Path) -> None:
    server = peers.get("rust", "rust-strangers")
    for encoding in ("gzip", "zstd"):
        watch = Watch(peers, server)
        name = f"{encoding}-" + "x" * 5000
        answer = peers.get("rust").call("bidi", name, [server], compression=encoding)
        problems.equal("answer", answer, Answer("OK", "", [f"Hello {name}!"] * 3))
        hop = server.hop(name[:100])
        problems.equal("encoding", hop.encoding, [encoding])
        [transaction] = watch.take(1)
        _check_counts(problems, transaction, 3, 3)
        parent = hop.sentry_trace[0].split("-")[1]
        problems.equal("parent", transaction.root.parent, parent)


def _large(problems: Problems, peers: Peers, _: Path) -> None:
    server = peers.get("rust", "rust-strangers")
    watch = Watch(peers, server)
    name = "large" * (4 * MIB)
    with grpc.insecure_channel(server.address, options=UNLIMITED) as channel:
        reply = _stub(channel).SayHello(_hello(name))
        problems.equal("length of the reply", len(reply.message), len(name) + len("Hello !"))
        try:
            _stub(channel).SayHello(_hello("x" * (LARGEST_MESSAGE + 1)))
            problems.add("a message above the limit was taken")
        except grpc.RpcError as error:
            problems.equal("code", error.code(), grpc.StatusCode.OUT_OF_RANGE)
    expected = [(HELLO, "grpc.server", "ok", None), (HELLO, "grpc.server", "out_of_range", None)]
    found = watch.take(2)
    problems.equal("transactions", names(found), expected)
    _check_counts(problems, next(one for one in found if one.root.status == "ok"), 1, 1)


def _large_through(problems: Problems, peers: Peers, _: Path) -> None:
    route = [peers.get("rust", "rust-2"), peers.get("rust", "rust-strangers")]
    watch = Watch(peers, route[-1])
    name = "through" * (3 * MIB)
    answer = peers.get("rust").call("unary", name, route)
    problems.equal("code", answer.code, "OK")
    problems.equal("lengths", [len(reply) for reply in answer.replies], [len(name) + 7])
    [transaction] = watch.take(1)
    _check_counts(problems, transaction, 1, 1)
    context = sentry_members(route[-1].hop(name[:100]).baggage)
    problems.equal("trace", transaction.root.trace_id, context.get("trace_id"))


def _metadata(problems: Problems, peers: Peers, _: Path) -> None:
    server = peers.get("rust", "rust-strangers")
    watch = Watch(peers, server)
    with grpc.insecure_channel(server.address) as channel:
        below = [(f"x-{number:04}", "v" * 1000) for number in range(14)]
        reply = _stub(channel).SayHello(_hello("headers"), metadata=below)
        problems.equal("reply", reply.message, "Hello headers!")
        above = [*below, ("x-last", "v" * (LARGEST_HEADERS - 14 * 1000))]
        try:
            _stub(channel).SayHello(_hello("headers"), metadata=above)
            problems.add("headers above the limit were taken")
        except grpc.RpcError as error:
            # Of the HTTP status 431, by which h2 refuses it.
            problems.equal("code", error.code(), grpc.StatusCode.UNKNOWN)
        reply = _stub(channel).SayHello(_hello("after"))
        problems.equal("reply after it", reply.message, "Hello after!")
    # What is above the limit is refused below all middleware.
    problems.equal("transactions", names(watch.take(2)), [(HELLO, "grpc.server", "ok", None)] * 2)


def _full_baggage(problems: Problems, peers: Peers, _: Path) -> None:
    server, next_one = peers.get("rust", "rust-strangers"), peers.get("rust", "rust-2")
    trace_id, span_id = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    head = f"sentry-trace_id={trace_id},sentry-public_key={'0' * 32},sentry-sample_rand=0.5,sentry-transaction="
    baggage = head + "t%20" * ((8192 - len(head)) // 4)
    baggage += "t" * (8192 - len(baggage))
    metadata = [
        ("x-route", next_one.uri),
        ("sentry-trace", f"{trace_id}-{span_id}-1"),
        ("baggage", baggage),
    ]
    with grpc.insecure_channel(server.address) as channel:
        _stub(channel).SayHello(_hello("full-baggage"), metadata=metadata)
    problems.equal("baggage in", server.hop("full-baggage").baggage, [baggage])
    problems.equal("baggage on", next_one.hop("full-baggage").baggage, [baggage])


def _metadata_out(problems: Problems, peers: Peers, _: Path) -> None:
    caller = peers.get("rust")
    for service in ("go", "node", "python", "python-aio", "rust-2"):
        server = peers.get(service.removesuffix("-2"), service)
        name = f"metadata-{service}"
        metadata = [(f"x-{number}", "v" * 500) for number in range(10)]
        answer = caller.call("unary", name, [server], metadata)
        problems.equal(service, answer, Answer("OK", "", [f"Hello {name}!"]))
        hop = server.hop(name)
        problems.equal(f"metadata at {service}", hop.metadata, metadata)
        problems.equal(f"traces at {service}", len(hop.sentry_trace), 1)
