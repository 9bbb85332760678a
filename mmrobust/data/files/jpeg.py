"""What JPEG decoders paint over without a word: stretches of a file that were never written, and so are zero."""

from __future__ import annotations

STRETCH = bytes(64)
BASELINE = (0xC0, 0xC1)


def zeroed(data: bytes) -> bool:
    """Whether the coded pixels of a JPEG file have a stretch of zeros that no encoder writes.

    Zero bits repeat the first code of the table of the first component's AC coefficients. Where that is not "end of
    block", as in the standard's table, a stretch says that all 63 of many blocks are the same, which no picture is. Where it is,
    as optimised tables have it for plain pictures, zeros are a plain area, and nothing can be said.

    Source: ITU-T T.81, B.2 and F.1.2.2.
    """
    start, first_code, baseline = 2, dict[int, int](), False
    if data.find(STRETCH) < 0:
        return False
    while start + 4 <= len(data) and data[start] == 0xFF:
        marker, length = data[start + 1], int.from_bytes(data[start + 2 : start + 4])
        segment = data[start + 4 : start + 2 + length]
        start += 2 + length
        if marker in BASELINE:
            baseline = True
        elif marker == 0xC4:
            first_code |= _first_codes(segment)
        elif marker == 0xDA:
            found = data.find(STRETCH, start, data.rfind(b"\xff\xd9")) >= 0
            return found and baseline and first_code.get(segment[2] & 15 if len(segment) > 2 else 0, 0) != 0
    return False


def _first_codes(tables: bytes) -> dict[int, int]:
    """Of each table of AC coefficients, by its number: the symbol of the code that is all zeros."""
    found: dict[int, int] = {}
    while len(tables) > 17:
        kind, count = tables[0], sum(tables[1:17])
        if kind >> 4:
            found[kind & 15] = tables[17]
        tables = tables[17 + count :]
    return found
