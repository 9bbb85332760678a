"""What a command line asks to be predicted, checked as far as goes without torch."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmrobust.config.identity import load_run_config
from mmrobust.errors import UserError
from mmrobust.evaluation.results import ended_early, is_complete, read_results
from mmrobust.files import expanded
from mmrobust.training.retention import require_checkpoint
from mmrobust.training.run_file import read_description

DROP = "drop:"  # of missing=drop:depth
SWITCH = {"true": True, "false": False}
KEYS = (
    "run",
    "output",
    "data.manifest",
    "data.root",
    "missing",
    "checkpoint",
    "batch_size",
    "workers",
    "device",
    "overlay",
    "allow",
)


@dataclass(frozen=True)
class Described:
    """What a run says of itself without its weights.

    Args:
        modalities: their names.
        texts: those whose inputs are sentences, not files.
        task: what is predicted.
    """

    modalities: tuple[str, ...]
    texts: frozenset[str]
    task: str


@dataclass(frozen=True)
class Request:
    """What is to be predicted, by which run, and where it goes.

    Args:
        run: folder, or file of `mmrobust.export`.
        output: the CSV.
        described: the run.
        manifest: a CSV of inputs; None: `inputs` are given.
        root: the folder that names in it start from.
        inputs: by modality a file, a folder of files, or a sentence; without those that are missing.
        drop: modalities to go without.
        overlay: whether masks are drawn over the images, too.
    """

    run: Path
    output: Path
    described: Described
    manifest: Path | None = None
    root: Path | None = None
    inputs: dict[str, str] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    checkpoint: str = "best"
    batch_size: int = 32
    workers: int = 0
    device: str | None = None
    overlay: bool = False


def describe_run(run: Path, checkpoint: str) -> Described:
    """What a run says of itself.

    Raises:
        UserError: it is not there, not complete, or without that checkpoint.
    """
    if run.is_file():
        config, spec = read_description(run)
        modalities, task = tuple(spec["modalities"]), str(spec["task"])
    else:
        config = load_run_config(run)
        if not is_complete(run):
            raise UserError(f"{run} {_lacks(run)}")
        require_checkpoint(run, checkpoint)
        results = read_results(run)
        modalities, task = tuple(results["protocol"]["modalities"]), results["identity"]["task"]
    columns = (config.data.get("inferred") or {}).get("modalities", {})
    texts = frozenset(m for m, column in columns.items() if column["kind"] == "text")
    return Described(modalities, texts, task)


def _lacks(run: Path) -> str:
    """Why a run is not complete, and what to do."""
    if how := ended_early(run):
        return f"has no result: it {how}; take another run"
    try:
        read_results(run)
    except UserError:
        return (
            f"is not complete: its training has not ended; go on with it: python -m mmrobust.run resume={run}"
        )
    return "was a quick look at part of its data; train it on all of it"


def parse(argv: Sequence[str]) -> Request:
    """The words of a command line.

    Raises:
        UserError: all that is wrong with them.
    """
    options: dict[str, str] = {}
    inputs: dict[str, str] = {}
    problems: list[str] = []
    for text in argv:
        key, equals, value = text.partition("=")
        place = options if key in KEYS else inputs
        if not equals:
            problems.append(f"{text!r} is not key=value")
        elif key in place:
            problems.append(f"{key} is given twice")
        else:
            place[key] = value
    needed = [key for key in ("run", "output") if not options.get(key)]
    problems += [f"name {WANTED[key]}" for key in needed]
    numbers = {"batch_size": 1, "workers": 0}
    for key, least in numbers.items():
        if key in options and not (options[key].isdecimal() and int(options[key]) >= least):
            problems.append(f"{key}={options[key]} is no whole number of at least {least}")
    for key, known in {"overlay": tuple(SWITCH), "checkpoint": ("best", "last")}.items():
        if options.get(key, known[0]) not in known:
            problems.append(f"{key}={options[key]} is not known; choose {' or '.join(known)}")
    missing = options.get("missing", DROP)
    if not missing.startswith(DROP):
        problems.append(f"missing={missing} is not known; write missing=drop:depth, or drop:depth,sound")
    if problems:
        raise UserError("; ".join(problems))
    run, checkpoint = expanded(options["run"]), options.get("checkpoint", "best")
    described = describe_run(run, checkpoint)
    drop = tuple(name for name in missing.removeprefix(DROP).split(",") if name)
    problems += _about_inputs(options, inputs, drop, described)
    if options.get("overlay") == "true" and described.task != "segmentation":
        problems.append(f"overlay=true is for segmentation, and this run does {described.task}; leave it out")
    if problems:
        raise UserError("; ".join(problems))
    manifest = expanded(options["data.manifest"]) if options.get("data.manifest") else None
    root = expanded(options["data.root"]) if options.get("data.root") else None
    return Request(
        run=run,
        output=expanded(options["output"]),
        described=described,
        manifest=manifest,
        root=root if root or manifest is None else manifest.parent,
        inputs={m: value for m, value in inputs.items() if value not in ("", "null")},
        drop=drop,
        checkpoint=checkpoint,
        batch_size=int(options.get("batch_size", 32)),
        workers=int(options.get("workers", 0)),
        device=None if options.get("device", "auto") == "auto" else options["device"],
        overlay=SWITCH[options.get("overlay", "false")],
    )


WANTED = {
    "run": "the run: run=<folder>",
    "output": "where the predictions go: output=predictions.csv",
}


def _about_inputs(
    options: dict[str, str], inputs: dict[str, str], drop: Sequence[str], described: Described
) -> list[str]:
    """What is wrong with what is to be predicted, in words."""
    problems = []
    known = described.modalities
    for name in [*inputs, *drop]:
        if name not in known:
            close = difflib.get_close_matches(name, [*known, *KEYS], n=1)
            hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(known)}"
            problems.append(f"{name} is neither a modality of this run nor a key; {hint}")
    if "data.manifest" in options and inputs:
        problems.append(f"data.manifest and {', '.join(inputs)} are given; give one or the other")
    elif "data.manifest" not in options and not any(v not in ("", "null") for v in inputs.values()):
        one = known[0] if known else "photo"
        problems.append(f"nothing is to be predicted: give data.manifest=<csv>, or {one}=<file or folder>")
    if "data.root" in options and "data.manifest" not in options:
        problems.append("data.root is for data.manifest; leave it out")
    if not problems and not set(known) - set(drop):
        problems.append(f"missing={DROP}{','.join(drop)} leaves no modality; keep at least one")
    return problems
