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
    last = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - last > EVERY and os.environ.get("RANK", "0") == "0":
            print(f"{what}: {done} of {count}", file=sys.stderr, flush=True)
            last = time.monotonic()
        yield item
