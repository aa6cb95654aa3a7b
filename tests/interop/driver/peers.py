"""The peers as processes: see the protocol in README.md."""

import json
import os
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from .ingest import Ingest

PATIENCE = 30.0


class PeerFailed(Exception):
    pass


@dataclass(frozen=True)
class Hop:
    """What a server saw of Sentry's headers."""

    service: str
    method: str
    name: str
    sentry_trace: list[str]
    baggage: list[str]
    metadata: list[tuple[str, str]]
    encoding: list[str]


@dataclass(frozen=True)
class Answer:
    code: str
    message: str
    replies: list[str]


@dataclass
class Setup:
    """How a peer's Sentry is set up."""

    rate: float = 1.0
    org: str = ""
    strict: bool = False
    arguments: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)


class Peer:
    """A running peer, which ends with the process that started it."""

    def __init__(
        self, service: str, command: list[str], ingest: Ingest, logs: Path, setup: Setup
    ) -> None:
        self.service = service
        self.setup = setup
        self.log = logs / f"{service}.log"
        self._answers: dict[int, dict[str, Any]] = {}
        self._hops: list[Hop] = []
        self._uri: str | None = None
        # Why it is not worth to wait for anything more.
        self._failure: str | None = None
        self._writing = threading.Lock()
        self._changed = threading.Condition()
        self._last_id = 0
        env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("SENTRY_")},
            "SENTRY_DSN": ingest.dsn(service),
            "SENTRY_TRACES_SAMPLE_RATE": str(setup.rate),
            "SENTRY_ENVIRONMENT": f"{service}-env",
            "SENTRY_RELEASE": f"{service}@1.0",
            "PEER_ORG_ID": setup.org,
            "no_proxy": "127.0.0.1",
            "PEER_STRICT": "1" if setup.strict else "",
            **setup.env,
        }
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, *setup.arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=env,
                text=True,
            )
        assert self._process.stdin and self._process.stdout
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def uri(self) -> str:
        """Waits until it serves."""
        return self._wait(lambda: self._uri, "did not say where it listens")

    @property
    def address(self) -> str:
        """As grpcio wants it."""
        return self.uri.removeprefix("https://").removeprefix("http://")

    def call(
        self,
        kind: str,
        name: str,
        route: list["Peer"],
        metadata: list[tuple[str, str]] | None = None,
        **more: Any,
    ) -> Answer:
        uris = [peer.uri for peer in route]
        return self.call_at(kind, name, uris, metadata, **more)

    def call_at(
        self,
        kind: str,
        name: str,
        uris: list[str],
        metadata: list[tuple[str, str]] | None = None,
        **more: Any,
    ) -> Answer:
        order = {"call": kind, "name": name, "route": uris, "metadata": metadata or [], **more}
        answer = self._order(order)
        return Answer(answer["code"], answer["message"], answer["replies"])

    def flush(self) -> None:
        if not self._order({"flush": True})["flushed"]:
            self._fail("could not send all that it had")

    def hop(self, name: str) -> Hop:
        """What it saw of the call for that name."""

        def find() -> Hop | None:
            return next((hop for hop in self._hops if hop.name == name), None)

        return self._wait(find, f"saw no call for {name!r}")

    def end(self, by_signal: bool) -> None:
        """Has it end by itself."""
        if by_signal:
            self._process.terminate()
        else:
            self._stdin.close()
        try:
            code = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._fail("does not end")
        if code != 0:
            self._fail(f"ended with {code}")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _order(self, order: dict[str, Any]) -> dict[str, Any]:
        with self._changed:
            self._last_id += 1
            number = self._last_id
        try:
            with self._writing:
                self._stdin.write(json.dumps({"id": number, **order}) + "\n")
                self._stdin.flush()
        except OSError as error:
            self._fail(f"took no order, {error}")
        return self._wait(lambda: self._answers.get(number), f"did not answer {order}")

    def _wait(self, look: Any, failure: str) -> Any:
        end = time.monotonic() + PATIENCE
        with self._changed:
            while (found := look()) is None:
                if self._failure or not self._changed.wait(end - time.monotonic()):
                    self._fail(failure)
            return found

    def _fail(self, failure: str) -> NoReturn:
        """Others that wait for it need not: a peer that hangs once would hang in each case."""
        self._failure = self._failure or failure
        tail = self.log.read_text(errors="replace")[-2000:] or "nothing\n"
        raise PeerFailed(f"{self.service} {self._failure}; its log {self.log} ends with:\n{tail}")

    def _read(self) -> None:
        for line in self._stdout:
            try:
                self._take(json.loads(line))
            except (AttributeError, KeyError, TypeError, ValueError):
                with self.log.open("a") as log:
                    log.write(f"not a line of the protocol: {line}")
                break
        with self._changed:
            self._failure = self._failure or "has ended"
            self._changed.notify_all()

    def _take(self, line: dict[str, Any]) -> None:
        with self._changed:
            if "listening" in line:
                self._uri = line["listening"]
            elif "hop" in line:
                self._hops.append(_hop(self.service, line["hop"]))
            else:
                self._answers[line["id"]] = line
            self._changed.notify_all()


def _hop(service: str, hop: dict[str, Any]) -> Hop:
    return Hop(
        service=service,
        method=hop["method"],
        name=hop["name"],
        sentry_trace=hop["sentry-trace"],
        baggage=hop["baggage"],
        metadata=[(key, value) for key, value in hop["metadata"]],
        encoding=hop.get("encoding", []),
    )


class Peers:
    """Starts each peer once, when a case first asks for it."""

    def __init__(self, commands: dict[str, list[str]], ingest: Ingest, logs: Path) -> None:
        self.ingest = ingest
        self._commands = commands
        self._logs = logs
        self._running: dict[str, Peer] = {}

    def get(self, language: str, service: str | None = None, setup: Setup | None = None) -> Peer:
        """The service is called as its language where it has no other name."""
        service = service or language
        if service not in self._running:
            self._running[service] = Peer(
                service, self._commands[language], self.ingest, self._logs, setup or Setup()
            )
        return self._running[service]

    def running(self) -> list[Peer]:
        return list(self._running.values())

    def flush(self, services: list[Peer]) -> None:
        for peer in services:
            peer.flush()
