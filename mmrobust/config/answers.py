"""What --help, --info, --cfg and shell completion answer: Hydra's own words, and where the comments of keys are. Imports
no torch."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from mmrobust.config.compose import compose_config, conf_folder
from mmrobust.errors import UserError

MANY = ("-m", "--multirun")


def read_arguments(argv: Sequence[str]) -> Namespace:
    """Hydra's arguments, options and overrides in any order; `options` in it are the words that are no overrides.

    Raises:
        UserError: an option that does not exist, or lacks its value.
    """
    from hydra._internal.utils import get_args_parser

    parser: ArgumentParser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; see --help and --hydra-help")

    parser.error = refuse  # type: ignore[method-assign]
    arguments = parser.parse_intermixed_args(argv)
    left = list(arguments.overrides)
    arguments.options = []
    for word in argv:
        if word in left:
            left.remove(word)
        else:
            arguments.options.append(word)
    return arguments


def asks(arguments: Namespace) -> bool:
    """Whether the command line asks for an answer instead of a run."""
    return bool(
        arguments.help
        or arguments.hydra_help
        or arguments.info
        or arguments.cfg
        or arguments.shell_completion
    )


def answer(arguments: Namespace, overrides: Sequence[str], more: Sequence[str]) -> None:
    """Print it.

    Args:
        arguments: as read.
        overrides: of one run.
        more: entries of modalities that its data has.
    """
    options = [word for word in arguments.options if word not in MANY]
    if arguments.cfg in ("job", "all"):
        for line in _where(overrides, arguments.config_dir):
            print(f"# {line}")
    if arguments.config_dir:
        # which looks at what would be built; what cannot be composed, Hydra itself tells
        with suppress(HydraException, OmegaConfBaseException):
            compose_config([*overrides, *more], arguments.config_dir)
    import hydra

    main = hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")
    with suppress(SystemExit), _argv([*options, *overrides, *more]):  # Hydra's way to end --help
        main(lambda config: None)()


def _where(overrides: Sequence[str], config_dir: str | None) -> Iterator[str]:
    """The files whose comments say what each key means."""
    folders = [*([Path(config_dir)] if config_dir else []), conf_folder()]
    yield f"What each key means stands beside it in {conf_folder() / 'config.yaml'} and in"
    for group, chosen in compose_config(overrides, config_dir).choices.items():
        for name in re.findall(r"[\w.-]+", chosen):  # several callbacks are one choice
            files = (folder / str(group) / f"{name}.yaml" for folder in folders)
            if found := next((file for file in files if file.is_file()), None):
                yield f"  {group}: {found}"


@contextmanager
def _argv(argv: Sequence[str]) -> Iterator[None]:
    from hydra.core.global_hydra import GlobalHydra

    before, sys.argv = sys.argv, ["mmrobust.run", *argv]
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        sys.argv = before
        GlobalHydra.instance().clear()
