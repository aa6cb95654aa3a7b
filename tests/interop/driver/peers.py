"""The peers as processes: see the protocol in README.md."""

import json
import os
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
        self.log = logs / f"{service}.log"
        self._answers: dict[int, dict[str, Any]] = {}
        self._hops: list[Hop] = []
        self._address: str | None = None
        self._ended = False
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
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def uri(self) -> str:
        """Waits until it serves."""
        address = self._wait(lambda: self._address, "did not say where it listens")
        return address if address.startswith("unix:") else f"http://{address}"

    def call(
        self,
        kind: str,
        name: str,
        route: list["Peer"],
        metadata: list[tuple[str, str]] | None = None,
        **more: Any,
    ) -> Answer:
        uris = [peer if isinstance(peer, str) else peer.uri for peer in route]
        order = {"call": kind, "name": name, "route": uris, "metadata": metadata or [], **more}
        answer = self._order(order)
        return Answer(answer["code"], answer["message"], answer["replies"])

    def flush(self) -> None:
        self._order({"flush": True})

    def hop(self, name: str) -> Hop:
        """What it saw of the call for that name."""

        def find() -> Hop | None:
            return next((hop for hop in self._hops if hop.name == name), None)

        return self._wait(find, f"saw no call for {name!r}")

    def end(self) -> int:
        """Its exit code, after the end of its orders."""
        self._process.stdin.close()
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise PeerFailed(f"{self.service} does not end, see {self.log}") from None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _order(self, order: dict[str, Any]) -> dict[str, Any]:
        with self._changed:
            self._last_id += 1
            number = self._last_id
        self._process.stdin.write(json.dumps({"id": number, **order}) + "\n")
        self._process.stdin.flush()
        return self._wait(lambda: self._answers.get(number), f"did not answer {order}")

    def _wait(self, look: Any, failure: str) -> Any:
        end = time.monotonic() + PATIENCE
        with self._changed:
            while (found := look()) is None:
                if self._ended or not self._changed.wait(end - time.monotonic()):
                    tail = self.log.read_text(errors="replace")[-2000:]
                    raise PeerFailed(f"{self.service} {failure}; its log ends with:\n{tail}")
            return found

    def _read(self) -> None:
        for line in self._process.stdout:
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError):
                with self.log.open("a") as log:
                    log.write(f"not a line of the protocol: {line}")
                break
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _take(self, line: dict[str, Any]) -> None:
        with self._changed:
            if "listening" in line:
                self._address = line["listening"]
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

    def languages(self) -> list[str]:
        return list(self._commands)

    def running(self) -> list[Peer]:
        return list(self._running.values())

    def flush(self, services: list[Peer]) -> None:
        for peer in services:
            peer.flush()
