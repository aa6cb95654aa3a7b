"""A case is a name and a function that is given a list for the problems that it finds."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

KINDS = {
    "unary": "SayHello",
    "server_stream": "SayHelloStream",
    "client_stream": "CollectHellos",
    "bidi": "Chat",
}

# What ends the first part of a name, the code of the call, the status of its spans, the
# replies that come before it.
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
        self.failed = 0

    def run(self, case: Case) -> None:
        problems = Problems()
        try:
            case.run(problems)
        except Exception:
            problems.add(traceback.format_exc())
        self.tell(case.name, problems.lines)

    def tell(self, name: str, problems: list[str]) -> None:
        if not problems:
            self.passed += 1
            print(f"PASS {name}", flush=True)
            return
        self.failed += 1
        print(f"FAIL {name}", flush=True)
        for problem in problems:
            print(f"     {problem}", flush=True)

    def close(self) -> int:
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        return 1 if self.failed or not self.passed else 0
