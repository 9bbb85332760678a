"""Rules over several keys."""

import pytest

from mmrobust.config.compose import compose_config
from mmrobust.config.rules import modality_names


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["data=cremad"], ["audio", "visual"]),
        (["data=avmnist"], ["image", "audio"]),
        ([], ["fou", "kar", "mor"]),
        (["data=digits", "data.views=[mor]"], ["mor"]),
        (["data=synthetic"], ["m1", "m2"]),
        (["data=synthetic", "data.num_modalities=3"], ["m1", "m2", "m3"]),
        (["data=synthetic", "data.num_modalities=8"], [f"m{i + 1}" for i in range(8)]),
        (["data=synthetic", "data.task=segmentation"], ["rgb", "depth"]),
        (["data=synthetic", "data.task=segmentation", "data.num_modalities=3"], ["rgb", "depth", "infrared"]),
    ],
    ids=str,
)
def test_modality_names(overrides: list[str], names: list[str]) -> None:
    assert modality_names(compose_config(overrides)) == names
