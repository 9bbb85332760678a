"""Two processes on the CPU: the numbers of one, one configuration, one folder, one end."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.config.identity import load_run_config
from mmrobust.evaluate import main as evaluate
from mmrobust.evaluation.results import read_predictions, read_results
from mmrobust.run import main
from mmrobust.testing import step
from mmrobust.training.session import build_method
from tests.runs import fault, on_two_ranks, seen, tiny, weights, witness
from tests.squares import CONF

pytestmark = pytest.mark.slow

SMALL = tiny(
    "encoder.width=16",
    "data.num_train=128",
    "data.num_val=31",
    "data.num_test=63",
    "data.batch_size=32",
    "optimizer=sgd",
    "allow=[tests]",
    "keep=all",
)


def test_an_epoch_is_that_of_one_process(tmp_path: Path) -> None:
    """With GroupNorm the global batch decides; and evaluating the checkpoint in one process counts the same."""
    small = [*SMALL, "method=dropout", "encoder.norm=group"]
    assert main([*small, f"paths.run={tmp_path}/1"]) == 0
    on_two_ranks([*small, f"paths.run={tmp_path}/2"], tmp_path)
    one, two = weights(tmp_path / "1"), weights(tmp_path / "2")
    worst = max((one[key] - two[key]).abs().max().item() for key in one)
    assert worst < 1e-5
    assert evaluate([f"run={tmp_path}/2", "allow=[tests]"]) == 0
    (again,) = (tmp_path / "2/evaluations").glob("*")
    assert read_results(again)["combinations"] == read_results(tmp_path / "2")["combinations"]
    a, b = (read_predictions(folder / "predictions.npz") for folder in (tmp_path / "2", again))
    assert a["index"].tolist() == b["index"].tolist() == list(range(63))
    assert np.array_equal(a["logits"].argmax(-1), b["logits"].argmax(-1))


@pytest.mark.parametrize("fusion", ["pyramid", "esanet"])
def test_confusion_matrices_of_segmentation_are_those_of_one_process(fusion: str, tmp_path: Path) -> None:
    small = ["--config-dir", CONF, "data=squares", "allow=[tests]", "encoder.width=8", "trainer.max_epochs=1"]
    small += ["method=dropout", f"fusion={fusion}", "trainer.accelerator=cpu", "data.num_samples=22"]
    on_two_ranks([*small, "data.batch_size=8", f"paths.run={tmp_path}/2"], tmp_path)
    assert evaluate([f"run={tmp_path}/2", "allow=[tests]"]) == 0
    (again,) = (tmp_path / "2/evaluations").glob("*")
    assert read_results(again)["combinations"] == read_results(tmp_path / "2")["combinations"]
    two, one = (read_predictions(folder / "predictions.npz") for folder in (tmp_path / "2", again))
    assert two["index"].tolist() == list(range(22))
    assert two["confusion"].shape == (22, 3, 3, 3)
    assert two["confusion"].sum() > 0
    assert np.array_equal(two["confusion"], one["confusion"])


def test_first_gradients_are_those_of_the_halves(tmp_path: Path) -> None:
    """With BatchNorm every rank normalises its half; lr 1 makes the first step the gradient."""
    small = [*SMALL, "method=dropout", "trainer.max_steps=1", "optimizer.lr=1.0", "schedule=constant"]
    small += ["optimizer.momentum=0", "optimizer.weight_decay=0", "trainer.limit_val_batches=0"]
    on_two_ranks([*small, f"paths.run={tmp_path}/run", "selection=last"], tmp_path)
    config = load_run_config(tmp_path / "run")
    data = construct(config.data)
    data.setup()
    method = build_method(config, data.spec)
    batch = next(iter(data.loader("train", shuffle=True)))
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    total = {name: torch.zeros_like(p) for name, p in before.items()}
    for rank in range(2):
        step(method, batch.select(range(rank, 32, 2)))
        for name, p in method.named_parameters():
            assert p.grad is not None
            total[name] += p.grad / 2
    after = weights(tmp_path / "run")
    for name, gradient in total.items():
        torch.testing.assert_close(before[name] - after[name], gradient, atol=1e-5, rtol=1e-4)


AGREED = {  # method -> its keys, and what of its state says that it learned something
    "dmrnet": (["method.mining_epochs=1"], {"mining.hard": 3, "mining.count": 128}),
    "mmanet": (["method.warm_up=1", "method.mining_epochs=1"], {"mining.weak": 3}),
    "udml": ([], {"reliance.value": None}),
    "pmr": ([], {"prototypes.m1.known": 8}),
    "qmf": ([], {"loss_count": 3 * 2 * 128}),
    "agm": ([], {"steps": 3 * 2 * 4}),
    "mla": ([], {"projection": None}),
}


@pytest.mark.parametrize("method", AGREED)
def test_ranks_agree_on_what_they_learned(method: str, tmp_path: Path) -> None:
    """Mined combinations, reliance, prototypes, losses of samples, and the weights, to the last bit."""
    keys, learned = AGREED[method]
    small = [*SMALL, f"method={method}", *keys, "data.num_modalities=3", "trainer.max_epochs=2"]
    small += [f"paths.outputs={tmp_path}/out", f"paths.run={tmp_path}/run", witness(tmp_path / "seen")]
    on_two_ranks(small, tmp_path)
    found = seen(tmp_path / "seen")
    first, second = found["run"]
    for name, total in learned.items():
        assert total is None or first["state"][name].sum() == total, name
    for name, value in first["state"].items():
        assert torch.equal(value, second["state"][name]), name


def test_one_rank_that_fails_stops_all(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fails = "+callbacks.fault={_target_: tests.faults.Fails, rank: 1}"
    assert main([*SMALL, "trainer.devices=2", f"paths.run={tmp_path}", fails]) == 2
    ended = time.time()
    printed = capfd.readouterr().err
    assert "rank 1 fails on purpose" in printed
    assert "stopped with status 1" in printed
    assert ended - (tmp_path / "failed").stat().st_mtime < 30


def test_one_rank_that_is_killed_stops_all(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = [*SMALL, "trainer.devices=2", f"paths.run={tmp_path}/run", fault("batch", 2, 9, tmp_path)]
    assert main(run) == 2
    printed = capfd.readouterr().err
    assert "was ended by SIGKILL (by the system, if memory ran out); go on with" in printed
    assert "Traceback" not in printed
    assert "torch" not in printed


def test_a_signal_stops_all_ranks(tmp_path: Path) -> None:
    """One rank is asked, all stop together, and the run goes on where it was."""
    small = [*SMALL, "method=dropout", "encoder.norm=group", "data.num_train=640"]  # 20 batches an epoch
    assert main([*small, f"paths.run={tmp_path}/one"]) == 0
    argv = [*small, "trainer.devices=2", f"paths.run={tmp_path}/two", fault("batch", 5, 15, tmp_path)]
    assert main(argv) != 0
    last = torch.load(tmp_path / "two/checkpoints/last.ckpt", weights_only=True)
    assert last["steps"] == 10
    assert main([f"resume={tmp_path}/two", "allow=[tests]"]) == 0
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert max((one[key] - two[key]).abs().max().item() for key in one) < 1e-5


SEARCH = ["sweep=optuna", "sweep.trials=2", "sweep.pruner=median", "optimizer.lr=interval(0.1,0.2)"]


@pytest.mark.parametrize(
    "more",
    [
        ["optimizer.lr=0.1,0.2"],
        ["optimizer.lr=0.1,0.2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=1"],
        SEARCH,
    ],
    ids=["basic", "joblib", "optuna"],
)
def test_every_job_of_a_sweep_is_a_group_of_its_own(more: list[str], tmp_path: Path) -> None:
    """All ranks of a job saw one configuration and one folder, and no job saw another's."""
    sweep = ["-m", *SMALL, "trainer.devices=2", f"paths.outputs={tmp_path}/out", witness(tmp_path / "seen")]
    assert main([*sweep, *more]) == 0
    runs = seen(tmp_path / "seen")
    assert len(runs) == len(list((tmp_path / "out").glob("*/*/results.json"))) == 2
    rates = [0.1, 0.2]
    if more is SEARCH:  # the study drew them, and the ranks' first reported every score to it
        from optuna import load_study
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        (journal,) = (tmp_path / "out/studies").glob("*.journal")
        study = load_study(study_name=journal.stem, storage=JournalStorage(JournalFileBackend(str(journal))))
        rates = sorted(trial.params["optimizer.lr"] for trial in study.trials)
        assert [trial.intermediate_values for trial in study.trials] == [{0: t.value} for t in study.trials]
    assert sorted(ranks[0]["lr"] for ranks in runs.values()) == rates
    for name, (first, second) in runs.items():
        for key in ("config", "run", "job", "lr"):
            assert first[key] == second[key]
        assert Path(first["run"]).name == name
    assert len({ranks[0]["job"] for ranks in runs.values()}) == 2


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["data=nyuv2", "data.root={tmp}/absent"], "absent"),
        (["data.num_train=16"], "fewer than data.batch_size=32"),
        (["callbacks=early_stopping", "callbacks.early_stopping.monitor=val/x/y"], "which is not logged"),
    ],
    ids=["data", "batch", "rank"],
)
def test_a_mistake_is_said_once(
    keys: list[str], words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """By the parent, whether it found it before the ranks were started or they did; torchrun is not heard."""
    small = [text for text in SMALL if not (text.startswith("data") and "data=nyuv2" in keys)]
    given = [key.format(tmp=tmp_path) for key in keys]
    more = ["method=dropout", "trainer.devices=2", "trainer.accelerator=auto", f"paths.run={tmp_path}/run"]
    assert main([*small, *more, *given]) == 2
    printed = capfd.readouterr()
    assert printed.err.count("error") == 1
    assert printed.err.count(words) == 1
    for noise in (
        "Traceback",
        "OMP_NUM_THREADS",
        "ChildFailedError",
        "torch.distributed",
        "the first error above",
    ):
        assert noise not in printed.err + printed.out
    if not torch.cuda.is_available():
        assert "this machine has no GPU: 2 processes share its" in printed.out


def test_a_batch_that_does_not_divide(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Said before a process starts."""
    assert main([*SMALL, "trainer.devices=2", "data.batch_size=33", f"paths.run={tmp_path}"]) == 2
    assert "data.batch_size=33 counts the samples of all 2 devices" in capfd.readouterr().err


def test_configuration_of_several_devices() -> None:
    from mmrobust.training.devices import count_devices

    def count(*overrides: str) -> int:
        return count_devices(compose_config(list(overrides)))

    assert count("trainer.devices=3", "trainer.accelerator=cpu") == 3
    assert count("trainer.devices=1") == 1
    assert count("trainer.devices=[0,1]", "trainer.accelerator=cpu") == 2
