"""`python -m mmrobust.prepare <dataset> raw=<download> out=<root>`: from a download to what `data=<dataset>` reads.

    raw=<folder>          the download, which stays as it is
    out=<folder>          becomes data.root; appears when it is whole, until then it is <out>.partial
    lists=<folder>        where lists lie that do not come with the download: train.csv, splits.mat, ...
    workers=<number>      videos or images at a time; default: as many as there are cores
    fps=1 sample_rate=... of clips, as in conf/data/<dataset>.yaml
    download=true         of avmnist: fetch into raw what it lacks
    verify=true           check out=<root> instead, with what is officially known of the dataset, in one table

Whatever ends it, the same command goes on from there; a second run does nothing. <out>/prepared.json says what was
made, with checksums, and what was skipped and why. The exit status is 0, or 1 if anything was skipped or does not hold.

`python -m mmrobust.prepare synthetic layout=<dataset> out=<folder>` generates a small download in the dataset's
official form, to try all this.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mmrobust.errors import guarded
from mmrobust.prepare.arguments import parse
from mmrobust.prepare.plan import DATASETS, preparation


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _main(given))


def _main(argv: list[str]) -> int:
    if not argv or {"-h", "--help"} & set(argv):
        print(f"{__doc__}\nDatasets: {', '.join(DATASETS)}")
        return 0
    arguments = parse(argv)
    if arguments.dataset == "synthetic":
        from mmrobust.prepare.generate import generate

        return generate(arguments.values["layout"], arguments.path("out"))
    module = preparation(arguments.dataset)
    if arguments.values.get("verify") == "true":
        from mmrobust.prepare.verify import verify

        return verify(arguments.dataset, module, arguments.path("out"), arguments.options, arguments.workers)
    from mmrobust.prepare.plan import download_at
    from mmrobust.prepare.prepare import prepare

    lists = arguments.path("lists") if arguments.values.get("lists") else None
    raw, out = arguments.path("raw"), arguments.path("out")
    if arguments.values.get("download") == "true":
        from mmrobust.prepare.datasets.avmnist import fetch

        fetch(raw)
    download = download_at(arguments.dataset, raw, lists, arguments.options)
    return prepare(arguments.dataset, module, download, out, arguments.workers)


if __name__ == "__main__":
    sys.exit(main())
