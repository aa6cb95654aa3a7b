"""Sentry's own code judges all that Rust processes sent in a run, and the quickstart."""

import io
import json
import subprocess
import unittest
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from . import test_judges
from .cases import Case, Problems, Report
from .joined import is_rust
from .judges import judge, judge_exceptions, judge_quickstart
from .peers import Peers

PATIENCE = 120


@dataclass(frozen=True)
class Sources:
    """How to start each."""

    conventions: list[str]
    quickstart: list[str]
    spotlight: list[str]


def cases(sources: Sources) -> Iterator[Case]:
    yield Case("the judges notice deliberate faults", _self_test)
    yield Case("Spotlight shows one trace of three services", partial(_spotlight, sources))


def _self_test(problems: Problems) -> None:
    log = io.StringIO()
    tests = unittest.defaultTestLoader.loadTestsFromModule(test_judges)
    result = unittest.TextTestRunner(log).run(tests)
    if not result.testsRun or not result.wasSuccessful():
        problems.add(log.getvalue())


def _spotlight(sources: Sources, problems: Problems) -> None:
    result = subprocess.run(sources.spotlight, capture_output=True, text=True, timeout=PATIENCE)
    if result.returncode != 0:
        problems.add(result.stdout + result.stderr)


def judge_all(report: Report, peers: Peers, sources: Sources) -> None:
    """After all other cases."""
    conventions = json.loads(_output(sources.conventions))
    received = peers.ingest.wait_for(lambda _: True)
    envelopes = [one.raw for one in received if is_rust(one.service)]
    quickstart = _output([*sources.quickstart, "--json"])
    verdicts = [*judge(envelopes, conventions), *judge_quickstart(quickstart, conventions)]
    for verdict in [*verdicts, judge_exceptions(verdicts)]:
        report.tell(verdict.name, verdict.problems)


def _output(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return result.stdout
