"""Sample after sample through a model into a table, at constant memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from mmrobust.combinations import combination_name
from mmrobust.data.progress import Clock
from mmrobust.data.reader import Input, Reader
from mmrobust.errors import UserError, as_user_error, printable
from mmrobust.files import short_hash
from mmrobust.predict.model import Model, in_parts
from mmrobust.predict.output import PredictionTable, stamp
from mmrobust.predict.prediction import Prediction, cells, columns
from mmrobust.predict.request import Request
from mmrobust.predict.sources import Sample, samples_of
from mmrobust.reporting.masks import write_mask, write_overlay

SHOWN = 20  # messages; the table has all


@dataclass(frozen=True)
class Read:
    """A sample whose inputs were read, or why they could not be."""

    sample: Sample
    inputs: Mapping[str, Input]
    problem: str = ""


def predict_all(request: Request, model: Model) -> tuple[int, int]:
    """Write the predictions of all samples; goes on where the same request was interrupted.

    Returns:
        How many rows the table has, and how many of them hold an error.

    Raises:
        UserError: the samples cannot be found at all, or the table cannot be written.
    """
    samples = samples_of(request, {m for m, r in model.readers.items() if isinstance(r, Reader) and r.folder})
    masks = request.output.with_name(f"{request.output.stem}_masks")
    clock, shown = Clock(), 0
    with ExitStack() as stack:
        table = stack.enter_context(
            PredictionTable(request.output, columns(model.method), identity(request), request.batch_size)
        )
        if table.done:
            print(f"going on after {table.done} rows", file=sys.stderr)
        pool = stack.enter_context(ThreadPoolExecutor(request.workers)) if request.workers else None
        rest = islice(once(samples) if model.method.task.dense else samples, table.done, None)
        for part in in_parts(rest, request.batch_size):
            each = partial(read_sample, model, drop=request.drop)
            read = [*(pool.map(each, part) if pool else map(each, part))]
            rows = []
            for found, answer in zip(read, answers(model, read), strict=True):
                rows.append(row_of(request, model, masks, found, answer))
                if (error := rows[-1].get("error")) and shown <= SHOWN:
                    more = f"; further ones are in {request.output}" if shown == SHOWN else ""
                    print(printable(f"{found.sample.id}: {error}{more}"), file=sys.stderr)
                    shown += 1
            table.write(rows)
            clock.tell(f"predicted {table.done} rows, {table.failed} of them could not be")
    return table.done, table.failed


def once(samples: Iterator[Sample]) -> Iterator[Sample]:
    """The samples, whose ids name files; a second one of an id has a problem."""
    seen: set[str] = set()
    for sample in samples:
        twice = sample.id in seen
        seen.add(sample.id)
        yield replace(sample, problem="its id occurs before, and masks are called by it") if twice else sample


def identity(request: Request) -> str:
    """Eight letters that only a request has that gives the same table."""
    plain = {key: str(value) for key, value in asdict(request).items()}
    for key in ("described", "workers", "device"):
        del plain[key]
    files = [request.run if request.run.is_file() else request.run / "results.json", request.manifest]
    return short_hash([plain, *(stamp(path) for path in files if path is not None and path.is_file())], 8)


def read_sample(model: Model, sample: Sample, drop: Sequence[str]) -> Read:
    """Its inputs; what is wrong with them is said in the table and stops nothing."""
    if sample.problem:
        return Read(sample, {}, sample.problem)
    try:
        return Read(sample, model.read(sample.inputs, drop))
    except Exception as error:
        mistake = as_user_error(error)
        if mistake is None:
            raise
        return Read(sample, {}, str(mistake))


def answers(model: Model, read: Sequence[Read]) -> Iterator[Prediction | str]:
    """A prediction for each sample, or why there is none."""
    good = [found for found in read if not found.problem]
    try:
        known = iter(model.answer([f.inputs for f in good], [f.sample.id for f in good]) if good else [])
    except UserError as error:
        if len(good) == 1:
            known = iter([])
            read = [found if found.problem else Read(found.sample, {}, str(error)) for found in read]
        else:  # one of them has it
            for found in read:
                yield from answers(model, [found])
            return
    for found in read:
        yield found.problem or next(known)


def row_of(
    request: Request, model: Model, masks: Path, found: Read, answer: Prediction | str
) -> dict[str, str]:
    """The row of one sample; of a map of classes, the files that it names are written first."""
    row = {"id": found.sample.id}
    if isinstance(answer, str):
        return row | {"available": combination_name(tuple(found.inputs)), "error": answer}
    row["available"] = combination_name(answer.available)
    if not model.method.task.dense:
        return row | cells(answer)
    count = model.spec.num_classes
    path = write_mask(masks, answer.id, answer.prediction, count)
    if request.overlay and (pixels := picture_of(model, found)) is not None:
        write_overlay(masks, answer.id, answer.prediction, pixels, count)
    return row | cells(answer, str(path.relative_to(request.output.parent)))


def picture_of(model: Model, found: Read) -> np.ndarray | None:
    """The image of a sample, (H, W, 3) uint8; None if it has none."""
    for m, reader in model.readers.items():
        if m in found.inputs and isinstance(reader, Reader) and reader.modality.kind == "image":
            x = np.asarray(reader.load(Path(str(found.sample.inputs[m]))))
            if x.dtype == np.uint8 and x.shape[2:] == (3,):
                return x
    return None
