"""Fills the image cache of a config before a run.

    python -m drumbeat.trainers.commands.cache < config      what `drumbeat cache CONFIG` runs, with the config as JSON
"""

from __future__ import annotations

import json
import os
import sys

from drumbeat.configs.errors import Fault, PreflightError
from drumbeat.configs.layers import Layer
from drumbeat.configs.load import build_config
from drumbeat.configs.preconditions import with_hint
from drumbeat.configs.schema import Config
from drumbeat.configs.terminal import print_text_only
from drumbeat.data.bar import Bar
from drumbeat.trainers.build import build_sets, image_set, use_caches


def fill(config: Config) -> str:
    """Decodes the images that are not in the cache yet. Returns the text to print. Raises `PreflightError`."""
    if config.data.cache is None:
        raise PreflightError(Fault(what="data.cache is not set", where="data.cache",
                                   remedy="Name a folder: drumbeat cache CONFIG data.cache=/scratch/me/cache"))
    sets = build_sets(config)
    if not any(image_set(samples) for samples in (sets.train, sets.validation, sets.test)):
        raise PreflightError(Fault(what="the config's datasets have no image files to cache",
                                   where="data.train", remedy="Remove data.cache: such datasets are fast without it."))
    with Bar() as bar:
        use_caches(config, sets, processes=len(os.sched_getaffinity(0)),
                   progress=lambda name, done, total: bar(f"decoding {name}", done, total))
    lines = []
    for name in ("train", "validation", "test"):
        images = image_set(getattr(sets, name))
        if images is not None and images.cache is not None:
            lines.append(f"{name:<11}{len(images):,} images, {images.cache.nbytes / 1e6:,.0f} MB, in "
                         f"{images.cache.folder}")
    return "\n".join(lines)


def main() -> int:
    config = build_config([Layer(values=json.load(sys.stdin), origin="config")])
    try:
        print(fill(config))
    except PreflightError as error:
        print(PreflightError(*with_hint(error.faults, config.data.download_hint)), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    print_text_only()
    sys.exit(main())
