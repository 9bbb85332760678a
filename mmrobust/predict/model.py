"""A trained run as one object: raw inputs in, predictions out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch

from mmrobust.batch import Batch
from mmrobust.combinations import combination_name
from mmrobust.config.build import construct
from mmrobust.config.trust import trusted, trusting
from mmrobust.data.base import DataModule
from mmrobust.data.reader import Input, Reader, prepared
from mmrobust.data.table.csv_file import OWN
from mmrobust.errors import UserError, summarised
from mmrobust.methods.base import Output
from mmrobust.predict.prediction import Prediction, class_names, predictions_of
from mmrobust.predict.request import describe_run
from mmrobust.training.session import Trained, open_trained

T = TypeVar("T")


class Model:
    """A trained run. Nothing of it changes after it was opened, so several threads may use one.

    Args:
        trained: the run.
        device: where it computes.

    Attributes:
        modalities: their names, in the order of every (B, M) tensor.
        classes: of a regression the names of the numbers, of several labels those of the labels.
        task: classification, segmentation, regression or multilabel.
        combinations: of modalities that it can predict from.
    """

    def __init__(self, trained: Trained, device: torch.device) -> None:
        self.spec, self.device = trained.spec, device
        self.method = trained.method.to(device).eval().requires_grad_(False)
        self.modalities, self.task = self.method.modalities, trained.spec.task
        self.classes, self.combinations = class_names(trained.spec), self.method.combinations()
        self._served = set(self.combinations)  # there may be thousands
        self.readers: dict[str, Reader | UserError] = {}
        data: DataModule = construct(trained.config.data)
        for m in self.modalities:
            try:
                self.readers[m] = data.reader(m, trained.spec)
            except UserError as error:  # raised where one is needed: tensors need none
                self.readers[m] = error

    def __call__(self, batch: Batch) -> Output:
        """What the method says of prepared tensors, see `Batch`; its targets are not looked at."""
        with torch.inference_mode():
            output: Output = self.method(batch.to(self.device))
        return output

    def predict(self, inputs: Any, *, drop: Sequence[str] = (), batch_size: int = 32) -> Any:
        """Predict one sample or many.

        Args:
            inputs: of one sample a dict, modality -> path, array, PIL image, text or prepared tensor, None where it is
                missing (see `data.reader.Reader`), and perhaps its `id`; of many a list of these, or a DataFrame.
            drop: modalities to go without.
            batch_size: samples that are computed at once.

        Returns:
            A `Prediction`, of many samples a list of them.

        Raises:
            UserError: an input cannot be used; names it.
        """
        if isinstance(inputs, Mapping):
            return self._in_batches([inputs], drop, 1)[0]
        return self._in_batches(list(_records(inputs)), drop, batch_size)

    def _in_batches(
        self, samples: Sequence[Mapping[str, Any]], drop: Sequence[str], size: int
    ) -> list[Prediction]:
        found: list[Prediction] = []
        for part in in_parts(enumerate(samples), size):
            rows, ids = [], []
            for i, sample in part:
                ids.append(str(sample.get("id", i)))
                try:
                    rows.append(self.read({m: x for m, x in sample.items() if m not in OWN}, drop))
                except UserError as error:
                    raise UserError(
                        f"sample {ids[-1]}: {error}" if len(samples) > 1 else str(error)
                    ) from error
            found += self.answer(rows, ids)
        return found

    def read(self, sample: Mapping[str, Any], drop: Sequence[str] = ()) -> dict[str, Input]:
        """The inputs of one sample, by modality; without those that are missing.

        Raises:
            UserError: unknown modalities, none at all, a combination that the method does not serve, or an input that
                cannot be read.
        """
        self.check_names([*sample, *drop])
        given = {m: sample[m] for m in self.modalities if m not in drop and not is_missing(sample.get(m))}
        if not given:
            raise UserError(f"none of {', '.join(self.modalities)} is given; give at least one")
        if tuple(given) not in self._served:
            served = summarised([*map(combination_name, self.combinations)])
            raise UserError(
                f"the method cannot predict from {combination_name(tuple(given))}; it serves {served}"
            )
        found = {m: self._input(m, raw) for m, raw in given.items()}
        if self.method.task.dense:
            self._size(found)
        return found

    def check_names(self, names: Sequence[str]) -> None:
        """Raises: UserError: one of them is no modality of this run."""
        for name in names:
            if name not in self.modalities:
                close = difflib.get_close_matches(str(name), self.modalities, n=1)
                hint = f"did you mean {close[0]}?" if close else f"they are {', '.join(self.modalities)}"
                raise UserError(f"{name} is no modality of this run; {hint}")

    def _input(self, modality: str, raw: Any) -> Input:
        reader = self.readers[modality]
        try:
            if isinstance(raw, torch.Tensor):
                return prepared(raw, self.spec.modalities[modality])
            if isinstance(reader, UserError):
                raise reader
            return reader(raw)
        except UserError as error:
            raise UserError(f"{modality}: {error}") from error

    def _size(self, inputs: Mapping[str, Input]) -> tuple[int, int]:
        """(height, width) of what is predicted. Raises: UserError: the maps differ in size."""
        sizes = {m: x.size for m, x in inputs.items() if x.size}
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{m} {h} × {w}" for m, (h, w) in sizes.items())
            raise UserError(f"the inputs differ in size (height × width): {told}; make them alike")
        height, width = next(iter(sizes.values()), self.method.task.size)
        return height, width

    def answer(self, rows: Sequence[Mapping[str, Input]], ids: Sequence[str]) -> list[Prediction]:
        """Predict samples that `read` gave. Raises: UserError: the network's logits are no numbers."""
        batch = self.batch(rows, ids)
        output = self(batch)
        if not output.logits.isfinite().all():
            raise UserError("the network's logits are NaN or infinite; its weights have diverged")
        sizes = [self._size(row) if self.method.task.dense else None for row in rows]
        with torch.inference_mode():
            return predictions_of(self.method, output, sizes, batch.available, ids)

    def batch(self, rows: Sequence[Mapping[str, Input]], ids: Sequence[str]) -> Batch:
        """Inputs that `read` gave as tensors; what stands in place of targets means nothing."""
        blank = {m: modality.blank(1)[0] for m, modality in self.spec.modalities.items()}
        return Batch(
            inputs={
                m: torch.stack([row[m].tensor if m in row else blank[m] for row in rows])
                for m in self.modalities
            },
            available=torch.tensor([[m in row for m in self.modalities] for row in rows]),
            target=torch.zeros(len(rows), dtype=torch.int64),
            noise_level=torch.zeros(len(rows), len(self.modalities)),
            index=torch.arange(len(rows)),
            ids=list(ids),
        )


def in_parts(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of `size`; the last may be shorter."""
    left = iter(items)
    while part := list(islice(left, size)):
        yield part


def is_missing(value: Any) -> bool:
    """None, NaN (an empty cell of a DataFrame) or an empty name."""
    return (
        value is None
        or (isinstance(value, float) and value != value)
        or (isinstance(value, str) and not value)
    )


def _records(inputs: Any) -> Iterator[Mapping[str, Any]]:
    """The rows of a DataFrame, or of a sequence of dicts. Raises: UserError: it is neither."""
    if hasattr(inputs, "to_dict") and hasattr(inputs, "columns"):
        yield from inputs.to_dict("records")
        return
    if isinstance(inputs, str | bytes | Path) or not hasattr(inputs, "__iter__"):
        raise UserError(
            f"a {type(inputs).__name__} is no sample; give a dict by modality, a list of dicts or a DataFrame"
        )
    for i, sample in enumerate(inputs):
        if not isinstance(sample, Mapping):
            raise UserError(f"sample {i} is a {type(sample).__name__}; give a dict by modality")
        yield sample


def open_model(run: Path | str, *, checkpoint: str, device: str | None, allow: Sequence[str] | None) -> Model:
    """See `mmrobust.load`; `allow` None: what the environment allows."""
    with trusting(trusted() if allow is None else allow):
        describe_run(Path(run), checkpoint)
        return Model(open_trained(run, checkpoint), find_device(device))


def find_device(name: str | None) -> torch.device:
    """Raises: UserError: there is no such device here."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"device={name} cannot be used: {reason}; choose cpu, or cuda where there is a GPU"
        ) from error
    return device
