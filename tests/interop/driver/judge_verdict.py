"""What a judge says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

LONGEST_EXAMPLE = 200


@dataclass(frozen=True)
class Verdict:
    """Of one judge on one kind of things. It passes where there are no problems."""

    name: str
    problems: list[str]
    # Names of the exceptions without which there were more problems.
    exceptions: frozenset[str] = frozenset()


class Findings:
    """Problems, each told once, with its first example and a count."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, int]] = {}
        self._exceptions: set[str] = set()

    def add(self, problem: str, example: Any = None) -> None:
        text = "" if example is None else f": {shortened(example)}"
        first, count = self._found.get(problem, (text, 0))
        self._found[problem] = (first, count + 1)

    def excuse(self, exception: str) -> None:
        self._exceptions.add(exception)

    def verdict(self, name: str, judged: int) -> Verdict:
        """`name` has a place for how many things were judged: none is too few."""
        if judged == 0:
            self.add("there was nothing to judge")
        problems = [
            f"{problem}{example}" + (f" ({count} times)" if count > 1 else "")
            for problem, (example, count) in self._found.items()
        ]
        return Verdict(name.format(judged), problems, frozenset(self._exceptions))


def shortened(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_EXAMPLE else f"{text[:LONGEST_EXAMPLE]}..."
