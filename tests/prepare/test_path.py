"""From a generated download to a run, for every dataset."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmrobust.prepare.__main__ import main
from mmrobust.prepare.plan import DATASETS
from mmrobust.prepare.record import MANIFEST, read_manifest
from tests.data.trees import PREPARED, SMALL, ready

OF_CLIPS = ("cremad", "ave", "kinetics_sounds")


@pytest.fixture(scope="module", params=DATASETS)
def prepared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a prepared dataset, below one called data."""
    name = request.param
    if name in OF_CLIPS:
        pytest.importorskip("av")
    root = tmp_path_factory.mktemp(name)
    assert main(["synthetic", f"layout={name}", f"out={root / 'raw'}"]) == 0
    assert main([name, f"raw={root / 'raw'}", f"out={root / 'data' / name}", "workers=2"]) == 0
    return root / "data" / name


def test_all_is_recorded_and_readable(prepared):
    name = prepared.name
    manifest = read_manifest(prepared)
    assert manifest.generated
    assert not [record.why for record in manifest.records if record.why]
    recorded = {path for record in manifest.records for path in record.outputs}
    files = {str(path.relative_to(prepared)) for path in prepared.rglob("*") if path.is_file()}
    beside = {f for f in files if not any(f == r or f.startswith(f"{r}/") for r in recorded)}
    assert beside == {MANIFEST}
    data = ready(name, prepared.parent, *PREPARED.get(name, ()))
    for split in data.splits:
        assert data.splits[split].ids
    next(iter(data.loader("train", shuffle=True)))
    if name not in ("avmnist",):
        held_out = {"train", *({"val"} if "val" not in manifest.counts() else ())}
        samples = sum(len(data.splits[split]) for split in data.splits if split in held_out)
        assert samples == sum(manifest.counts()["train"].values())


def test_it_holds(prepared, capsys):
    assert main([prepared.name, f"out={prepared}", "verify=true"]) == 0
    told = capsys.readouterr().out
    assert "all holds" in told
    assert "NO " not in told


def test_a_second_run_makes_nothing(prepared, capsys):
    before = (prepared / MANIFEST).stat()
    raw = prepared.parents[1] / "raw"
    assert main([prepared.name, f"raw={raw}", f"out={prepared}"]) == 0
    assert "all were there" in capsys.readouterr().out
    after = (prepared / MANIFEST).stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
    assert sorted(path.name for path in prepared.parent.iterdir()) == [prepared.name]


@pytest.mark.slow
def test_a_run_learns_from_it(prepared, tmp_path):
    from mmrobust.run import main as run

    name = prepared.name
    keys = [key.format(root=prepared.parent) for key in (*SMALL.get(name, ()), *PREPARED.get(name, ()))]
    argv = [f"data={name}", f"data.root={prepared}", "data.batch_size=4", "data.workers=0", "method=dropout"]
    argv += ["trainer.max_epochs=1", "trainer.accelerator=cpu", "encoder=tiny", "encoder.width=8", *keys]
    assert run([*argv, f"paths.outputs={tmp_path}"]) == 0
