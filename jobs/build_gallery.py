"""Build a gallery of synthetic identities on Ray: numbers of candidates in, one Parquet file out.

    python jobs/build_gallery.py configs/local.yaml --out gallery.parquet --n 1024 --seed 1

Generator, detector, mesher, embedder, licences, cluster and actors are those of the configuration, so that the gallery
fits the runs that use it. The same configuration, size and seed give the same identities.
"""

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray

from deid.config import Config, Part, load
from deid.errors import DeidError, ModelError
from deid.faces.attributes import AttributeHeads
from deid.faces.segmenter import HeadSegmenter
from deid.gallery import build, enrich, store
from deid.interfaces import Gallery, Generator
from deid.models.store import Store
from deid.pipeline import cluster, parts

ACCEPTANCE = 0.5  # share of candidates that is usable, until it is known
HOPELESS = 0.05  # fewer means that the parts do not fit each other
BATCH = 8  # candidates in one call of an actor


class Examine:
    """Actor: the batch {"id"} of candidates after `first` to their columns."""

    def __init__(self, config: Config, recipe: build.Recipe, first: int) -> None:
        generator, detector, mesher, embedder = (
            _part(config, kind) for kind in ("generator", "detector", "mesher", "embedder")
        )
        self.examiner = build.Examiner(generator, detector, mesher, embedder, recipe)
        self.first = first

    def __call__(self, batch: build.Batch) -> build.Batch:
        return self.examiner(batch["id"] + self.first)


def _part(config: Config, kind: str) -> Any:
    """A part of the configuration, as the recipe wants it."""
    part: Part = getattr(config, kind)
    part = part.model_copy(update={"options": part.options | build.OPTIONS.get(part.name, {})})
    return parts.build(config.model_copy(update={kind: part}), kind, config.stages.generate)


def examined(config: Config, recipe: build.Recipe, first: int, count: int) -> Iterator[build.Batch]:
    """Columns of `count` candidates from number `first` on, in any order."""
    stage = config.stages.generate
    dataset = ray.data.range(count, override_num_blocks=math.ceil(count / BATCH)).map_batches(
        Examine,
        fn_constructor_args=(config, recipe, first),
        batch_size=BATCH,
        compute=ray.data.ActorPoolStrategy(size=stage.actors),
        num_cpus=stage.cpus,
        num_gpus=stage.gpus,
    )
    yield from dataset.iter_batches(batch_size=None, batch_format="numpy")  # type: ignore[misc]


def run(config: Config, recipe: build.Recipe, size: int, heads: AttributeHeads) -> Gallery:
    """Examine candidates, in rounds, until `size` of them are usable."""
    generator: Generator = _part(config, "generator")
    centre = build.mean_style(generator, recipe)
    hashes = Store(config.models).hashes
    metadata = {f"model.{m}.{file}": sha for m in parts.models_of(config) for file, sha in hashes(m).items()}
    batches: list[build.Batch] = []
    tried, kept, share = 0, 0, ACCEPTANCE
    while kept < size:
        count = math.ceil((size - kept) / share * 1.05)
        print(f"examining candidates {tried} to {tried + count - 1}", flush=True)
        batches += examined(config, recipe, tried, count)
        tried += count
        gallery, dropped = build.collect(batches, size, centre, recipe, metadata)
        kept, share = len(gallery), len(gallery) / tried
        print(f"{kept} of {size} identities; dropped: {dict(dropped)}", flush=True)
        if share < HOPELESS:
            raise ModelError(
                f"gallery: only {kept} of {tried} candidates are usable; do the parts fit each other?"
            )
    return build.annotate(gallery, heads)


def enriched(config: Config, gallery: Gallery) -> Gallery:
    """The gallery with more identities of rare looks, drawn by its own recipe."""
    recipe = build.Recipe(seed=int(gallery.metadata.get("recipe.seed", build.Recipe.seed)))
    names = ("generator", "detector", "mesher", "embedder")
    generator, detector, mesher, embedder = (_part(config, kind) for kind in names)
    numbers = enrich.candidates(gallery, generator, recipe)
    print(f"examining {len(numbers)} candidates of rare looks", flush=True)
    examiner = build.Examiner(generator, detector, mesher, embedder, recipe)
    batches = [examiner(numbers[start : start + BATCH]) for start in range(0, len(numbers), BATCH)]
    return enrich.extended(
        gallery, {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}, recipe
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="run configuration (YAML)")
    parser.add_argument("--out", required=True, help="gallery to write: a local path or s3://")
    parser.add_argument("--n", type=int, default=1024, help="identities")
    parser.add_argument("--seed", type=int, default=build.Recipe.seed)
    parser.add_argument(
        "--annotate",
        action="store_true",
        help="only renew sex, age and looks in the gallery that OUT holds, and drop covered faces",
    )
    parser.add_argument(
        "--enrich",
        action="store_true",
        help="only add identities of rare looks to the gallery that OUT holds",
    )
    options = parser.parse_args()
    if options.n < 1:
        parser.error("--n: at least 1 identity")
    try:
        config = load(options.config)
        heads = AttributeHeads.load()
        if options.annotate:
            parts.check(config)
            renderer, mesher = _part(config, "generator"), _part(config, "mesher")
            gallery = build.annotate_looks(store.load(options.out), renderer, mesher, HeadSegmenter())
            gallery = build.annotate(build.uncovered(gallery, build.Recipe()), heads)
        elif options.enrich:
            parts.check(config)
            gallery = build.annotate(enriched(config, store.load(options.out)), heads)
        else:
            parts.check(config)
            with cluster.session(config.cluster):
                cluster.configure(config.cluster)
                gallery = run(config, build.Recipe(seed=options.seed), options.n, heads)
        store.save(gallery, options.out)
    except DeidError as error:
        print(f"build_gallery: {error}", file=sys.stderr)
        return error.exit_code
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
