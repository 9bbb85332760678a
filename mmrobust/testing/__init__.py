"""A conformance kit: what every method, encoder and dataset must fulfil, ours and a user's.

    python -m mmrobust.testing method=my_method --config-dir my_conf 'allow=[my_method]'

or in a test of one's own:

    from mmrobust.testing import check_method, describe_data
    check_method(lambda spec: MyMethod(spec=spec, ...), describe_data(num_modalities=3))

Each check raises an AssertionError that says what does not hold. The names are found here, and imported when first
asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmrobust.testing.dataset import check_dataset as check_dataset
    from mmrobust.testing.encoder import check_encoder as check_encoder
    from mmrobust.testing.made_up import describe_data as describe_data
    from mmrobust.testing.made_up import fill_absent as fill_absent
    from mmrobust.testing.made_up import make_batch as make_batch
    from mmrobust.testing.method import check_method as check_method
    from mmrobust.testing.method import step as step

NAMES = {
    "check_dataset": "dataset",
    "check_encoder": "encoder",
    "check_method": "method",
    "describe_data": "made_up",
    "fill_absent": "made_up",
    "make_batch": "made_up",
    "step": "method",
}


def __getattr__(name: str) -> Any:
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{NAMES[name]}"), name)
