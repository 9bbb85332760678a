"""The cells of a panel, which draw inputs of each kind and the targets and predictions of each task."""

from __future__ import annotations

import colorsys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mmrobust.data.kinds import decode_text
from mmrobust.data.spec import DataSpec, Modality

if TYPE_CHECKING:
    from matplotlib.axes import Axes

VOID_GREY = (0.55, 0.55, 0.55)
MOST_LINES = 5  # lines of a target or prediction that a cell shows
LONGEST_TEXT = 90  # characters of a text that a cell shows


@dataclass(frozen=True)
class Cell:
    """A rectangle of the picture, from its lower left corner on."""

    axes: Axes
    left: float
    bottom: float
    width: float
    height: float

    def show(self, image: np.ndarray, **keys: Any) -> None:
        """Draw an image as large as the cell allows, with square pixels."""
        wide, high = image.shape[1] / self.width, image.shape[0] / self.height
        width, height = self.width * min(wide / high, 1), self.height * min(high / wide, 1)
        self._show(image, width, height, **keys)

    def fill(self, image: np.ndarray, **keys: Any) -> None:
        """Draw an image stretched to the cell."""
        self._show(image, self.width, self.height, **keys)

    def _show(self, image: np.ndarray, width: float, height: float, **keys: Any) -> None:
        left, bottom = self.left + (self.width - width) / 2, self.bottom + (self.height - height) / 2
        self.axes.imshow(image, extent=(left, left + width, bottom, bottom + height), aspect="auto", **keys)

    def curves(self, x: np.ndarray, filled: bool) -> None:
        """The rows of x (C, T) as lines, or filled down to 0; common to all, the scale."""
        low, high = (
            min(float(x.min()), 0 if filled else np.inf),
            max(float(x.max()), 0 if filled else -np.inf),
        )
        low, unit = low - 0.05 * (high - low), 0.91 * self.height / max(high - low, 1e-6)
        place = self.left + self.width * (np.arange(x.shape[1]) + 0.5) / x.shape[1]
        for k, row in enumerate(x):
            y, base = self.bottom + (row - low) * unit, self.bottom - low * unit
            if filled:
                self.axes.fill_between(place, y, base, step="mid", color="C0", linewidth=0)
            else:
                self.axes.plot(place, y, color=f"C{k % 10}", linewidth=0.5)

    def write(self, text: str, colour: str) -> None:
        text = "\n".join(part for line in text.split("\n") for part in textwrap.wrap(line, 16))
        size = 9 if max(map(len, text.split("\n"))) < 10 else 7
        middle = self.left + self.width / 2, self.bottom + self.height / 2
        self.axes.text(*middle, text, color=colour, ha="center", va="center", fontsize=size)

    def judge(self, text: str, right: bool) -> None:
        """Write a text on green if it is right, on red if it is wrong."""
        self.paint("#e8f5e9" if right else "#fdecea")
        self.write(text, "#1a7f37" if right else "#c62828")

    def paint(self, colour: str) -> None:
        self._rectangle(facecolor=colour, edgecolor="none")

    def frame(self) -> None:
        self._rectangle(facecolor="none", edgecolor="#888888", linewidth=0.4, zorder=3)

    def _rectangle(self, **keys: Any) -> None:
        from matplotlib.patches import Rectangle

        self.axes.add_patch(Rectangle((self.left, self.bottom), self.width, self.height, **keys))


def draw_input(cell: Cell, x: np.ndarray | None, modality: Modality) -> None:
    """Draw one modality of one sample in the form of its kind; None stands for an absent modality."""
    if x is None:
        cell.write("absent", "#888888")
    else:
        DRAWINGS[modality.traits.drawing](cell, x)


def draw_image(cell: Cell, x: np.ndarray, single: str = "gray") -> None:
    """Draw (C, H, W): three channels in colour, any other number as their mean in the colour map `single`."""
    if len(x) == 3:
        cell.show(stretched(x).transpose(1, 2, 0))
    else:
        cell.show(stretched(x.mean(0)), cmap=single)


def draw_depth(cell: Cell, x: np.ndarray) -> None:
    draw_image(cell, x, "viridis")


def draw_video(cell: Cell, x: np.ndarray) -> None:
    """Draw the middle frame."""
    draw_image(cell, x[:, x.shape[1] // 2])


def draw_spectrogram(cell: Cell, x: np.ndarray) -> None:
    cell.fill(stretched(x.mean(0)), cmap="magma", origin="lower")


def draw_curves(cell: Cell, x: np.ndarray) -> None:
    cell.curves(x.reshape(-1, x.shape[-1]), filled=False)


def draw_bars(cell: Cell, x: np.ndarray) -> None:
    cell.curves(x.reshape(-1, x.shape[-1]), filled=True)


def draw_text(cell: Cell, x: np.ndarray) -> None:
    text = decode_text(torch.from_numpy(x))
    cell.write(textwrap.shorten(text, LONGEST_TEXT, placeholder=" ..."), "black")


DRAWINGS: dict[str, Callable[[Cell, np.ndarray], None]] = {
    "image": draw_image,
    "depth": draw_depth,
    "video": draw_video,
    "spectrogram": draw_spectrogram,
    "curves": draw_curves,
    "bars": draw_bars,
    "text": draw_text,
}


def draw_answer(
    cell: Cell, answer: np.ndarray, probability: np.ndarray | None, target: np.ndarray, spec: DataSpec
) -> None:
    """Draw a sample's target, or (with a probability) its prediction, in the form of its task."""
    ANSWERS[spec.task](cell, answer, probability, target, spec)


def draw_class(
    cell: Cell, answer: np.ndarray, probability: np.ndarray | None, target: np.ndarray, spec: DataSpec
) -> None:
    """Write the class by name, green if it is right."""
    name = class_name(spec, int(answer))
    if probability is None:
        cell.write(name, "black")
    else:
        cell.judge(f"{name}\n{float(probability):.2f}", int(answer) == int(target))


def draw_map(
    cell: Cell, answer: np.ndarray, probability: np.ndarray | None, target: np.ndarray, spec: DataSpec
) -> None:
    """Draw a map of classes in the colours of `palette`, with void in grey."""
    height, width = target.shape
    answer = answer[:height, :width]
    colours = np.array([*palette(spec.num_classes), VOID_GREY])
    valid = (answer >= 0) & (answer < spec.num_classes)
    cell.show(colours[np.where(valid, answer, spec.num_classes)], interpolation="nearest")


def draw_numbers(
    cell: Cell, answer: np.ndarray, probability: np.ndarray | None, target: np.ndarray, spec: DataSpec
) -> None:
    """Write the numbers and their errors."""
    errors = answer - target
    lines = [
        f"{a:.3g}" if probability is None else f"{a:.3g} ({e:+.2g})"
        for a, e in zip(answer[:MOST_LINES].tolist(), errors.tolist(), strict=False)
    ]
    cell.write("\n".join(lines), "black")


def draw_labels(
    cell: Cell, answer: np.ndarray, probability: np.ndarray | None, target: np.ndarray, spec: DataSpec
) -> None:
    """Write the labels that are present, green if they are right."""
    names = [class_name(spec, label) for label in np.flatnonzero(answer).tolist()]
    text = "\n".join([*names[:MOST_LINES], *(["..."] if len(names) > MOST_LINES else [])]) or "none"
    if probability is None:
        cell.write(text, "black")
    else:
        cell.judge(text, bool((answer == target).all()))


ANSWERS: dict[str, Callable[[Cell, np.ndarray, np.ndarray | None, np.ndarray, DataSpec], None]] = {
    "classification": draw_class,
    "segmentation": draw_map,
    "regression": draw_numbers,
    "multilabel": draw_labels,
}


def palette(count: int) -> list[tuple[float, float, float]]:
    """Colours of classes, independent of their number: hues a golden ratio apart, in four shades."""
    shades = ((0.62, 0.86), (0.85, 0.62), (0.38, 0.95), (0.7, 0.42))
    hues = [(0.58 + 0.61803398875 * k) % 1 for k in range(count)]
    return [colorsys.hsv_to_rgb(hue, *shades[k % len(shades)]) for k, hue in enumerate(hues)]


def class_name(spec: DataSpec, label: int) -> str:
    return spec.classes[label] if label < len(spec.classes) else str(label)


def stretched(x: np.ndarray) -> np.ndarray:
    """Map normalised values to [0, 1]; the percentiles 0.5 and 99.5 become 0 and 1."""
    low, high = np.percentile(x, (0.5, 99.5))
    return np.clip((x - low) / max(high - low, 1e-6), 0, 1)
