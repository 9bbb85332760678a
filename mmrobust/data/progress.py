"""What takes long is told: a line on the terminal every few seconds."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

EVERY = 5.0  # seconds

T = TypeVar("T")


def told(items: Sequence[T], what: str) -> Iterator[T]:
    """The items; meanwhile says how many of them are done, if they take longer than EVERY seconds."""
    return told_of(items, len(items), what)


def told_of(items: Iterable[T], count: int, what: str) -> Iterator[T]:
    """The same, of things that are not counted beforehand. On one rank alone."""
    clock = Clock()
    for done, item in enumerate(items):
        clock.tell(f"{what}: {done} of {count}")
        yield item


class Clock:
    """Says what it is told every few seconds, and nothing in between."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def tell(self, text: str) -> None:
        if time.monotonic() - self.last > EVERY and os.environ.get("RANK", "0") == "0":
            print(text, file=sys.stderr, flush=True)
            self.last = time.monotonic()
