"""The formats of output shards, by name: what one unit becomes."""

from collections.abc import Callable, Sequence

from deid.config import Config
from deid.shards import folder, parquet, released, webdataset
from deid.shards.formats import Sample, arranged

Objects = list[tuple[str, bytes]]  # names below the output, and contents
Shards = dict[str, str]  # name of the object that lists a sample, by the sample's key
Named = Callable[[bytes], str]  # the unit's name, of its content


def tar(samples: Sequence[Sample], named: Named, config: Config, extra: int) -> tuple[Objects, Shards]:
    names = config.metadata.pictures
    data = webdataset.write_shard(
        (sample.key, webdataset.members(arranged(sample, names, extra), sample.fields, sample.masks))
        for sample in samples
    )
    return _one(f"shards/{named(data)}.tar", data, samples)


def table(samples: Sequence[Sample], named: Named, config: Config, extra: int) -> tuple[Objects, Shards]:
    policy, output = config.metadata, config.output
    data = parquet.write(samples, policy, policy.pictures, extra, output.image_struct, output.row_group)
    return _one(f"shards/{named(data)}.parquet", data, samples)


def files(samples: Sequence[Sample], named: Named, config: Config, extra: int) -> tuple[Objects, Shards]:
    content = b"".join(picture for sample in samples for *_, picture in sample.pictures)
    unit, policy, field = named(content), config.metadata, config.output.class_field
    objects = folder.write(samples, unit, policy, policy.pictures, extra, field)
    return objects, {sample.key: folder.table_name(unit, sample.fields, field) for sample in samples}


def check(config: Config) -> None:
    """Whether tables of the output can have all columns that the configuration asks for.

    Raises:
        ConfigError: as `released.schema` and `released.files_schema`.
    """
    policy, kind = config.metadata, output_format(config)
    if kind == "parquet":
        released.schema(policy, policy.pictures, 0, config.output.image_struct)
    elif kind == "folder":
        released.files_schema(policy, policy.pictures, 0)


def _one(name: str, data: bytes, samples: Sequence[Sample]) -> tuple[Objects, Shards]:
    return [(name, data)], {sample.key: name for sample in samples}


# Each gets the samples, sorted by key, and how many further pictures whose names are not listed a sample may have.
WRITERS: dict[str, Callable[[Sequence[Sample], Named, Config, int], tuple[Objects, Shards]]] = {
    "webdataset": tar,
    "parquet": table,
    "folder": files,
}


def output_format(config: Config) -> str:
    """Name of the format of output shards."""
    return config.input.format if config.output.format == "same" else config.output.format
