"""Rendered RGB-D scenes for segmentation in which it is known which modality tells which classes apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mmrobust import keyed
from mmrobust.data.files.images import normalised
from mmrobust.data.spec import DataSpec, Modality
from mmrobust.data.split import Key, Sample, Split

VOID = 255
OBJECTS = 3  # in a scene, one in front of the other
CHUNK = 128  # scenes rendered at a time: what fits a processor's cache

# What an object looks like to each modality. The first is the common look, that of all classes which another
# modality tells apart; each of the rest belongs to one class.
COLOURS = {
    "clay": (0.78, 0.60, 0.42),
    "red": (0.78, 0.18, 0.16),
    "green": (0.20, 0.62, 0.25),
    "blue": (0.18, 0.32, 0.78),
    "violet": (0.58, 0.24, 0.66),
    "cyan": (0.15, 0.66, 0.70),
    "yellow": (0.86, 0.80, 0.20),
}
RELIEFS = {  # metres towards the camera, from places (u, v) on the object, both in [-1, 1]
    "flat": lambda u, v: np.zeros_like(u),
    "bump": lambda u, v: 0.5 * np.clip(1 - u**2 - v**2, 0, 1),
    "dent": lambda u, v: -0.5 * np.clip(1 - u**2 - v**2, 0, 1),
    "step": lambda u, v: 0.2 * np.sign(u),
    "waves": lambda u, v: 0.15 * np.cos(9.4 * u),
    "ridge": lambda u, v: 0.6 * (0.5 - np.abs(u)),
    "tilt": lambda u, v: 0.4 * u,
}
TEMPERATURES = {  # °C
    "lukewarm": 30.0,
    "warm": 42.0,
    "hot": 54.0,
    "hotter": 66.0,
    "boiling": 100.0,
    "cold": 8.0,
    "frozen": -4.0,
}
LOOKS = (tuple(COLOURS), tuple(RELIEFS), tuple(TEMPERATURES))  # of colour, depth and infrared
DEPTH_MEAN, DEPTH_STD = 3.0, 0.7  # metres
HEAT_MEAN, HEAT_STD = 30.0, 20.0  # °C


@dataclass(frozen=True)
class Scenes:
    """Objects in front of a wall, each on a plane of its own: seen in colour, in depth and in infrared.

    Class 0 is the wall. The other classes are dealt out to the modalities in turn: one modality alone tells a
    class apart, by its colour, relief or temperature; to the others it has the common look, with the same
    distribution in every pixel as all classes that are not theirs. Places, outlines, brightness, light and noise are
    drawn whatever the class. Light is not that of the relief, which it would give away.

    Args:
        names: of the modalities, the first M of: colour (image), depth (depth), infrared (image).
        num_classes: C.
        size: S of the inputs (3, S, S), (1, S, S), (1, S, S) and of the labels (S, S), void 255 on outlines.
        seed: of the dataset.
    """

    names: tuple[str, ...]
    num_classes: int
    size: int
    seed: int

    def problems(self) -> list[str]:
        """What is wrong with the keys, in words; M at least 1."""
        if len(self.names) > len(LOOKS):
            return [f"num_modalities={len(self.names)}, expected at most {len(LOOKS)} with task=segmentation"]
        most = 1 + len(self.names) * (len(COLOURS) - 1)
        if self.num_classes > most:
            return [
                f"num_classes={self.num_classes}, expected at most {most} for scenes of {len(self.names)} modalities"
            ]
        return []

    @property
    def looks(self) -> np.ndarray:
        """(C, M): which look a class has in a modality; 0 is the common one."""
        looks = np.zeros((self.num_classes, len(self.names)), dtype=np.int64)
        objects = np.arange(self.num_classes - 1)
        looks[objects + 1, objects % len(self.names)] = objects // len(self.names) + 1
        return looks

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names: what tells them apart."""
        special = [
            (names, row) for row in self.looks[1:] for names, row in zip(LOOKS, row, strict=False) if row
        ]
        return ("wall", *(names[look] for names, look in special))

    @property
    def separated(self) -> dict[str, list[int]]:
        """Modality -> the classes that nothing else tells apart."""
        return {m: np.flatnonzero(looks).tolist() for m, looks in zip(self.names, self.looks.T, strict=True)}

    def spec(self, num_train: int) -> DataSpec:
        kinds, channels = ("image", "depth", "image"), (3, 1, 1)
        described = zip(self.names, kinds, channels, strict=False)
        modalities = {m: Modality(kind, (c, self.size, self.size)) for m, kind, c in described}
        return DataSpec(
            "segmentation", self.num_classes, num_train, modalities, self.classes, ignore_index=VOID
        )

    def generate(self, split: str, count: int) -> RenderedScenes:
        """A split. More samples or modalities leave the others' places as they are."""
        noise = {m: np.random.default_rng(keyed.seed_of(self.seed, split, "noise", m)) for m in self.names}
        chunks = [np.arange(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
        rendered = [self.render(split, index, noise) for index in chunks]
        label = np.concatenate([label for label, _ in rendered])
        raw = {m: np.concatenate([inputs[m] for _, inputs in rendered]) for m in self.names}
        return RenderedScenes(split, raw, label)

    def render(
        self, split: str, index: np.ndarray, noise: dict[str, np.random.Generator]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Scenes, N of them.

        Args:
            split: its name.
            index: (N,) int64, which ones.
            noise: where each modality's white noise comes from.

        Returns:
            Labels (N, S, S) uint8; colour (N, S, S, 3) uint8, depth (N, S, S) float32 in metres, infrared
            (N, S, S) float32 in °C, by the modality's name.
        """

        def draw(low: float, high: float, *stream: int | str) -> np.ndarray:
            """(N, 1, 1)"""
            values = low + (high - low) * keyed.uniform(index, self.seed, split, *stream)
            return values.astype(np.float32)[:, None, None]

        y, x = np.mgrid[: self.size, : self.size].astype(np.float32)[:, None] * (2 / (self.size - 1)) - 1
        shape = (len(index), self.size, self.size)
        owner, label = np.zeros(shape, dtype=np.int8), np.zeros(shape, dtype=np.uint8)
        depth = draw(3.3, 3.9, "wall") + draw(-0.3, 0.3, "wall x") * x + draw(-0.3, 0.3, "wall y") * y
        colour = np.repeat(draw(0.35, 0.65, "wall grey")[..., None], 3, -1) * np.ones((*shape, 1), np.float32)
        heat = draw(16, 22, "wall heat") * np.ones(shape, np.float32)
        for n in range(OBJECTS):  # from the farthest to the nearest
            which = 1 + (draw(0, self.num_classes - 1, "class", n)[:, 0, 0]).astype(np.int64)
            looks = np.pad(self.looks[which], ((0, 0), (0, len(LOOKS) - len(self.names))))
            turn, round_ = draw(0, np.pi, "turn", n), draw(0, 1, "outline", n) < 0.5
            right, down = x - draw(-0.7, 0.7, "x", n), y - draw(-0.7, 0.7, "y", n)
            u = (right * np.cos(turn) + down * np.sin(turn)) / draw(0.32, 0.55, "width", n)
            v = (down * np.cos(turn) - right * np.sin(turn)) / draw(0.32, 0.55, "height", n)
            inside = np.where(round_, u**2 + v**2, np.maximum(np.abs(u), np.abs(v))) < 1
            owner[inside] = n + 1
            label = np.where(inside, which[:, None, None].astype(np.uint8), label)
            surface = draw(2.8, 2.9, "plane", n) - 0.5 * n + draw(-0.1, 0.1, "lean", n) * y
            for k, relief in enumerate(RELIEFS.values()):
                if len(rows := np.flatnonzero(looks[:, 1] == k)):
                    surface[rows] -= relief(u[rows], v[rows])
            depth = np.where(inside, surface, depth)
            paint = np.array(list(COLOURS.values()), dtype=np.float32)[looks[:, 0]]
            paint = paint * draw(0.6, 1.1, "brightness", n)[:, 0]
            tint = [draw(-0.06, 0.06, "tint", n, channel)[:, 0] for channel in range(3)]
            paint = paint + np.concatenate(tint, 1)
            colour = np.where(inside[..., None], paint[:, None, None], colour)
            warmth = np.array(list(TEMPERATURES.values()), dtype=np.float32)[looks[:, 2]]
            heat = np.where(inside, warmth[:, None, None] + draw(-3, 3, "warmth", n), heat)
        outline = np.zeros(shape, dtype=bool)
        outline[:, :-1] |= owner[:, :-1] != owner[:, 1:]
        outline[:, :, :-1] |= owner[:, :, :-1] != owner[:, :, 1:]
        label[outline] = VOID
        light = 1 + draw(-0.25, 0.25, "light x") * x + draw(-0.25, 0.25, "light y") * y
        colour = colour * light[..., None]
        seen = zip(self.names, (colour, depth, heat), (0.05, 0.01, 1.0), strict=False)
        noisy = {m: z + std * noise[m].standard_normal(z.shape, dtype=np.float32) for m, z, std in seen}
        pixels = np.rint(255 * np.clip(noisy[self.names[0]], 0, 1)).astype(np.uint8)
        return label, noisy | {self.names[0]: pixels}


class RenderedScenes(Split):
    """One split, held in memory; noise meets uint8 pixels, metres and °C."""

    targets: Sequence[int] = ()

    def __init__(self, name: str, raw: dict[str, np.ndarray], label: np.ndarray) -> None:
        self.raw, self.label = raw, label
        self.ids = [f"{name}{index}" for index in range(len(label))]
        self.present = np.ones((len(label), len(raw)), dtype=bool)

    def read(self, key: Key) -> dict[str, np.ndarray]:
        return {m: rows[key.index] for m, rows in self.raw.items()}

    def finish(self, raw: dict[str, np.ndarray], key: Key) -> Sample:
        colour, *others = raw
        inputs = {colour: normalised(raw[colour])}
        for m, (mean, std) in zip(others, ((DEPTH_MEAN, DEPTH_STD), (HEAT_MEAN, HEAT_STD)), strict=False):
            inputs[m] = torch.from_numpy((raw[m] - mean) / std)[None]
        return Sample(inputs, torch.from_numpy(self.label[key.index]).long())
