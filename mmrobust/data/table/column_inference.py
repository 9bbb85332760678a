"""What one column of a user's table holds, told from its first files and what the user set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from mmrobust.data.files import images
from mmrobust.data.files.arrays import BY_AXES, header, last_shape, read_array, shape_of, type_of
from mmrobust.data.table.columns import Column, bits_of
from mmrobust.errors import UserError

KINDS_OF = {  # what the files of a type may be taken for
    "images": ("image", "depth"),
    "sounds": ("spectrogram",),
    "arrays": ("vector", "sequence", "image", "video", "depth"),
}
APPLIES_TO = {  # keys of a modality that are for some kinds alone
    "size": ("image", "depth", "spectrogram"),
    "unit": ("depth",),
    "sample_rate": ("spectrogram",),
}
SIDES = (32, 64, 128, 224)  # pixels
LONGEST = 10.0  # seconds
HIGHEST = 22050  # Hz
MOST_CHARACTERS = 512  # of a text


def describe(
    key: str, files: Sequence[Path], options: Mapping[str, Any], size: Any, n_fft: int, hop: int
) -> Column:
    """What a column holds, from some of its files and what the user set under `key`; without mean and std.

    Args:
        key: `data.modalities.<name>`.
        files: all of one type.
        options: the keys there.
        size: of maps, pixels, if `options` has none.
        n_fft, hop: of spectrograms.

    Raises:
        UserError: files that do not go together, values that cannot be.
    """
    type_ = str(type_of(files[0]))
    kind, kinds = options["kind"], KINDS_OF[type_]
    if kind is not None and kind not in kinds:
        raise UserError(f"{key}.kind={kind}, but {files[0]} and the like can be {' or '.join(kinds)}")
    if type_ == "sounds":
        refuse_idle(key, "spectrogram", options)
        return _sound(key, files, options, n_fft, hop)
    heads = [header(file) for file in files]
    if kind is None:
        found = [_kind(type_, *head) for head in heads]
        kind = found[0]
        for file, other in zip(files, found, strict=True):
            if other is None:
                raise UserError(f"{file} has {len(header(file)[0])} axes; an array can have 1 to 4")
            if other != kind:
                raise UserError(
                    f"{file} looks like {other}, {files[0]} like {kind}; if they are alike, say so: {key}.kind="
                    f"{kinds[0]} (possible are {', '.join(kinds)}), else give each a column of its own"
                )
    refuse_idle(key, kind, options)
    shape, dtype = heads[0]
    if kind not in ("image", "depth"):
        return Column(kind, shape_of(kind, shape, dtype))
    shapes = [last_shape(*head) for head in heads]
    size = options["size"] or size
    if size is None:
        alike = type_ == "arrays" and len(set(shapes)) == 1
        size = list(shapes[0][:2]) if alike else side_for([min(s[:2]) for s in shapes])
    if kind == "image":
        return Column(kind, (shapes[0][2] if type_ == "arrays" else 3, *pixels(key, size)))
    first = read_array(files[0]) if type_ == "arrays" else images.read_map(files[0])
    unit = options["unit"] or (1.0 if dtype.kind == "f" else 0.001)
    return Column(kind, (1, *pixels(key, size)), unit=float(unit), bits=bits_of(first.dtype))


def refuse_idle(key: str, kind: str, options: Mapping[str, Any]) -> None:
    """Raises: UserError: a key was set that has no effect for the kind."""
    for name, kinds in APPLIES_TO.items():
        if options[name] is not None and kind not in kinds:
            raise UserError(
                f"{key}.{name}={options[name]} has no effect: it is for {' and '.join(kinds)}, and this is {kind}; leave "
                "it out"
            )


def text_column(key: str, sentences: Sequence[str], size: Any) -> Column:
    """A column of sentences, as long as the longest, but at most MOST_CHARACTERS.

    Args:
        key: `data.modalities.<name>`.
        sentences: of train.
        size: characters that are read, if set.

    Raises:
        UserError: `size` is no whole number above 0.
    """
    if size is not None and (not isinstance(size, int) or size < 1):
        raise UserError(f"{key}.size={size}: of text it is a whole number of characters")
    return Column("text", (size or min(max(map(len, sentences)), MOST_CHARACTERS),))


def _kind(type_: str, shape: tuple[int, ...], dtype: np.dtype) -> str | None:
    if type_ == "images":
        return "image" if dtype == np.uint8 else "depth"
    return BY_AXES[len(shape)] if len(shape) < len(BY_AXES) else None


def _sound(key: str, files: Sequence[Path], options: Mapping[str, Any], n_fft: int, hop: int) -> Column:
    rates, lengths = [], []
    for file in files:
        try:
            with soundfile.SoundFile(file) as sound:
                rates.append(sound.samplerate)
                lengths.append(sound.frames / sound.samplerate)
        except (soundfile.SoundFileError, OSError) as error:
            raise UserError(f"{file} cannot be read as sound: {error}; get the file again") from error
    rate = options["sample_rate"] or min(Counter(rates).most_common(1)[0][0], HIGHEST)
    seconds = options["size"] or round(min(float(np.median(lengths)), LONGEST), 2)
    if isinstance(seconds, list) or seconds <= 0:
        raise UserError(f"{key}.size={seconds}: of sounds it is a number of seconds")
    seconds = max(float(seconds), n_fft / rate)
    column = Column("spectrogram", (), sample_rate=int(rate), n_fft=n_fft, hop=hop, seconds=seconds)
    return replace(column, shape=column.spectrogram.shape)


def side_for(sides: Sequence[int]) -> int:
    """The largest of SIDES that most of the images fill."""
    return max([side for side in SIDES if side <= np.median(sides)], default=SIDES[0])


def pixels(key: str, size: Any) -> tuple[int, int]:
    """(height, width) of a `size`. Raises: UserError: it is none."""
    pair = size if isinstance(size, list | tuple) else [size, size]
    if len(pair) != 2 or not all(isinstance(n, int) and n > 0 for n in pair):
        raise UserError(f"{key}.size={size} is no size; write 112, or [height, width]")
    return pair[0], pair[1]
