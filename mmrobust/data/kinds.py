"""The kinds of modality: what a sample of each is, what stands where it is absent, how it is looked at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Args:
        name: as in `Modality.kind`.
        axes: of a sample, without the batch; the first is the channels, but for text.
        dtype: of its tensors.
        noisy: whether a noise protocol acts on it; token ids and the like have no noise.
        is_map: whether it has a height and a width, last, which an encoder of images reads.
        picture: whether a person sees it as a picture.
        example: the shape of made-up samples, see `testing`.
        drawing: how a panel shows it, a key of `evaluation.cells.DRAWINGS`.
    """

    name: str
    axes: int
    dtype: torch.dtype
    noisy: bool
    is_map: bool
    picture: bool
    example: tuple[int, ...]
    drawing: str

    def blank(self, size: int, shape: tuple[int, ...]) -> Tensor:
        """What stands where nothing is available: (size, *shape) zeros, which are a text's padding, too."""
        return torch.zeros(size, *shape, dtype=self.dtype)

    def made_up(self, size: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Random samples (size, *shape): standard normal numbers, or words of small letters."""
        if self.dtype.is_floating_point:
            return torch.randn(size, *shape, generator=generator)
        letters = torch.randint(ord("a"), ord("z") + 1, (size, *shape), generator=generator)
        letters[:, 5::6] = ord(" ")
        length = torch.randint(6, shape[0] + 1, (size, 1), generator=generator)
        return torch.where(torch.arange(shape[0]) < length, letters, 0)


def _floats(name: str, example: tuple[int, ...], drawing: str, *, is_map: bool, picture: bool) -> Kind:
    return Kind(name, len(example), torch.float32, True, is_map, picture, example, drawing)


KINDS = {
    kind.name: kind
    for kind in (
        _floats("image", (3, 32, 32), "image", is_map=True, picture=True),
        _floats("depth", (1, 32, 32), "depth", is_map=True, picture=True),
        _floats("spectrogram", (1, 32, 32), "spectrogram", is_map=True, picture=False),
        _floats("sequence", (4, 40), "curves", is_map=False, picture=False),
        _floats("video", (3, 2, 32, 32), "video", is_map=True, picture=True),
        _floats("vector", (12,), "bars", is_map=False, picture=False),
        # Characters as Unicode code points, 0 behind the last: the encoder makes tokens of them.
        Kind("text", 1, torch.int64, False, False, False, (48,), "text"),
    )
}


def encode_text(text: str, length: int) -> Tensor:
    """A text as code points: (length,) int64, cut or padded with 0."""
    points = [ord(character) for character in text[:length].replace("\0", " ")]
    return torch.tensor(points + [0] * (length - len(points)), dtype=torch.int64)


def decode_text(points: Tensor) -> str:
    """The text of code points, without the padding."""
    return "".join(map(chr, points[points > 0].tolist()))
