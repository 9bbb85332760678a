"""What a user's table leaves open and its files say: kinds, sizes, means and standard deviations, classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmrobust import keyed
from mmrobust.data.families.maps import median_frequency
from mmrobust.data.files.arrays import header, last_shape, shape_of, type_of
from mmrobust.data.files.audio import read_audio
from mmrobust.data.progress import told
from mmrobust.data.table.column_inference import describe, side_for, text_column
from mmrobust.data.table.columns import Column
from mmrobust.data.table.entries import Entries, Entry, cells_of
from mmrobust.data.table.masks import MaskLabels, find_labels, read_values, unlike
from mmrobust.data.targets import names_of
from mmrobust.errors import Problems, UserError

LOOKED_AT = 20  # files of a column, to say what it holds
SKIP = "or leave out such samples with data.corrupt=skip"


@dataclass(frozen=True)
class Inference:
    """What to look at.

    Args:
        entries: the samples of every split.
        options: name of a modality -> what the user set, see OPTIONS.
        classes, ignore_index, label_offset: see `Manifest`.
        class_weights: of the loss of masks: none, median_frequency over train (see `frames`), or one for each class.
        skip: whether files that cannot be read are left out.
        seed, inspect: which rows of train mean and std are computed from, and how many.
        n_fft, hop: of spectrograms.
    """

    entries: Entries
    options: Mapping[str, Mapping[str, Any]]
    classes: Sequence[str] | int | None
    ignore_index: int | None
    label_offset: int
    class_weights: str | Sequence[float]
    skip: bool
    seed: int
    inspect: int
    n_fft: int
    hop: int

    def infer(self, target: str) -> dict[str, Any]:
        """Plain data: `classes`; `masks`, what `MaskLabels` holds (None for classification); `class_weights`, none if
        all are 1; `modalities`, for each what its `Column` holds.

        Raises:
            UserError: files that cannot be read or do not go together.
        """
        given = None if isinstance(self.classes, int) else self.classes
        if target != "mask":
            columns = {m: self.column(m, None) for m in self.options}
            masks, classes = None, names_of(target, cells_of(self.entries), given, Problems())
            weights = list[float]()
        else:
            labels, size = self.masks()
            masks = {**vars(labels), "values": labels.values and list(labels.values)}
            sizes = [options["size"] for options in self.options.values() if options["size"] is not None]
            columns = {m: self.column(m, sizes[0] if sizes else size) for m in self.options}
            classes = [str(v) for v in labels.values or range(labels.count)] if given is None else list(given)
            weights = self.weights(labels)
        problems = [p for m, c in columns.items() for p in c.problems(f"data.modalities.{m}")]
        first = next(iter(columns.values()))
        problems += [
            f"column {m} is {c.kind} {list(c.shape)}; segmentation needs images or depth, all of one size"
            + (f"; if it is a map, say so: data.modalities.{m}.kind=depth" if c.kind == "sequence" else "")
            for m, c in columns.items()
            if masks and (not c.is_map or c.shape[-2:] != first.shape[-2:])
        ]
        if problems:
            raise UserError(str(Problems(problems)))
        return {
            "classes": classes,
            "masks": masks,
            "class_weights": weights,
            "modalities": {m: c.to_dict() for m, c in columns.items()},
            "frames": {m: size for m, c in columns.items() if c.is_map and (size := self.frame(m))},
        }

    def frame(self, name: str) -> list[int]:
        """(height, width) that most of the first files of a column of maps have."""
        sizes = []
        for file in [f for e in self.entries["train"] if (f := e.files[name]) is not None][:LOOKED_AT]:
            with suppress(UserError):  # it may be left out
                sizes.append(last_shape(*header(Path(file)))[:2])
        return [int(n) for n in np.median(np.array(sizes), axis=0)] if sizes else []

    def column(self, name: str, size: Any) -> Column:
        """What one modality is; `size` is that of maps, if the user set none."""
        train = [f for e in self.entries["train"] if (f := e.files[name]) is not None]
        if not train:
            raise UserError(
                f"no row of train has a file in the column {name}; leave it out: data.columns=[...]"
            )
        options = self.options[name]
        if isinstance(train[0], str):
            return text_column(f"data.modalities.{name}", list(map(str, train)), options["size"])
        files = list(map(Path, train))
        first = self.readable(look, files, LOOKED_AT)
        column = describe(f"data.modalities.{name}", first, options, size, self.n_fft, self.hop)
        if column.kind in ("vector", "sequence", "video"):
            self.agree(name, column, first[0])
        order = np.argsort(keyed.uniforms(len(train), self.seed, "inspect", name))
        drawn = self.readable(column.read, [files[i] for i in order], max(self.inspect, 1))
        return column.with_statistics(drawn, options["mean"], options["std"])

    def readable(self, read: Callable[[Path], object], files: Sequence[Path], count: int) -> list[Path]:
        """The first `count` files that can be read. Raises: UserError: one cannot, unless it may be left out."""
        kept: list[Path] = []
        errors: list[UserError] = []
        for file in told(files, "reading files to describe them, at most"):
            if len(kept) == count:
                break
            try:
                read(file)
                kept.append(file)
            except UserError as error:
                if not self.skip:
                    raise UserError(f"{error}, {SKIP}") from error
                errors.append(error)
        if not kept:
            raise errors[0]
        return kept

    def agree(self, name: str, column: Column, first: Path) -> None:
        """Raises: UserError: an array is of another shape than the first one."""
        all_rows = [e for rows in self.entries.values() for e in rows if e.files[name] is not None]
        seen: set[Path] = set()
        for entry in told(all_rows, f"column {name}: shapes of arrays"):
            file = Path(str(entry.files[name]))
            if file in seen:
                continue
            seen.add(file)
            try:
                found = shape_of(column.kind, *header(file))
            except UserError as error:
                if self.skip:
                    continue
                raise UserError(f"line {entry.line}: {error}, {SKIP}") from error
            if found != column.shape and not self.skip:
                raise UserError(
                    f"line {entry.line}: {file} has shape {list(found)}, {first} has {list(column.shape)}; all arrays "
                    f"of a column must agree, {SKIP}"
                )

    def masks(self) -> tuple[MaskLabels, list[int]]:
        """What the masks hold, and (height, width) of the inputs: like most masks, in multiples of 32."""
        counts: dict[int, int] = {}
        shapes, problems = [], []
        all_rows = [e for rows in self.entries.values() for e in rows]
        for entry in told(all_rows, "values of masks"):
            try:
                values = self.checked_mask(entry)
            except UserError as error:
                problems.append(f"line {entry.line}: {error}")
                continue
            shapes.append(values.shape)
            for value in np.unique(values).tolist():
                counts[value] = counts.get(value, 0) + 1
        if (problems and not self.skip) or not shapes:
            more = [f"and {len(problems) - 10} more"] if len(problems) > 10 else []
            raise UserError(
                f"masks that cannot be used; mend them, {SKIP}:\n- " + "\n- ".join([*problems[:10], *more])
            )
        height, width = np.median(np.array(shapes), axis=0)
        scale = side_for([min(shape) for shape in shapes]) / min(height, width)
        size = [max(32, round(scale * n / 32) * 32) for n in (height, width)]
        return find_labels(counts, self.ignore_index, self.label_offset, self.classes), size

    def weights(self, labels: MaskLabels) -> list[float]:
        """One a class, or none. Raises: UserError: not as many as classes, not above 0, or another word."""
        given = self.class_weights
        if given == "none":
            return []
        if given == "median_frequency":
            files = [Path(entry.target) for entry in self.entries["train"]]
            return median_frequency(
                map(labels.read, self.readable(labels.read, files, len(files))), labels.count
            )
        if isinstance(given, str) or len(given) != labels.count or not min(given) > 0:
            raise UserError(
                f"data.class_weights={given if isinstance(given, str) else list(given)}; choose none, median_frequency, "
                f"or {labels.count} numbers above 0, one for each class"
            )
        return [float(w) for w in given]

    def checked_mask(self, entry: Entry) -> np.ndarray:
        """The values of a mask. Raises: UserError: void everywhere, or not as large as the images."""
        values = read_values(Path(entry.target))
        files = {m: f for m, f in entry.files.items() if isinstance(f, Path)}
        sizes = {m: last_shape(*header(f))[:2] for m, f in files.items() if _is_map(f)}
        if problem := unlike(sizes, values.shape):
            raise UserError(problem)
        if ((values == self.ignore_index) | (values + self.label_offset < 0)).all():
            raise UserError(f"{entry.target} is void everywhere")
        return values


def look(file: Path) -> None:
    """Raises: UserError: not even the beginning of the file can be read."""
    if type_of(file) == "sounds":
        read_audio(file, 8000)
    else:
        header(file)


def _is_map(file: Path) -> bool:
    return type_of(file) != "sounds" and len(header(file)[0]) in (2, 3)
