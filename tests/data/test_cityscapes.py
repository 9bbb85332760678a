import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmrobust.data.cityscapes import STATISTICS
from mmrobust.data.families.cityscapes_files import CLASSES, LABEL_IDS, official_depth
from mmrobust.data.split import Key
from mmrobust.errors import UserError
from mmrobust.prepare.synthetic.cityscapes import make as make_cityscapes
from tests.data.trees import problem, ready

SAMPLE = "lindau_000001_000019"


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("official")
    make_cityscapes(root / "cityscapes")
    return root


@pytest.fixture
def tree(shared, tmp_path) -> Path:
    return shutil.copytree(shared, tmp_path / "official")


@pytest.mark.parametrize("kind", ["disparity", "depth"])
def test_numbers(kind, shared):
    data = ready("cityscapes", shared, f"data.depth={kind}", "data.image_size=[24,48]")
    split = data.splits["test"]
    assert split.ids[1] == SAMPLE
    found = split[Key(0, 1)]
    root = shared / "cityscapes"
    ids = cv2.imread(str(root / f"gtFine/val/lindau/{SAMPLE}_gtFine_labelIds.png"), -1)
    expected = [[LABEL_IDS.index(x) if x in LABEL_IDS else 255 for x in row] for row in ids]
    assert found.target.tolist() == expected
    shifted = cv2.imread(str(root / f"disparity/val/lindau/{SAMPLE}_disparity.png"), -1).astype(float)
    depth = found.inputs["depth"][0].double().numpy()
    statistics = STATISTICS[kind]
    values = depth * statistics.std + statistics.mean
    valid = shifted > 0
    if kind == "depth":
        with np.errstate(divide="ignore"):
            metres = 0.209313 * 2262.52 * 256 / (shifted - 1)
        valid &= metres <= 300
        assert np.allclose(values[valid], metres[valid], rtol=1e-3)  # half precision
    else:
        assert np.allclose(values[valid], shifted[valid], atol=1e-2)
    assert np.array_equal(depth == 0, ~valid)
    assert data.spec.classes == CLASSES
    assert data.spec.num_classes == 19


def test_cameras(tree):
    path = tree / f"cityscapes/disparity/val/lindau/{SAMPLE}_disparity.png"
    depth = official_depth(path)
    assert depth[0, :3].tolist() == [0, 0, 0]  # no disparity, or too far
    assert depth[0, 3] == pytest.approx(0.209313 * 2262.52 / (999 / 256), rel=1e-3)
    camera = tree / f"cityscapes/camera/val/lindau/{SAMPLE}_camera.json"
    for text in ("{}", "not json"):
        camera.write_text(text)
        with pytest.raises(UserError, match="cannot be read as a camera's parameters"):
            official_depth(path)
    camera.unlink()
    with pytest.raises(UserError, match=rf"{SAMPLE}_camera\.json cannot be read.*data\.depth=disparity"):
        ready("cityscapes", tree).splits["test"][Key(0, 1)]
    ready("cityscapes", tree, "data.depth=disparity").splits["test"][Key(0, 1)]


def test_bad_labels(tree):
    path = tree / f"cityscapes/gtFine/val/lindau/{SAMPLE}_gtFine_labelIds.png"
    cv2.imwrite(str(path), np.full((24, 48), 34, np.uint8))
    split = ready("cityscapes", tree).splits["test"]
    with pytest.raises(UserError, match=r"labelIds\.png has labels outside of 0 to 33: 34"):
        split[Key(0, 1)]
    cv2.imwrite(str(path), np.full((24, 48), 4, np.uint8))
    with pytest.raises(UserError, match="all are void"):
        split[Key(0, 1)]
    cv2.imwrite(str(path), np.full((24, 48, 3), [0, 1, 2], np.uint8))
    with pytest.raises(UserError, match="has 3 channels, but one number a pixel was expected"):
        split[Key(0, 1)]
    path.unlink()
    assert f"no label of: 1 ({SAMPLE}: {path})" in problem("cityscapes", tree)


def test_empty(tree):
    shutil.rmtree(tree / "cityscapes/leftImg8bit/val")
    assert "no images of test; expected leftImg8bit, gtFine" in problem("cityscapes", tree)
