"""`python -m driver --commands <file> --logs <folder> [<part of a case's name>]`: see README.md."""

import argparse
import itertools
import json
import signal
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from . import (
    cases_continuation,
    cases_judges,
    cases_peers,
    cases_sampling,
    cases_strangers,
    cases_transport,
)
from .cases import Case, Problems, Report
from .cases_judges import Sources
from .cases_strangers import Tools
from .ingest import Ingest
from .joined import check_late
from .peers import Peer, Peers


def main() -> int:
    parser = argparse.ArgumentParser(prog="driver")
    parser.add_argument("--commands", type=Path, required=True, help="JSON: how to start each program")
    parser.add_argument("--logs", type=Path, required=True, help="folder for what the peers log")
    parser.add_argument("only", nargs="?", default="", help="part of the names of the cases to run")
    arguments = parser.parse_args()

    # As at an interrupt: whatever was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    commands = json.loads(arguments.commands.read_text())
    sources = Sources(**commands["sources"])
    report = Report()
    peers = Peers(commands["peers"], Ingest(), arguments.logs)
    with tempfile.TemporaryDirectory(prefix="interop-") as folder:
        every = list(cases(peers, Tools(**commands["tools"]), sources, Path(folder)))
        chosen = [case for case in every if arguments.only in case.name]
        if not chosen:
            print(f"no case has {arguments.only!r} in its name", file=sys.stderr)
            return 2
        try:
            for case in itertools.chain(chosen, ends(peers)):
                report.run(case)
        finally:
            for peer in peers.running():
                peer.kill()
            peers.ingest.write(arguments.logs)
    report.tell("every request to the ingest is an envelope", peers.ingest.problems)
    if not arguments.only:
        cases_judges.judge_all(report, peers, sources)
    return report.close()


def cases(peers: Peers, tools: Tools, sources: Sources, folder: Path) -> Iterator[Case]:
    yield from cases_peers.cases(peers)
    yield from cases_sampling.cases(peers)
    yield from cases_continuation.cases(peers)
    yield from cases_strangers.cases(peers, tools)
    yield from cases_transport.cases(peers, folder)
    yield from cases_judges.cases(sources)


def ends(peers: Peers) -> Iterator[Case]:
    """Of the peers that run by then."""
    for peer in peers.running():
        by_signal = "org" in peer.service
        how = "at a signal" if by_signal else "with its orders"
        yield Case(f"{peer.service} ends {how}", partial(end, peer, by_signal))
    yield Case("no trace has more than it should", partial(check_late, peers=peers))


def end(peer: Peer, by_signal: bool, _: Problems) -> None:
    peer.end(by_signal)


if __name__ == "__main__":
    sys.exit(main())
