"""Sentry's own code judges all that Rust processes sent in a run, and the quickstart."""

import io
import json
import os
import signal
import subprocess
import unittest
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from types import ModuleType

from . import test_joined, test_judges
from .cases import Case, Problems, Report
from .joined import is_rust
from .judges import Verdict, judge, judge_exceptions, judge_quickstart
from .peers import Peers

PATIENCE = 120


@dataclass(frozen=True)
class Sources:
    """How to start each."""

    conventions: list[str]
    quickstart: list[str]
    spotlight: list[str]


def cases(sources: Sources) -> Iterator[Case]:
    yield Case("the judges notice deliberate faults", partial(_self_test, test_judges))
    yield Case("the checks of joined traces notice them", partial(_self_test, test_joined))
    yield Case("Spotlight shows one trace of three services", partial(_spotlight, sources))


def _self_test(module: ModuleType, problems: Problems) -> None:
    log = io.StringIO()
    tests = unittest.defaultTestLoader.loadTestsFromModule(module)
    result = unittest.TextTestRunner(log).run(tests)
    if not result.testsRun or not result.wasSuccessful():
        problems.add(log.getvalue())


def _spotlight(sources: Sources, problems: Problems) -> None:
    # In a session of its own, which ends with all that it started.
    with subprocess.Popen(
        sources.spotlight,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "QUICKSTART": sources.quickstart[0]},
        start_new_session=True,
        text=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=PATIENCE)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode != 0:
        problems.add(output)


def judge_all(report: Report, peers: Peers, sources: Sources) -> None:
    """After all other cases."""
    verdicts: list[Verdict] = []

    def run(_: Problems) -> None:
        verdicts.extend(_verdicts(peers, sources))

    report.run(Case("the judges have judged", run))
    for verdict in [*verdicts, judge_exceptions(verdicts)]:
        report.tell(verdict.name, verdict.problems)


def _verdicts(peers: Peers, sources: Sources) -> list[Verdict]:
    conventions = json.loads(_output(sources.conventions))
    received = peers.ingest.wait_for(lambda _: True)
    envelopes = [one.raw for one in received if is_rust(one.service)]
    quickstart = _output([*sources.quickstart, "--json"])
    return [*judge(envelopes, conventions), *judge_quickstart(quickstart, conventions)]


def _output(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return result.stdout
