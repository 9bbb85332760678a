import numpy as np
import pytest

from mmrobust.data.families.maps import VOID, as_classes, from_one, median_frequency
from mmrobust.errors import UserError


def test_median_frequency_by_hand():
    one = np.array([[0, 0, 1], [0, 1, VOID]])  # 6 pixels
    two = np.array([[0, 2], [VOID, VOID]])  # 4 pixels
    # f: 0 has 4 of 10 pixels, 1 has 2 of 6, 2 has 1 of 4, 3 never occurs; the median is 1/3
    found = median_frequency([x.astype(np.uint8) for x in (one, two)], 4)
    assert found == pytest.approx([(1 / 3) / (4 / 10), 1, (1 / 3) / (1 / 4), 1])


def test_labels_to_classes():
    numbers = np.array([[0, 1], [2, 3]])
    expected = [[VOID, 0], [1, 2]]
    for kind in (np.uint8, np.uint16, np.int32, np.float64):
        found = as_classes(numbers.astype(kind), from_one(3), "here")
        assert found.tolist() == expected
        assert found.dtype == np.uint8
    with pytest.raises(UserError, match=r"here has labels outside of 0 to 2: 3"):
        as_classes(numbers, from_one(2), "here")
    with pytest.raises(UserError, match=r"outside of 0 to 3: -1"):
        as_classes(numbers - 1, from_one(3), "here")
    with pytest.raises(UserError, match="not whole"):
        as_classes(numbers + 0.5, from_one(9), "here")
