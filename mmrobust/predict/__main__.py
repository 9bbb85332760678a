"""`python -m mmrobust.predict run=<folder> ... output=p.csv`: what a trained run says of files of your own.

    run=<folder>             a complete run, or the file that `mmrobust.export` made of it (needed)
    output=p.csv             where the predictions go (needed)

What is to be predicted, one of:
    data.manifest=new.csv    a table like that of `data=manifest`: a column for each modality, cells may be empty,
                             targets are not looked at; data.root=<folder> if its names do not start from its folder
    photo=a.jpg sound=a.wav  files by modality, a sentence for a text; leave out what is missing
    photo=photos/ sound=sounds/   folders by modality: files of one name, but for the ending, are one sample

    missing=drop:sound       go without this modality (drop:sound,depth)
    checkpoint=best          best | last
    batch_size=32 workers=0  samples computed at once; threads that read ahead
    device=auto              auto | cpu | cuda | cuda:1
    overlay=true             of segmentation: the classes over the image, too
    allow=[my_package]       packages of yours whose classes the run is made of

The table has a row for each sample, in order: id, available, prediction, p_<class>, the method's own uncertainty and
weight_<modality> where it has them, and error. Maps of classes lie in <output>_masks/ as PNG with a palette. One that
cannot be predicted says why, and the others are done; then the exit status is 1. Interrupted, the same command goes on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

from mmrobust.config.trust import allowed_by, trusting
from mmrobust.errors import guarded
from mmrobust.predict.request import parse


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 1 if some samples could not be predicted."""
    given = list(sys.argv[1:] if argv is None else argv)
    allow = [text for text in given if text.startswith("allow=")]
    with trusting(allowed_by(allow)):
        return guarded(lambda: _main(given))


def _main(argv: list[str]) -> int:
    if not argv or {"-h", "--help"} & set(argv):
        print(__doc__)
        return 0
    request = parse(argv)
    # Only now: it takes seconds.
    from mmrobust.predict.model import open_model
    from mmrobust.predict.stream import predict_all

    model = open_model(request.run, checkpoint=request.checkpoint, device=request.device, allow=None)
    rows, failed = predict_all(request, model)
    said = f", {failed} of them could not be predicted and say why in the column error" if failed else ""
    print(f"{request.output}: {rows} rows{said}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
