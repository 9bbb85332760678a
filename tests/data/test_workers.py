"""Data workers: what the machine lacks for them is told before they start, and none keeps the others waiting."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from mmrobust.data import workers
from mmrobust.data.workers import bytes_of, check_machine
from mmrobust.errors import UserError

Usage = namedtuple("Usage", "total used free")


def test_bytes_of_a_batch() -> None:
    assert bytes_of([(3, 8, 8), (10,)], 2) == 2 * (4 * (192 + 10) + 8 * 64)
    assert bytes_of([(10,)], 1) == 40 + 80


def test_shared_memory_that_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "SHARED", Path("/"))
    monkeypatch.setattr(workers.shutil, "disk_usage", lambda _: Usage(2**20, 0, 2**20))  # type: ignore[attr-defined]
    check_machine(2, 2**17, 6)
    check_machine(0, 2**30, 6)
    with pytest.raises(
        UserError, match=r"has 1\.0 MiB free, and data\.workers=2 .* need about 6\.0 MiB; .* --shm-size"
    ):
        check_machine(2, 2**20, 6)


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from mmrobust.data.workers import check_machine
check_machine(2, 1, 6)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def limited(soft: int, hard: int) -> subprocess.CompletedProcess[str]:
    code = LIMITED.format(soft=soft, hard=hard)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_open_files_that_are_too_few() -> None:
    done = limited(48, 48)
    assert "need about 72 open files, and this process may have 48" in done.stderr
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert int(limited(64, 200 if hard < 0 else min(hard, 200)).stdout) > 64  # as many as it may have


STUCK = """
import sys
from torch.utils.data import DataLoader, Dataset
from mmrobust.data import workers
from mmrobust.errors import guarded

class Unsent(Dataset):
    def __len__(self): return 4
    def __getitem__(self, i): return lambda: i  # which no queue can send

def command():
    for _ in DataLoader(Unsent(), num_workers=1, collate_fn=lambda x: x, worker_init_fn=workers.start_worker): pass
    return 0

sys.exit(guarded(command))
"""


def test_a_batch_that_cannot_be_handed_over_ends_the_waiting() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert "a data worker cannot hand over a batch" in done.stderr
    assert "error: a data worker was lost: DataLoader worker" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_thread_that_finds_no_file_ends_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(workers.os, "_exit", ended.append)  # type: ignore[attr-defined]
    workers._end_without_files(OSError, OSError(errno.EMFILE, "Too many open files"), None)
    assert ended == [1]


ASKED = """
import os, signal
from torch.utils.data import DataLoader, Dataset
from mmrobust.data import workers

class Slow(Dataset):
    def __len__(self): return 8
    def __getitem__(self, i): return i

asked = []
signal.signal(signal.{name}, lambda *_: asked.append(1))
seen = []
for batch in DataLoader(Slow(), num_workers=2, worker_init_fn=workers.start_worker):
    seen += batch.tolist()
    # the workers take turns, so both of them have begun
    if len(seen) == 2: os.killpg(0, signal.{name})
print(len(asked), sorted(seen))
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_to_all_processes_leaves_the_workers_at_work(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASKED.format(name=name)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        start_new_session=True,
    )
    assert done.stdout == "1 [0, 1, 2, 3, 4, 5, 6, 7]\n", done.stderr
