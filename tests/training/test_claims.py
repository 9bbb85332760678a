"""Locks on devices and run folders, held by real processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from mmrobust.config.compose import compose_config
from mmrobust.errors import UserError
from mmrobust.training.claims import POOL, Pool, claim, claimed
from mmrobust.training.devices import threads, visible_gpus
from mmrobust.training.locks import HELD, locked

fork = multiprocessing.get_context("fork")


def start(task: Callable[[], Any]) -> Any:
    process = fork.Process(target=task)
    process.start()
    return process


def until(done: Callable[[], Any]) -> None:
    for _ in range(1000):
        if done():
            return
        time.sleep(0.01)
    raise AssertionError("waited for nothing")


def taken(folder: Path, ids: list[str], count: int, sharing: int, name: str) -> Any:
    """A process that holds devices until it is killed; its file says which."""

    def hold() -> None:
        with claim(ids, count, sharing, folder) as devices:
            (folder / f"{name}.part").write_text(",".join(devices))
            (folder / f"{name}.part").rename(folder / name)
            time.sleep(60)

    return start(hold)


@pytest.fixture
def kill() -> Iterator[Callable[[Any], None]]:
    def strike(process: Any) -> None:
        os.kill(process.pid, signal.SIGKILL)
        process.join()

    yield strike
    for process in multiprocessing.active_children():
        strike(process)


def test_two_processes_never_hold_one_device(tmp_path: Path) -> None:
    """Two workers, eight jobs on two devices, of which every fourth wants both."""

    def work(worker: int) -> None:
        for job in range(4):
            with claim(["GPU-a", "GPU-b"], 1 + (job == 2), 1, tmp_path) as devices:
                started = time.monotonic()
                time.sleep(0.05)
                for device in devices:
                    (tmp_path / f"{worker}{job}{device}.txt").write_text(f"{started} {time.monotonic()}")

    workers = [start(lambda worker=worker: work(worker)) for worker in range(2)]  # type: ignore[misc]
    for process in workers:
        process.join()
        assert process.exitcode == 0
    for device in ("GPU-a", "GPU-b"):
        times = sorted(tuple(map(float, p.read_text().split())) for p in tmp_path.glob(f"*{device}.txt"))
        assert len(times) >= 2 + 2 * (device == "GPU-a")
        assert all(end <= start for (_, end), (start, _) in pairwise(times))
    assert len(list(tmp_path.glob("*.txt"))) == 10


def test_a_device_is_free_when_its_process_dies(tmp_path: Path, kill: Callable[[Any], None]) -> None:
    first = taken(tmp_path, ["0", "1"], 2, 1, "first")
    until((tmp_path / "first").exists)
    taken(tmp_path, ["0", "1"], 1, 1, "second")
    time.sleep(0.3)
    assert not (tmp_path / "second").exists()
    kill(first)
    until((tmp_path / "second").exists)


def test_sharing(tmp_path: Path, kill: Callable[[Any], None]) -> None:
    """Two that allow it share a device; one that does not stays alone, whatever others allow."""
    sharing = [taken(tmp_path, ["0"], 1, 2, f"half{i}") for i in range(2)]
    until(lambda: all((tmp_path / f"half{i}").exists() for i in range(2)))
    taken(tmp_path, ["0"], 1, 1, "whole")
    kill(sharing[0])
    time.sleep(0.3)
    assert not (tmp_path / "whole").exists()
    kill(sharing[1])
    until((tmp_path / "whole").exists)
    taken(tmp_path, ["0"], 1, 2, "half2")
    time.sleep(0.3)
    assert not (tmp_path / "half2").exists()


def test_a_lock_lives_as_long_as_the_training_process(tmp_path: Path) -> None:
    """A worker that is killed leaves its training behind, which still writes into the run's folder."""
    code = "import time; print('up', flush=True); time.sleep(1)"

    def work() -> None:
        with locked(tmp_path / ".lock"):
            child = subprocess.Popen(
                [sys.executable, "-c", code], pass_fds=tuple(HELD), start_new_session=True, stdout=-1
            )
            assert child.stdout
            child.stdout.read(2)
            os.kill(os.getpid(), signal.SIGKILL)

    start(work).join()
    started = time.monotonic()
    with locked(tmp_path / ".lock"):
        assert time.monotonic() - started > 0.5


def test_who_waits_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(tmp_path / "a", waiting="waiting for a"):
        assert capsys.readouterr().out == ""

    def hold() -> None:
        with locked(tmp_path / "a"):
            (tmp_path / "held").touch()
            time.sleep(0.3)

    start(hold)
    until((tmp_path / "held").exists)
    with pytest.raises(UserError, match="a is taken"), locked(tmp_path / "a", refused="a is taken"):
        raise AssertionError
    with locked(tmp_path / "a", waiting="waiting for a"):
        assert capsys.readouterr().out == "waiting for a\n"


def test_what_a_run_takes(tmp_path: Path) -> None:
    def given(pool: Pool, *overrides: str) -> list[str]:
        token = POOL.set(pool)
        try:
            with claimed(compose_config(overrides)) as gpus:
                return gpus
        finally:
            POOL.reset(token)

    pool = Pool(("4", "5", "6"), ("core0",), folder=tmp_path)
    assert given(pool) == ["4"]
    assert given(pool, "trainer.devices=2") == ["4", "5"]
    assert given(pool, "trainer.devices=-1") == ["4", "5", "6"]
    assert given(pool, "trainer.devices=[1]") == ["4", "5", "6"]  # sees all, of which it takes the second
    assert given(pool, "trainer.accelerator=cpu", "trainer.devices=2") == []
    assert given(Pool()) == []


def test_visible_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, found in {"": (), "2": ("2",), "GPU-1f,3": ("GPU-1f", "3"), "0, 1,-1,2": ("0", "1")}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        assert visible_gpus() == found


def test_threads() -> None:
    assert threads(compose_config([])) == 1
    assert threads(compose_config(["encoder=resnet18"])) is None
    assert threads(compose_config(["encoder=resnet18", "threads=3"])) == 3
