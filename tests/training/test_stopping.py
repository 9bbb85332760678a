"""What ends a training early."""

import signal
from pathlib import Path
from typing import Any, cast

import pytest

from mmrobust.errors import Stopped, UserError
from mmrobust.training.stopping import StopOnSignal


def test_a_run_that_fails_once_it_was_asked_to_stop_is_stopped(tmp_path: Path) -> None:
    """A sweep that is asked to stop begins no further run, whatever becomes of the present one."""
    nobody = cast(Any, None)
    callback = StopOnSignal(tmp_path)
    callback.on_exception(nobody, nobody, UserError("a data worker was lost"))
    callback.received = signal.SIGTERM
    with pytest.raises(Stopped, match=r"not saved \(a data worker was lost\); go on .* resume=") as stop:
        callback.on_exception(nobody, nobody, UserError("a data worker was lost"))
    assert stop.value.status == 143
    callback.on_exception(nobody, nobody, stop.value)
