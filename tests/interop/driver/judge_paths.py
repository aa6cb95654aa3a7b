"""Places in an event, and its times."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

Path = tuple[str | int, ...]


def at(value: Any, *path: str | int) -> Any:
    """What is there, or `None`."""
    for key in path:
        try:
            value = value[key]
        except (IndexError, KeyError, TypeError):
            return None
    return value


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Empty objects and lists are leaves too."""
    if isinstance(value, dict) and value:
        for key, child in value.items():
            yield from leaves(child, (*path, key))
    elif isinstance(value, list) and value:
        for index, child in enumerate(value):
            yield from leaves(child, (*path, index))
    else:
        yield path, value


def text_of(path: Path) -> str:
    """The same for all elements of a list."""
    return ".".join("*" if isinstance(key, int) else key for key in path)


def seconds(timestamp: Any) -> float | None:
    """Of either form that Sentry takes. `datetime` alone drops nanoseconds."""
    if isinstance(timestamp, int | float):
        return timestamp
    if not isinstance(timestamp, str):
        return None
    whole, _, fraction = timestamp.removesuffix("Z").partition(".")
    try:
        return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")
    except ValueError:
        return None
