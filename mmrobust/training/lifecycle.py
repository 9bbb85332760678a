"""The life cycle of a run folder: create, lock, resume, and finish (further evaluations, checkpoint clean-up).

Imports no torch.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from mmrobust.config.build import construct
from mmrobust.config.confined import confined
from mmrobust.config.hidden import hide, reveal
from mmrobust.config.identity import (
    DamagedError,
    config_hash,
    load_run_config,
    run_folder,
    save_run_config,
)
from mmrobust.config.keys import ON_RESUME
from mmrobust.config.rules import with_checked
from mmrobust.data.listing import changed_files
from mmrobust.errors import DivergenceError, UserError, masked
from mmrobust.evaluation.results import ended_early, is_complete, note_trials, write_end
from mmrobust.files import check_inside, write_text
from mmrobust.training.devices import check_devices
from mmrobust.training.locks import locked
from mmrobust.training.processes import start
from mmrobust.training.retention import retain
from mmrobust.training.terminal import head, job, say


def resume(overrides: Sequence[str]) -> int:
    """Resume an interrupted run (`resume=<folder>`); its result is that of an uninterrupted run.

    Raises:
        UserError: an option could change the numbers.
    """
    options = dict(text.partition("=")[::2] for text in overrides)
    folder = Path(options.pop("resume"))
    config = load_run_config(folder)
    if changed := [key for key in options if key not in ON_RESUME]:
        raise UserError(
            f"resume takes the options of {folder}; {', '.join(changed)} would make another run. Leave them out "
            f"(possible are {', '.join(ON_RESUME)}), or start a new run without resume"
        )
    given = [f"{key}={value}" for key, value in options.items()]
    # The folder may have been moved, or come from somebody else: its paths must stay inside it.
    config = confined(with_checked(config, given), folder, given, trains=True)
    if is_complete(folder):
        finish(folder, config)
        print(f"complete: {folder}")
        return 0
    reveal(config)
    refuse_changed_files(folder, config)
    head(config, folder)
    check_devices(config)
    with alone_in(folder):
        if not is_complete(folder):
            save_run_config(config, folder)
            start(folder, config)
    finish(folder, config)
    return 0


def execute(
    config: DictConfig, overrides: Sequence[str], *, again: bool = True, config_dir: str | None = None
) -> Path:
    """Execute one run in its folder; a run on several devices gets its own process group.

    Args:
        config: the composed configuration.
        overrides: the user's overrides, for the record in `overrides.txt`.
        again: if the same configuration has a complete result, run it again in a new folder; if false, skip it.
        config_dir: the user's folder of further configurations.

    Returns:
        The run's folder.
    """
    config = config.copy()
    # Called for its side effect: messages from here on mask the configuration's secrets.
    hide(config)
    first = run_folder(config)
    head(config, first)
    check_devices(config)
    if config.study.name is not None and (how := ended_early(first)):
        print(f"  {how} before: {first}")
        return first
    for number in itertools.count(1):
        folder = first if number == 1 else first.with_name(f"{first.name}-{number}")
        if not is_complete(folder):
            with alone_in(folder):
                # Checked again: another process may have finished the run while this one waited for the lock.
                if not is_complete(folder):
                    try:
                        _execute(folder, config, overrides, config_dir)
                    except DivergenceError as error:
                        if config.study.name is None:
                            raise
                        # The run has recorded its own divergence; without a record, its teacher diverged.
                        if not ended_early(folder):
                            write_end(folder, config, "diverged", 0, str(error))
                        # For a study, a diverged trial is an outcome, not an error.
                        print(f"  diverged: {error}", flush=True)
                    finish(folder, config)
                    return folder
        if not again:
            finish(folder, config)
            print(f"  complete: {folder}")
            tell_changed_files(folder, config)
            return folder
        say(f"this run is complete in {folder}; it is made once more in a folder of its own")
    raise AssertionError


def tell_changed_files(folder: Path, config: DictConfig) -> None:
    """Warn if the files that a manifest names have changed since the complete run of this configuration."""
    # Only data with a manifest have this key, and only their files are recorded.
    if "inferred" not in config.data:
        return
    data = load_run_config(folder).data
    if how := changed_files(data):
        print(
            f"warning: {data.manifest} now names {how} than {folder} was made with; its result is of the old ones. To "
            "make it anew, remove the folder",
            file=sys.stderr,
            flush=True,
        )


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, for which a second process waits; no link may lead out of the folder."""
    check_inside(folder)
    with locked(folder / ".lock", waiting=f"{folder} is being run by another process; waiting for it"):
        # A killed process leaves its unfinished files.
        for part in (*folder.glob("*.part"), *folder.glob("checkpoints/*.part")):
            part.unlink(missing_ok=True)
        yield


def _execute(folder: Path, config: DictConfig, overrides: Sequence[str], config_dir: str | None) -> None:
    interrupted = (folder / "checkpoints" / "last.ckpt").is_file()
    before = config
    if interrupted:
        try:
            before = reveal(load_run_config(folder))
        # Not fatal: this command has the whole configuration and writes the file anew.
        except DamagedError as error:
            print(f"{str(error).partition('. The command')[0]}; written anew", flush=True)
    if "inferred" in config.data:
        config.data.inferred = before.data.inferred or infer(config)
    if config.method.get("teacher"):
        from mmrobust.training.teacher_run import prepare_teacher

        given = config.method.teacher.run
        config.method.teacher.run = str(prepare_teacher(config, config_dir))
        config.paths.teacher = config.method.teacher.run if given is None else None
    if interrupted:
        if config_hash(before) != config_hash(config):
            raise UserError(
                f"{folder} holds an interrupted run of another configuration; go on with it (resume={folder}), choose "
                "another paths.run, or remove the folder"
            )
        refuse_changed_files(folder, before)
        print(f"going on with the interrupted run in {folder}", flush=True)
    config.paths.run = str(folder)
    # Absolute, so that an evaluation finds the data from any working directory.
    for key in ("root", "manifest"):
        if config.data.get(key) is not None:
            config.data[key] = str(Path(config.data[key]).absolute())
    write_text(folder / "overrides.txt", "".join(f"{masked(text)}\n" for text in overrides))
    save_run_config(config, folder)
    start(folder, config)


def refuse_changed_files(folder: Path, config: DictConfig) -> None:
    """Refuse to resume a run whose data have changed.

    Raises:
        UserError: the manifest names other files than those that the run began with.
    """
    if how := changed_files(config.data):
        raise UserError(
            f"{config.data.manifest} now names {how} than the interrupted run in {folder} was begun with; bring the old "
            "ones back, or remove the folder"
        )


def finish(folder: Path, config: DictConfig) -> None:
    """Finish a run that has its result; a second call changes nothing.

    This evaluates it at further rates of missing modalities (`test_rates`), records by how many trials its values were
    chosen, and deletes the checkpoints that `keep` does not name.
    """
    if is_complete(folder):
        if rates := config.test_rates:
            from mmrobust.training.reevaluate import evaluate_rates

            evaluate_rates(folder, rates)
        note_trials(folder, config.study)
    retain(folder, config.keep)


def infer(config: DictConfig) -> dict[str, Any]:
    """Let the data infer the properties of their files, once, before training, and print them.

    The caller stores them in the run's configuration, so that every later reader of the data uses the same ones.
    """
    data = construct(config.data)
    inferred: dict[str, Any] = data.infer()
    told: str = data.told(inferred)
    say(told if not job() else told.partition("\n")[0])
    return inferred
