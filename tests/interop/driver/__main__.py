"""`python -m driver --commands <file> --logs <folder> [<part of a case's name>]`: see README.md."""

import argparse
import json
import sys
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
from .peers import Peer, Peers


def main() -> int:
    parser = argparse.ArgumentParser(prog="driver")
    parser.add_argument("--commands", type=Path, required=True, help="JSON: how to start each program")
    parser.add_argument("--logs", type=Path, required=True, help="folder for what the peers log")
    parser.add_argument("only", nargs="?", default="", help="part of the names of the cases to run")
    arguments = parser.parse_args()

    commands = json.loads(arguments.commands.read_text())
    sources = Sources(**commands["sources"])
    report = Report()
    peers = Peers(commands["peers"], Ingest(), arguments.logs)
    try:
        for case in cases(peers, Tools(**commands["tools"]), sources):
            if arguments.only in case.name:
                report.run(case)
        for peer in peers.running():
            report.run(Case(f"{peer.service} ends by itself", partial(end, peer)))
    finally:
        for peer in peers.running():
            peer.kill()
    report.tell("every request to the ingest is an envelope", peers.ingest.problems)
    if not arguments.only:
        cases_judges.judge_all(report, peers, sources)
    return report.close()


def cases(peers: Peers, tools: Tools, sources: Sources) -> Iterator[Case]:
    yield from cases_peers.cases(peers)
    yield from cases_sampling.cases(peers)
    yield from cases_continuation.cases(peers)
    yield from cases_strangers.cases(peers, tools)
    yield from cases_transport.cases(peers)
    yield from cases_judges.cases(sources)


def end(peer: Peer, problems: Problems) -> None:
    problems.equal("exit code", peer.end(), 0)


if __name__ == "__main__":
    sys.exit(main())
