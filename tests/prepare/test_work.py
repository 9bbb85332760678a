"""What a preparation does with damage, with kills, with disks, and with folders that are none of its business."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmrobust.prepare import work
from mmrobust.prepare.__main__ import main
from mmrobust.prepare.record import JOURNAL, MANIFEST, read_manifest
from mmrobust.prepare.synthetic import cremad

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:c6f94b\nsize 72862\n"


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    """A generated CREMA-D."""
    pytest.importorskip("av")
    raw = tmp_path_factory.mktemp("cremad") / "raw"
    cremad.make(raw, actors=1)
    return raw


@pytest.fixture
def raw(shared, tmp_path) -> Path:
    """One that a test may damage."""
    return Path(shutil.copytree(shared, tmp_path / "raw"))


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Path:
    """A generated Cityscapes, which needs no PyAV."""
    raw = tmp_path_factory.mktemp("cityscapes") / "raw"
    assert main(["synthetic", "layout=cityscapes", f"out={raw}"]) == 0
    return raw


def prepare(raw: Path, out: Path, *more: str, dataset: str = "cremad") -> int:
    return main([dataset, f"raw={raw}", f"out={out}", "workers=2", *more])


def refused(capsys, *argv: str) -> str:
    assert main(list(argv)) == 2
    return capsys.readouterr().err


def skipped(out: Path) -> dict[str, str]:
    return {record.name: record.why for record in read_manifest(out).records if record.why}


def test_bad_files_are_named_and_the_rest_is_done(raw, tmp_path, capsys):
    videos, wavs = raw / "VideoFlash", raw / "AudioWAV"
    pointer, empty, cut, soundless = (f"1001_IEO_{emotion}_XX" for emotion in ("ANG", "DIS", "FEA", "HAP"))
    (videos / f"{pointer}.flv").write_bytes(LFS)
    (videos / f"{empty}.flv").write_bytes(b"")
    content = (videos / f"{cut}.flv").read_bytes()
    (videos / f"{cut}.flv").write_bytes(content[: 2 * len(content) // 3])
    (wavs / f"{soundless}.wav").write_bytes((wavs / f"{soundless}.wav").read_bytes()[:44])
    (videos / "1001_IEO_NEU_XX.flv").write_text("<html>not found</html>")
    (wavs / "1001_IEO_SAD_XX.wav").unlink()  # its sound is then that of the video
    (wavs / "1001_TIE_SAD_XX.wav").write_bytes(LFS)
    (videos / "1001_TIE_FEA_XX.flv").unlink()
    for name in ("my clip, 2", "-x"):
        shutil.copy(videos / "1001_IEO_SAD_XX.flv", videos / f"{name}.flv")
    assert prepare(raw, tmp_path / "out") == 1
    told = capsys.readouterr().out
    why = skipped(tmp_path / "out")
    assert set(why) == {
        *(pointer, empty, cut, soundless, "1001_IEO_NEU_XX", "1001_TIE_SAD_XX", "1001_TIE_FEA_XX"),
        *("my clip, 2", "-x"),
    }
    assert "git lfs pull" in why[pointer]
    assert "empty" in why[empty]
    assert "cut short" in why[cut]
    assert "holds no samples" in why[soundless] or "cut short" in why[soundless]
    assert "cannot be read as a video" in why["1001_IEO_NEU_XX"]
    assert "git lfs pull" in why["1001_TIE_SAD_XX"]
    assert "no video" in why["1001_TIE_FEA_XX"]
    assert "1001_DFA_ANG_XX" in why["-x"]
    for name in why:
        assert f"\n  {name}: " in told
        assert not list((tmp_path / "out").glob(f"*/{name}*"))
    assert len([r for r in read_manifest(tmp_path / "out").records if not r.why]) == 18 - 7 + 2
    assert "data.corrupt=skip" in told
    # The second run knows it all without decoding, and says it again; what was mended is made.
    assert prepare(raw, tmp_path / "out") == 1
    assert "(all were there)" in capsys.readouterr().out
    for name in why:
        (videos / f"{name}.flv").unlink(missing_ok=True)
        (wavs / f"{name}.wav").unlink(missing_ok=True)
    (videos / f"{empty}.flv").write_bytes(content)
    shutil.copy(wavs / "1001_IOM_ANG_XX.wav", wavs / f"{empty}.wav")
    prepare(raw, tmp_path / "out")
    assert "(1 now" in capsys.readouterr().out or empty not in skipped(tmp_path / "out")


def test_a_video_without_sound(tmp_path, capsys):
    pytest.importorskip("av")
    from mmrobust.prepare.synthetic.film import write_film

    main(["synthetic", "layout=ave", f"out={tmp_path / 'raw'}"])
    first, second = sorted((tmp_path / "raw/AVE").iterdir())[:2]
    first.unlink()
    write_film(first, 0, 1, (32, 32), sound=False)
    second.write_bytes(second.read_bytes()[:500])
    assert prepare(tmp_path / "raw", tmp_path / "out", dataset="ave") == 1
    why = skipped(tmp_path / "out")
    assert "has no sound" in why[first.stem]
    assert "cannot be read as a video" in why[second.stem]
    assert len(why) == 2


def test_nothing_that_can_be_used_makes_no_folder(raw, tmp_path, capsys):
    for path in [*raw.glob("*/*.wav"), *raw.glob("*/*.flv")]:
        path.write_bytes(LFS)
    assert prepare(raw, tmp_path / "out") == 2
    told = capsys.readouterr()
    assert told.out.count("git lfs pull") == 18
    assert "nothing of raw=" in told.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


def test_folders_that_are_wrong(frames, tmp_path, capsys):
    raw = Path(shutil.copytree(frames, tmp_path / "raw"))
    assert "lies in raw" in refused(capsys, "cityscapes", f"raw={raw}", f"out={raw / 'prepared'}")
    assert "lies in raw" in refused(capsys, "cityscapes", f"raw={raw}", f"out={raw}")
    (tmp_path / "link").symlink_to(raw)
    assert "lies in raw" in refused(capsys, "cityscapes", f"raw={raw}", f"out={tmp_path / 'link/x'}")
    told = refused(capsys, "cremad", f"raw={raw}", f"out={tmp_path / 'out'}")
    assert "holds no CREMA-D" in told
    assert "it looks like cityscapes: take `prepare cityscapes`" in told
    assert "is no folder" in refused(capsys, "cremad", f"raw={tmp_path / 'none'}", f"out={tmp_path / 'out'}")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("mine")
    assert "not prepared here" in refused(capsys, "cityscapes", f"raw={raw}", f"out={tmp_path / 'mine'}")
    assert "exists already" in refused(capsys, "synthetic", "layout=ave", f"out={tmp_path / 'mine'}")
    assert "no folder, so there is nothing" in refused(
        capsys, "cityscapes", f"out={tmp_path / 'out'}", "verify=true"
    )
    assert prepare(raw, tmp_path / "out", dataset="cityscapes") == 0
    told = refused(capsys, "casia_surf", f"out={tmp_path / 'out'}", "verify=true")
    assert "holds cityscapes, not casia_surf" in told
    (tmp_path / "raw/leftImg8bit/train/aachen").rename(tmp_path / "aachen")
    told = refused(capsys, "cityscapes", f"raw={raw}", f"out={tmp_path / 'out'}")
    assert "8 items that raw no longer has" in told


def test_command_lines_that_are_wrong(capsys):
    told = refused(capsys, "cremad", "raw", "fps=0", "workers=x", "verify=maybe", "classes=3")
    for part in ("'raw' is not known", "fps=0", "workers=x", "verify=maybe", "'classes=3'"):
        assert part in told
    assert "begin with one of cremad" in refused(capsys, "imagenet", "raw=x")
    assert "layout=x is not known" in refused(capsys, "synthetic", "layout=x")
    assert "name the folder raw=" in refused(capsys, "cremad", "out=x")


def test_what_was_made_outlives_a_download_that_was_lost(raw, tmp_path, capsys):
    out, name = tmp_path / "out", "1001_IEO_ANG_XX"
    assert prepare(raw, out) == 0
    frames = sorted((out / "Image-01-FPS" / name).iterdir())
    (raw / f"VideoFlash/{name}.flv").write_bytes(LFS)
    capsys.readouterr()
    assert prepare(raw, out) == 1
    assert f"{name}: " in (told := capsys.readouterr().out)
    assert "what was made before is kept" in told
    assert sorted((out / "Image-01-FPS" / name).iterdir()) == frames
    for path in raw.glob("*/*.[wf][al]v"):
        path.write_bytes(LFS)
    assert prepare(raw, out) == 1
    assert sorted((out / "Image-01-FPS" / name).iterdir()) == frames


def test_other_options_need_another_folder(raw, tmp_path, capsys):
    assert prepare(raw, tmp_path / "out", "fps=2") == 0
    assert len(list((tmp_path / "out/Image-02-FPS/1001_IEO_ANG_XX").iterdir())) == 5
    told = refused(capsys, "cremad", f"raw={raw}", f"out={tmp_path / 'out'}")
    assert "prepared with options={'fps': 2} instead of {'fps': 1}" in told


def test_names_with_spaces_and_commas(tmp_path):
    pytest.importorskip("av")
    main(["synthetic", "layout=kinetics_sounds", f"out={tmp_path / 'raw, 1'}"])
    folder = tmp_path / "raw, 1/train/playing drums"
    first, second, *_ = sorted(folder.iterdir())
    first.rename(folder / "-a b, c:d.mp4")
    second.rename(folder / "=%(id)s'\".mp4")
    out = tmp_path / "-out, 2"
    assert prepare(tmp_path / "raw, 1", out, dataset="kinetics_sounds") == 0
    assert (out / "audio/train/playing_drums/-a b, c:d.wav").is_file()
    assert main(["kinetics_sounds", f"out={out}", "verify=true"]) == 0


def test_changes_are_found(frames, tmp_path, capsys):
    out = tmp_path / "out"
    assert prepare(frames, out, dataset="cityscapes") == 0
    labels = sorted((out / "train/labels_19/aachen").iterdir())
    labels[0].write_bytes(labels[0].read_bytes()[:-1] + b"x")
    labels[1].unlink()
    capsys.readouterr()
    assert main(["cityscapes", f"out={out}", "verify=true"]) == 1
    rows = capsys.readouterr().out.splitlines()
    wrong = [" ".join(row.split()) for row in rows if row.startswith("NO")]
    assert f"NO frames without labels 0 1 ({labels[1].name})" in wrong
    assert any("other contents (sha256) 0 1 (" in row for row in wrong)
    # What is not as it was is made again; a change of the same size only verify=true can see.
    labels[0].unlink()
    assert prepare(frames, out, dataset="cityscapes") == 0
    assert "(2 now" in capsys.readouterr().out
    assert main(["cityscapes", f"out={out}", "verify=true"]) == 0


def test_a_full_disk_ends_it_and_it_goes_on(frames, tmp_path, capsys, monkeypatch):
    out, begun = tmp_path / "out", []
    put = work.put

    def fills_up(source, target):
        begun.append(target)
        if len(begun) > 9 * 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        put(source, target)

    monkeypatch.setattr(work, "put", fills_up)
    told = refused(capsys, "cityscapes", f"raw={frames}", f"out={out}", "workers=1")
    assert "No space left on device; make room" in told
    assert not out.exists()
    assert (tmp_path / "out.partial" / JOURNAL).is_file()
    monkeypatch.undo()
    assert prepare(frames, out, dataset="cityscapes") == 0
    assert "9 of 24 were made before" in capsys.readouterr().err
    assert prepare(frames, tmp_path / "undisturbed", dataset="cityscapes") == 0
    assert (out / MANIFEST).read_bytes() == (tmp_path / "undisturbed" / MANIFEST).read_bytes()


def test_without_pyav_nothing_begins(raw, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    told = refused(capsys, "cremad", f"raw={raw}", f"out={tmp_path / 'out'}")
    assert "pip install 'mmrobust[video]'" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


def test_two_at_once(frames, tmp_path, capsys):
    from mmrobust.training.locks import locked

    with locked(tmp_path / ".out.lock"):
        told = refused(capsys, "cityscapes", f"raw={frames}", f"out={tmp_path / 'out'}")
    assert "another process prepares" in told


@pytest.mark.slow
def test_killed_again_and_again_it_ends_the_same(tmp_path):
    """Processes that are killed at random moments; what they leave is never taken for finished."""
    pytest.importorskip("av")
    raw = tmp_path / "raw"
    cremad.make(raw)
    assert prepare(raw, tmp_path / "undisturbed") == 0
    out, kills, generator = tmp_path / "out", 0, random.Random(0)
    command = [sys.executable, "-m", "mmrobust.prepare", "cremad", f"raw={raw}", f"out={out}", "workers=2"]
    for _ in range(60):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if kills < 20:
            before = time.monotonic()
            while not (tmp_path / "out.partial" / JOURNAL).exists() and time.monotonic() - before < 30:
                if process.poll() is not None:
                    break
                time.sleep(0.01)
            time.sleep(generator.uniform(0, 0.05))
        else:
            process.wait(120)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        assert not out.exists()
    assert process.returncode == 0
    assert kills >= 5
    assert (out / MANIFEST).read_bytes() == (tmp_path / "undisturbed" / MANIFEST).read_bytes()
    files = [
        sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())
        for root in (out, tmp_path / "undisturbed")
    ]
    assert files[0] == files[1]


def test_it_imports_no_torch(tmp_path):
    code = (
        "import sys\nfrom mmrobust.prepare.__main__ import main\n"
        "if main(['--help']) or 'numpy' in sys.modules: sys.exit(3)\n"
        f"raw, out = {str(tmp_path / 'raw')!r}, {str(tmp_path / 'out')!r}\n"
        "status = main(['synthetic', 'layout=casia_surf', f'out={raw}'])\n"
        "status += main(['casia_surf', f'raw={raw}', f'out={out}'])\n"
        "status += main(['casia_surf', f'out={out}', 'verify=true'])\n"
        "sys.exit(status or 'torch' in sys.modules or 'lightning' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
