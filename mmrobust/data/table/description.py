"""What was found out about a user's table, in words: splits, classes, modalities, and how to set them otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmrobust.data.table.columns import Column
from mmrobust.data.table.csv_file import TARGETS
from mmrobust.data.table.entries import SPLITS, Entries
from mmrobust.data.table.samples import OPTIONS, Samples


def description(samples: Samples, inferred: Mapping[str, Any], batch_size: int, seed: int) -> str:
    """A short table of what was inferred, and how to set it otherwise."""
    entries = samples.entries
    counts = ", ".join(f"{split} {len(entries.get(split, []))}" for split in SPLITS)
    how = f" ({'; '.join(samples.how)}, data.seed={seed})" if samples.how else ""
    rows = sum(map(len, entries.values()))
    lines = [("data", f"{samples.path}: {rows} rows, {TARGETS[samples.target]}"), ("splits", counts + how)]
    if (train := len(entries["train"])) < batch_size:
        lines.append(("batch", f"{train}, fewer than data.batch_size={batch_size}"))
    lines += described(inferred, entries) + [("warning", shared) for shared in samples.shared]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines)


def described(inferred: Mapping[str, Any], entries: Entries) -> list[tuple[str, str]]:
    """Classes, modalities and how to set them otherwise, as lines of a table."""
    classes = list(inferred["classes"])
    names = ", ".join(classes if len(classes) < 9 else [*classes[:7], "...", classes[-1]])
    lines = [("classes", f"{len(classes)}: {names}")]
    if inferred["class_weights"]:
        lines.append(("weights", f"{few_numbers(inferred['class_weights'])}, of the classes in the loss"))
    for m, plain in inferred["modalities"].items():
        column = Column.from_dict(plain)
        missing = sum(e.files[m] is None for rows in entries.values() for e in rows)
        parts = [
            f"{column.kind} {'×'.join(map(str, column.shape))}"
            + stretched(inferred.get("frames", {}).get(m), column.shape),
            *(
                [f"mean {few_numbers(column.mean)}, std {few_numbers(column.std)}"]
                if column.modality.traits.noisy
                else []
            ),
            *([f"{column.sample_rate} Hz, {column.seconds:g} s"] if column.kind == "spectrogram" else []),
            *([f"unit {column.unit:g} m"] if column.kind == "depth" else []),
            f"missing in {missing} rows" if missing else "in all rows",
        ]
        lines.append((m, "; ".join(parts)))
    keys = f"data.modalities.{next(iter(inferred['modalities']))}.size=112 ({', '.join(OPTIONS)})"
    return [
        *lines,
        ("to change", f"{keys}, data.classes=[...], data.columns=[...], see conf/data/manifest.yaml"),
    ]


def stretched(frame: Sequence[int] | None, shape: Sequence[int]) -> str:
    """Of maps, the size of the files where it is another; and that their aspect ratio changes, if it does."""
    if not frame or tuple(frame) == tuple(shape[-2:]):
        return ""
    before, after = frame[1] / frame[0], shape[-1] / shape[-2]
    change = f", stretched: width / height {before:.3g} becomes {after:.3g}"
    return f" from {frame[0]}×{frame[1]}" + (change if abs(after / before - 1) > 0.01 else "")


def few_numbers(values: Sequence[float]) -> str:
    """Three of them."""
    return " ".join(f"{v:.3g}" for v in values[:3]) + (" ..." if len(values) > 3 else "")
