"""A Sentry ingest on loopback, which keeps each envelope as it came."""

import gzip
import hashlib
import re
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from sentry_sdk.envelope import Envelope

# For what has been flushed to arrive.
PATIENCE = 5.0


@dataclass
class Received:
    """An envelope, from the service that the public key in its DSN stands for."""

    service: str
    raw: bytes
    envelope: Envelope


class Ingest:
    """Serves until the process ends. What it cannot read is a problem, and kept as one."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.problems: list[str] = []
        self._arrived = threading.Condition()
        self._services: dict[str, str] = {}
        ingest = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # An answer in two small packets takes 40 ms.
            wbufsize = -1

            def do_POST(self) -> None:
                try:
                    body = _body(self)
                    service = ingest._services[_key(self)]
                    received = Received(service, body, Envelope.deserialize(body))
                except Exception as error:
                    ingest._keep_problem(f"{self.path}: {error!r}")
                    self._answer(400)
                    return
                ingest._keep(received)
                self._answer(200)

            def _answer(self, status: int) -> None:
                self.send_response(status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def dsn(self, service: str) -> str:
        key = public_key(service)
        self._services[key] = service
        return f"http://{key}@127.0.0.1:{self._server.server_port}/1"

    def wait_for(self, done: Callable[[list[Received]], bool]) -> list[Received]:
        """What was received, once that is enough, or patience is at its end."""
        end = time.monotonic() + PATIENCE
        with self._arrived:
            while not done(self.received):
                if not self._arrived.wait(end - time.monotonic()):
                    break
            return list(self.received)

    def write(self, folder: Path) -> None:
        """What came, for people: a file for each service, with an empty line between envelopes."""
        for service in {one.service for one in self.received}:
            raw = [one.raw for one in self.received if one.service == service]
            (folder / f"{service}.envelopes").write_bytes(b"\n\n".join(raw))

    def _keep(self, received: Received) -> None:
        with self._arrived:
            self.received.append(received)
            self._arrived.notify_all()

    def _keep_problem(self, problem: str) -> None:
        with self._arrived:
            self.problems.append(problem)


def public_key(service: str) -> str:
    """As Sentry gives them: 32 hexadecimal digits."""
    return hashlib.md5(service.encode()).hexdigest()


def _body(request: BaseHTTPRequestHandler) -> bytes:
    if request.headers.get("Transfer-Encoding") == "chunked":
        body = _chunks(request)
    else:
        body = request.rfile.read(int(request.headers["Content-Length"]))
    match request.headers.get("Content-Encoding"):
        case None | "identity":
            return body
        case "gzip":
            return gzip.decompress(body)
        case "deflate":
            return zlib.decompress(body)
        case other:
            raise ValueError(f"unknown content encoding {other}")


def _chunks(request: BaseHTTPRequestHandler) -> bytes:
    body = b""
    while size := int(request.rfile.readline().split(b";")[0], 16):
        body += request.rfile.read(size)
        request.rfile.readline()
    request.rfile.readline()
    return body


def _key(request: BaseHTTPRequestHandler) -> str:
    header = request.headers.get("X-Sentry-Auth", "")
    if match := re.search(r"sentry_key=([^,\s]+)", header):
        return match[1]
    return parse_qs(urlsplit(request.path).query)["sentry_key"][0]
