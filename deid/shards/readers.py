"""The formats of input shards, by name."""

from deid.shards import folder, parquet, webdataset
from deid.shards.formats import Format
from deid.video import frames

FORMATS: dict[str, Format] = {"webdataset": webdataset, "parquet": parquet, "folder": folder, "video": frames}
