"""What a run of W&B is told, over interruptions. `Run` stands for W&B's, which `test_wandb_run` has."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmrobust.loggers.wandb_segment import STEP, Segment


@dataclass
class Run:
    """As much of W&B's as a segment asks for; keeps what is logged."""

    sync_dir: str
    starting_step: int = 0
    offline: bool = True
    rows: list[dict[str, Any]] = field(default_factory=list)

    def log(self, row: dict[str, Any]) -> None:
        self.rows.append(row)


def start(folder: Path, run: Run) -> Segment:
    Path(run.sync_dir).mkdir(parents=True)
    segment = Segment(folder, "hash")
    segment.begin(run)
    return segment


def train(segment: Segment, run: Run, steps: range) -> None:
    for step in steps:
        if fresh := segment.new({"train/loss": step / 10, "epoch": 0}, step):
            segment.log(run, fresh, step)


def steps(run: Run) -> list[int]:
    return [row[STEP] for row in run.rows]


def test_what_was_cut_short_offline_is_logged_again(tmp_path: Path) -> None:
    """Killed at step 5, resumed from 3, killed at once, resumed again, stopped in good order, resumed."""
    runs = [Run(str(tmp_path / f"wandb/offline-run-{i}")) for i in range(4)]
    train(start(tmp_path, runs[0]), runs[0], range(6))
    train(start(tmp_path, runs[1]), runs[1], range(3, 5))
    assert not Path(runs[0].sync_dir).exists()
    third = start(tmp_path, runs[2])
    train(third, runs[2], range(3, 8))
    third.end()
    assert not Path(runs[1].sync_dir).exists()
    fourth = start(tmp_path, runs[3])
    train(fourth, runs[3], range(6, 10))
    assert Path(runs[2].sync_dir).exists()
    assert steps(runs[2]) + steps(runs[3]) == list(range(10))
    assert len({Segment(tmp_path, "hash").id, third.id, fourth.id}) == 1


def test_what_the_server_has_is_not_sent_again(tmp_path: Path) -> None:
    first = Run(str(tmp_path / "wandb/run-0"), offline=False)
    train(start(tmp_path, first), first, range(6))  # of these the server has 4
    second = Run(str(tmp_path / "wandb/run-1"), starting_step=4, offline=False)
    train(start(tmp_path, second), second, range(2, 9))
    assert steps(second) == [4, 5, 6, 7, 8]


def test_a_metric_may_be_logged_twice_at_a_step_by_one_process(tmp_path: Path) -> None:
    run = Run(str(tmp_path / "wandb/offline-run-0"))
    segment = start(tmp_path, run)
    for _ in range(2):
        segment.log(run, segment.new({"val/m1/accuracy": 0.5}, 7), 7)
    assert steps(run) == [7, 7]
    assert Segment(tmp_path, "hash").new({"val/m1/accuracy": 0.5, "epoch": 1}, 7) == {}
    assert Segment(tmp_path, "hash").new({"val/m2/accuracy": 0.5}, 7) == {"val/m2/accuracy": 0.5}


def test_a_run_made_again_is_another(tmp_path: Path) -> None:
    """What the record says holds for its folder and its configuration."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a-2").mkdir()
    run = Run(str(tmp_path / "a/wandb/offline-run-0"))
    first = start(tmp_path / "a", run)
    train(first, run, range(3))
    assert Segment(tmp_path / "a", "hash").id == first.id
    others = [Segment(tmp_path / "a-2", "hash"), Segment(tmp_path / "a", "other")]
    assert len({first.id, *(other.id for other in others)}) == 3
    assert all(other.new({"train/loss": 0.5}, 1) for other in others)


def test_a_record_that_is_cut_short(tmp_path: Path) -> None:
    run = Run(str(tmp_path / "wandb/offline-run-0"))
    first = start(tmp_path, run)
    train(first, run, range(3))
    first.path.write_text(first.path.read_text()[:-9])
    again = Segment(tmp_path, "hash")
    assert again.id == first.id
    assert again.step == 1
    first.path.write_text('{"id": "ab')
    assert Segment(tmp_path, "hash").id != first.id
