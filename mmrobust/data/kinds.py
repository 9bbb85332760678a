"""The kinds of modality: shapes and types of samples, placeholders for absent ones, and how panels draw them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Args:
        name: the value of `Modality.kind`.
        axes: number of axes of a sample, without the batch; the first axis is the channels, except for text.
        dtype: type of the tensors.
        noisy: whether noise protocols act on this kind; code points of text, for example, have no noise.
        is_map: whether the last two axes are height and width, so that image encoders can read it.
        picture: whether people view it as a picture.
        example: shape of synthetic samples, see `testing`.
        drawing: how a panel draws it, a key of `reporting.cells.DRAWINGS`.
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
        """The placeholder of absent inputs: zeros (size, *shape), which are also the padding of text."""
        return torch.zeros(size, *shape, dtype=self.dtype)

    def made_up(self, size: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Random samples (size, *shape): standard normal numbers, or words of lower-case letters."""
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
        # Characters are Unicode code points, padded with 0; the encoder tokenizes them.
        Kind("text", 1, torch.int64, False, False, False, (48,), "text"),
    )
}


def encode_text(text: str, length: int) -> Tensor:
    """Encode a text as code points, (length,) int64, cut or padded with 0."""
    points = [ord(character) for character in text[:length].replace("\0", " ")]
    return torch.tensor(points + [0] * (length - len(points)), dtype=torch.int64)


def decode_text(points: Tensor) -> str:
    """Decode code points to a text, without the padding."""
    return "".join(map(chr, points[points > 0].tolist()))
