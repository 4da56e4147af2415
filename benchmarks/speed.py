"""Faces a second for each stage alone, for a plain loop and for the Ray job over the same pictures; peak memory.

    python -m benchmarks.speed [--data FOLDER] [--pictures 64]

The pictures are the demo corpus, or with --data the London photographs. They are packed into 4 shards, and into 16
shards that hold them four times over. The plain loop is one Python process with two threads a network, which runs
the job's own parts one after the other over the 4 shards and writes shards too: no Ray, no copies between stages. The
job is `deid.pipeline.run.run` in a process of its own, over 4 and over 16 shards; its memory is the sum of PSS over
its whole process tree. Rates are given gross (from the first model loaded to the last object written, Ray's own start
apart) and, for the job, at the margin: the faces and seconds of 16 shards less those of 4, which leaves out starting
actors and loading models. Figures go to `results/speed.json` and, as Markdown, to the screen.
"""

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.memory import Peak
from deid.config import Config, parse
from deid.pipeline.rows import Row
from deid.pipeline.run import run, secret_of
from deid.pipeline.stages import MESH_SCORE, Analyse, Generate, decode
from deid.shards import pictures, storage, webdataset
from deid.surrogates import composite

SEED = 20_251
FEW, MANY = 4, 16


class Clock:
    """Seconds spent in each stage."""

    def __init__(self) -> None:
        self.seconds: collections.Counter[str] = collections.Counter()

    @contextlib.contextmanager
    def time(self, stage: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - begun
