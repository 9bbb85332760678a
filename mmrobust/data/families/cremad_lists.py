"""The names of clips in CREMA-D, and the lists of them that OGM-GE's code comes with. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from mmrobust.data.files.lists import parsed, read_lines, unique
from mmrobust.errors import Problems

# Ids are like 1001_DFA_ANG_XX: actor id[:4], sentence, emotion id[9:12], level.
EMOTIONS = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")  # the order of OGM-GE and all that build on it
SOURCE = "github.com/CheyneyComputerScience/CREMA-D"
LISTS = "data/CREMAD of github.com/GeWu-Lab/OGM-GE_CVPR2022"


def read_labels(source: Path, problems: Problems) -> dict[str, int]:
    """The clips of a list of rows `id,EMOTION` or of the folder AudioWAV; adds to `problems`."""
    lines: list[str] = []
    if source.is_dir():
        lines = [f"{path.stem},{path.stem[9:12]}" for path in sorted(source.glob("[!.]*.wav"))]
    elif source.is_file():
        lines = read_lines(source)
    else:
        problems.append(f"no {source}; take it from {LISTS}, or go without lists: data.split=actor")
        return {}

    def parse(line: str) -> tuple[str, int]:
        stem, _, emotion = (part.strip() for part in line.partition(","))
        if not stem:
            raise ValueError
        return stem, EMOTIONS.index(emotion)

    expected = f"`id,EMOTION` with one of {', '.join(EMOTIONS)}"
    return unique(source, parsed(source, lines, parse, problems, expected=expected), problems)
