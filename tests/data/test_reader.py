"""One input read without its dataset is what the dataset gives in testing; what is no input is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.data.reader import check_file, colours_of, depth_of, frames_of, numbers_of, prepared, read_clip
from mmrobust.data.spec import Modality
from mmrobust.data.split import Key
from mmrobust.errors import UserError
from tests.data.trees import built, dataset, plant


def of_clip(data: Any, i: int) -> dict[str, Any]:
    clip = data.splits["test"].clips[i]
    return {"audio": clip.sound, "visual": clip.frames[0].parent}


def of_frame(data: Any, i: int) -> dict[str, Any]:
    frame, source = data.splits["test"].frames[i], data.splits["test"].source
    places = {"rgb": (frame.rgb, source.rgb), "depth": (frame.depth, source.depth)}
    # A row of a table has no file; what it holds is an array.
    return {m: place if isinstance(place, Path) else read(place) for m, (place, read) in places.items()}


def of_face(data: Any, i: int) -> dict[str, Any]:
    return dict(zip(("rgb", "depth", "ir"), data.splits["test"].files[i], strict=True))


def of_views(data: Any, i: int) -> dict[str, Any]:
    _, test, _ = data.tables()
    return {view: x[i] for view, x in test.features.items()}


def of_pair(data: Any, i: int) -> dict[str, Any]:
    split = data.splits["test"]
    rows = {m: of[i] for m, of in split.rows(0).items()}
    sounds = Path(data.root) / "free-spoken-digit-dataset/recordings"
    name = split.pools["audio"].names[rows["audio"]]
    return {"image": split.pools["image"].data[rows["image"]], "audio": sounds / f"{name}.wav"}


CASES: dict[str, tuple[Callable[[Any, int], dict[str, Any]], dict[str, Any]]] = {
    "ave": (of_clip, {}),
    "avmnist": (of_pair, {"image_noise": 0.0, "audio_snr": None}),
    "casia_surf": (of_face, {"image_size": 24}),
    "cityscapes": (of_frame, {"image_size": [32, 64]}),
    "cremad": (of_clip, {"image_size": 16}),
    "handwritten": (of_views, {}),
    "kinetics_sounds": (of_clip, {}),
    "multiview": (of_views, {}),
    "nyuv2": (of_frame, {"image_size": [32, 64]}),
    "sunrgbd": (of_frame, {"image_size": [32, 64]}),
}


@pytest.mark.parametrize("name", CASES)
def test_it_reads_what_the_dataset_reads(name: str, tmp_path: Path) -> None:
    root = tmp_path / name
    plant(name, root)
    raw_of, keys = CASES[name]
    if name == "multiview":
        keys = {"file": next(str(path) for path in tmp_path.rglob("*.mat"))}
    data = dataset(name, root, **keys)
    # As a run opens it: not set up, and the files' folder of no importance.
    alone = built(name, root, **keys)
    split = data.splits["test"]
    for i in range(min(len(split), 3)):
        expected = split[Key(0, i)].inputs
        for m, raw in raw_of(data, i).items():
            found = alone.reader(m, data.spec)(raw)
            assert torch.equal(found.tensor, expected[m]), (m, i)
            if data.spec.task == "segmentation":
                assert found.size == tuple(split[Key(0, i)].target.shape)


def test_a_dataset_that_cannot_says_so_by_name() -> None:
    data = construct(compose_config(["data=synthetic"]).data)
    data.setup()
    with pytest.raises(
        UserError, match="Synthetic does not say how a single input of m1 is read; give tensors of"
    ):
        data.reader("m1", data.spec)


@pytest.mark.parametrize(
    ("take", "raw", "words"),
    [
        (colours_of, np.zeros((4, 4, 3)), r"float64 is no image; expected pixels \(H, W, 3\) of uint8"),
        (colours_of, np.zeros((3, 4, 4), np.uint8), r"an array \(3, 4, 4\) of uint8 is no image"),
        (depth_of, np.zeros((4, 4, 3)), r"an array \(4, 4, 3\) is no depth"),
        (frames_of, np.zeros((4, 4, 3), np.uint8), r"is no clip; expected frames \(T, H, W, 3\)"),
        (numbers_of, "word", "a str .* is no array of numbers"),
        (numbers_of, [[1], [1, 2]], "a list is no array of numbers"),
        (numbers_of, np.zeros(0), "is no array of numbers"),
    ],
)
def test_what_is_no_input(take: Callable[[Any], Any], raw: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        take(raw)


def test_a_tensor_is_taken_as_it_is() -> None:
    modality = Modality("image", (3, 4, 4))
    x = torch.randn(3, 4, 4)
    assert torch.equal(prepared(x, modality).tensor, x)
    with pytest.raises(UserError, match=r"a tensor \(1, 3, 4, 4\) of torch.float32 was given"):
        prepared(x[None], modality)
    with pytest.raises(UserError, match=r"torch\.uint8 was given; a tensor is taken as it is"):
        prepared(x.byte(), modality)
    with pytest.raises(UserError, match="NaN or infinity"):
        prepared(x / 0, modality)


def test_an_image_of_any_mode_is_one_in_colour() -> None:
    grey = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4))
    for image in (grey, grey.convert("P"), grey.convert("RGBA"), grey.convert("LA")):
        assert colours_of(image).shape == (4, 4, 3)
        assert (colours_of(image)[..., 0] == np.array(grey)).all()


def test_files_that_are_none(tmp_path: Path) -> None:
    for name, words in {
        "nowhere": "does not exist",
        "x" * 300: r"cannot be opened|does not exist",
        "a\0b": "",
    }.items():
        with pytest.raises(UserError, match=words):
            check_file(tmp_path / name, folder=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no frames"):
        read_clip(tmp_path / "empty")
