"""A case is a name and a function that is given a list for the problems that it finds."""

import subprocess
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .peers import PeerFailed

# For all cases together.
PATIENCE = 20 * 60

KINDS = {
    "unary": "SayHello",
    "server_stream": "SayHelloStream",
    "client_stream": "CollectHellos",
    "bidi": "Chat",
}

# By the first part of a call's name: its code, its message, the status of Rust's spans.
ENDS = {
    "Ferris": ("OK", "", "ok"),
    "notfound": ("NOT_FOUND", "nobody has this name", "not_found"),
    "internal": ("INTERNAL", "lookup failed", "internal_error"),
}


class Problems:
    """What is wrong in a case."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        self.lines.append(line)

    def equal(self, what: str, actual: Any, expected: Any) -> bool:
        if actual == expected:
            return True
        self.add(f"{what}: {actual!r} instead of {expected!r}")
        return False


@dataclass(frozen=True)
class Case:
    name: str
    run: Callable[[Problems], None]


class Report:
    """Prints a line for each case, and counts."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed: list[str] = []
        self._end = time.monotonic() + PATIENCE

    def run(self, case: Case) -> None:
        problems = Problems()
        if time.monotonic() > self._end:
            problems.add("there was no time left for it")
        else:
            self._try(case, problems)
        self.tell(case.name, problems.lines)

    def _try(self, case: Case, problems: Problems) -> None:
        try:
            case.run(problems)
        except PeerFailed as failed:
            problems.add(str(failed))
        except subprocess.CalledProcessError as error:
            problems.add(f"{error}\n{error.stdout}{error.stderr}")
        except Exception:
            problems.add(traceback.format_exc())

    def tell(self, name: str, problems: list[str]) -> None:
        if not problems:
            self.passed += 1
            print(f"PASS {name}", flush=True)
            return
        self.failed.append(name)
        print(f"FAIL {name}", flush=True)
        for problem in problems:
            print(f"     {problem}", flush=True)

    def close(self) -> int:
        if self.failed:
            print("failed:", *self.failed, sep="\n  ")
        print(f"{self.passed} passed, {len(self.failed)} failed", flush=True)
        return 1 if self.failed else 0
