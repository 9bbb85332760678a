"""Our run as a run of Weights & Biases: its names, its configuration, how it connects. Imports no torch."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mmrobust.config.hidden import reveal
from mmrobust.config.identity import config_hash
from mmrobust.config.keys import NOT_IN_RECIPE
from mmrobust.config.wandb_rules import say_once
from mmrobust.errors import UserError, masked

CONNECT_SECONDS = 20  # then the run is offline
UPLOAD_SECONDS = 60  # at the end of a run; what is left stays on disk for `wandb sync`
CHECKPOINT_SECONDS = 600  # the same where a checkpoint is sent
SHARED = "MMROBUST_WANDB_OFFLINE"  # names a file that says why W&B cannot be reached
OF_A_SWEEP = ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH")  # an agent's words to one run


def names(params: Mapping[str, Any]) -> dict[str, str]:
    """What W&B calls a run of this configuration, as far as the user does not say: the trials of a study are one group,
    and so are runs that differ in the seed alone."""
    method, data = (params["choices"][group] for group in ("method", "data"))
    recipe, study = config_hash(reveal(OmegaConf.create(dict(params))), NOT_IN_RECIPE), params["study"]
    if study["name"] is not None:
        name = f"{method} {data} trial {study['trial'] + 1}"
        return {"name": name, "group": f"study {study['name']}", "job_type": "trial"}
    return {
        "name": f"{method} {data} seed {params['seed']}",
        "group": f"{method} {data} {recipe}",
        "job_type": method,
    }


def flat_config(params: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with one level: `method.kl_weight`, `missing.train.rate`; the choices under the name of
    their group: `method`, `data`; and the two hashes."""
    config = reveal(OmegaConf.create(dict(params)))
    hashes = {"config_hash": config_hash(config), "recipe_hash": config_hash(config, NOT_IN_RECIPE)}
    leaves = _leaves({key: value for key, value in params.items() if key != "choices"})
    return {**leaves, **params["choices"], **hashes}


def _leaves(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, child in node.items():
        flat |= _leaves(child, f"{prefix}{key}.") if isinstance(child, Mapping) else {f"{prefix}{key}": child}
    return flat


@contextmanager
def one_attempt() -> Iterator[None]:
    """A context in which, after one run failed to connect, the later runs of any process on this machine do not try
    again, so that a sweep waits for the timeout only once."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ[SHARED] = str(Path(folder, "reason"))
        try:
            yield
        finally:
            del os.environ[SHARED]


def failure() -> str | None:
    """The reason why an earlier run could not connect to W&B."""
    with suppress(KeyError, OSError):
        return Path(os.environ[SHARED]).read_text()
    return None


def start_run(arguments: Mapping[str, Any], mode: str, upload_seconds: int) -> Any:
    """Start a run of W&B: online if that is wanted and can be, else offline, with a line that says so.

    Args:
        arguments: of `wandb.init`.
        mode: one of MODES.
        upload_seconds: what `finish_run` waits for.
    """
    import wandb

    if wandb.run is not None:  # of a job that broke off between training and results
        finish_run(wandb.run, exit_code=1)
    settings = wandb.Settings(silent=True, init_timeout=CONNECT_SECONDS, finish_timeout_raises=True)
    settings.finish_timeout = upload_seconds
    # W&B's telemetry logs errors when there is no network.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    wandb.setup(settings)
    reason = f"mode={mode}"
    chosen: Any = mode
    # W&B records the command line, which may contain secrets.
    given, sys.argv = sys.argv, [masked(text) for text in sys.argv]
    try:
        if mode in ("auto", "online"):
            known = wandb.login(prompt=False, verify=False)
            reason = failure() or ("" if known else "no API key: `wandb login` keeps one")
            chosen = "offline" if reason else "online"
        run = wandb.init(**arguments, mode=chosen)
    except wandb.Error as error:
        reason = f"cannot go online: {error}".partition("\n")[0]
        _remember(reason)
        wandb.teardown()  # else the id is in use
        wandb.setup(settings)
        run = wandb.init(**arguments, mode="offline")
    finally:
        sys.argv = given
    if run.offline:
        print(f"W&B is offline ({reason}); to upload: wandb sync {Path(run.sync_dir).parent}", flush=True)
    return run


def finish_run(run: Any, exit_code: int) -> None:
    """End the run; data that cannot be uploaded in time stays on disk."""
    with not_fatal(run):
        run.finish(exit_code=exit_code)


@contextmanager
def not_fatal(run: Any) -> Iterator[None]:
    """A context that turns W&B's errors into warnings with a remedy, so that they do not end our run."""
    try:
        yield
    # Errors of W&B's service, of its server and of the network have no common base class.
    except Exception as error:
        slow = isinstance(error, TimeoutError)
        reason = (
            "the upload takes too long" if slow else f"{type(error).__name__}: {error}".partition("\n")[0]
        )
        _remember(reason)
        say_once(f"W&B: {reason}; to upload what is on disk: wandb sync --include-online {run.sync_dir}")


def signed_in() -> bool:
    """Whether W&B has an API key. W&B raises its own errors if the server rejects the key or cannot be reached."""
    import wandb

    return bool(wandb.login(prompt=False, verify=True))


@contextmanager
def as_our_error(remedy: str) -> Iterator[None]:
    """A context that converts W&B's errors. Raises: UserError: the server rejected a request or is unreachable."""
    import wandb

    try:
        yield
    except (wandb.Error, ValueError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise UserError(f"W&B: {reason}. {remedy}") from error


def _remember(reason: str) -> None:
    with suppress(KeyError, OSError):
        Path(os.environ[SHARED]).write_text(reason)
