"""Telling people apart and counting them, at the size of a corpus: time, memory and what goes wrong.

    python -m benchmarks.gather --rows 10000000 --folder FOLDER [--rate 0.001] [--json FILE]

What is counted: `benchmarks/gather_corpus.py`. Each step runs in a process of its own, its tasks on two threads; run
it with OMP_NUM_THREADS=1. With --json the figures join those that are there already, by rows, rate and cells.
"""

import argparse
import bisect
import collections
import json
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks import common
from benchmarks.gather_corpus import Folder, blocks, centres, generate, impostors, truth
from deid.gallery import store
from deid.privacy import bins, people, tally, unite

BANDS = (18, 30, 45, 60)
MOST = 16  # witnesses
SAMPLE = 2000
PROBES = 500


class Timed:
    """A map on some threads (NumPy computes outside the interpreter's lock), with seconds and calls by function."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.seconds: dict[str, float] = collections.defaultdict(float)
        self.calls: dict[str, int] = collections.defaultdict(int)

    def __call__(self, function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[Any]:
        begun = time.perf_counter()
        waiting: collections.deque[Future[Any]] = collections.deque()
        with ThreadPoolExecutor(self.workers) as pool:
            for job in jobs:
                waiting.append(pool.submit(function, job))
                self.calls[function.__name__] += 1
                if len(waiting) > self.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        self.seconds[function.__name__] += time.perf_counter() - begun


def find(folder: Path, same: float, cells: int, wide: int, workers: int) -> dict[str, Any]:
    run = Timed(workers)
    settings = people.Settings(same, cells, wide, batch=16)
    found = people.find(blocks(folder), Folder(folder), centres(), settings, run)
    return {"found": vars(found), "seconds": dict(run.seconds), "calls": dict(run.calls)}


def classed(cell: int, male: float, age: float) -> tuple[int, bool, int]:
    return cell, male >= 0.5, bisect.bisect_right(BANDS, age)


def gather(folder: Path, apart: float, workers: int) -> dict[str, Any]:
    """Classes by cell, sex and age band, and how their counts compare with the truth."""
    run = Timed(workers)
    settings = tally.Settings(apart, MOST, batch=8)
    begun = time.perf_counter()
    found = tally.gather(blocks(folder), Folder(folder), centres(), classed, settings, run)
    seconds, peak = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    numbers = {key: number for number, key in enumerate(found)}
    pairs = []
    for name in blocks(folder):
        table = pq.read_table(folder / name.replace("faces", "person/faces"))
        counts = pq.read_table(folder / name, columns=["counts"])["counts"].to_numpy()
        keys = zip(*(table[column].to_pylist() for column in ("cell", "male", "age")), strict=True)
        classes = np.array([numbers[classed(*key)] for key in keys])  # type: ignore[arg-type]
        pairs.append(np.unique((classes << 32 | truth(folder, name))[counts]))
    real = np.bincount(np.unique(np.concatenate(pairs)) >> 32, minlength=len(found))
    counted = np.array([cell.people.count for cell in found.values()])
    lower = np.array([cell.people.lower for cell in found.values()])
    proofs = np.array([len(cell.witnesses) for cell in found.values()])
    return {
        "classes": len(found),
        "seconds": seconds,
        "peak_mib": peak / 1024,
        "people_a_class": quantiles(real),
        "counted_a_class": quantiles(counted),
        "share_counted_above_truth": float((lower > real).mean()),
        "share_witnesses_above_truth": float((proofs > real).mean()),
        "share_with_5_counted": float((lower >= 5).mean()),
        "share_with_5_witnesses": float((proofs >= 5).mean()),
        "share_with_5_counted_but_fewer_people": float(((lower >= 5) & (real < 5)).mean()),
    }


def quantiles(values: NDArray[Any]) -> dict[str, float]:
    names = ("least", "median", "p95", "most")
    return dict(zip(names, np.quantile(values, (0, 0.5, 0.95, 1)).tolist(), strict=True))


def quality(folder: Path, same: float, m: int) -> dict[str, Any]:
    """Splits, unions, and pairs that were never compared."""
    names = blocks(folder)
    real = np.concatenate([truth(folder, name) for name in names])
    persons = (pq.read_table(folder / f"person/{name}", columns=["person"]) for name in names)
    found = np.concatenate([table["person"].to_numpy() for table in persons])
    pairs, faces = np.unique(real << 32 | found, return_counts=True)
    numbers, of = np.unique(pairs >> 32, return_inverse=True)
    parts, total = np.bincount(of), np.bincount(of, faces)
    largest = np.zeros(len(numbers), np.int64)
    np.maximum.at(largest, of, faces)
    held = np.bincount(pairs & 0xFFFFFFFF)
    several = held[held > 0]
    return {
        "share_people_split": float((parts > 1).mean()),
        "parts_a_person": float(parts.mean()),
        "share_faces_off_their_persons_main_part": float(1 - largest.sum() / total.sum()),
        "share_pseudo_identities_with_several": float((several > 1).mean()),
        "people_a_pseudo_identity": quantiles(several),
        **missed(folder, found, real, same, m),
    }


def missed(folder: Path, found: Any, real: Any, same: float, m: int) -> dict[str, float]:
    """What blocking misses: pseudo-identities closer than `same` that no cell brought together, and pairs of one
    person's pictures by how many of the nearest cells they share."""
    gallery = centres()
    totals, squares = np.zeros((int(found.max()) + 1, gallery.shape[1])), np.zeros(int(found.max()) + 1)
    start = 0
    some = []
    for name in blocks(folder):
        column = pq.read_table(folder / name, columns=["embedding"])["embedding"]
        vectors = bins.vectors(column).astype(np.float32)
        order = np.argsort(found[start : start + len(vectors)], kind="stable")
        ids = found[start : start + len(vectors)][order]
        firsts = np.flatnonzero(np.diff(ids, prepend=-1))
        totals[ids[firsts]] += np.add.reduceat(vectors[order], firsts, axis=0)
        squares += np.bincount(found[start : start + len(vectors)], (vectors**2).sum(1), len(squares))
        chosen = np.flatnonzero(real[start : start + len(vectors)] < SAMPLE)
        some.append((real[start + chosen], vectors[chosen]))
        start += len(vectors)
    means = totals / np.bincount(found)[:, None]
    spreads = squares / np.bincount(found) - (means**2).sum(1)
    means = means.astype(np.float32)
    cells = unite.all_near(means, np.arange(len(means)), gallery, m, map)
    close = unseen = 0
    probes = np.random.default_rng(0).permutation(len(means))[:PROBES]
    norms = (means**2).sum(1) + spreads
    for number in probes:
        apart = norms + norms[number] - 2 * means @ means[number]
        near = np.flatnonzero(apart < same**2)
        near = near[near != number]
        seen = (cells[near] == cells[number, 0]).any(1) | np.isin(cells[near, 0], cells[number])
        close, unseen = close + len(near), unseen + int((~seen).sum())
    return {
        "closer_than_same_a_pseudo_identity": close / len(probes),
        "of_them_never_compared": unseen / len(probes),
        **shared_cells(np.concatenate([of for of, _ in some]), np.concatenate([v for _, v in some]), gallery),
    }


def shared_cells(who: Any, vectors: NDArray[np.float32], gallery: NDArray[np.float32]) -> dict[str, float]:
    """Of neighbouring pairs of one person's pictures: distances, and how often m nearest cells bring them together."""
    order = np.argsort(who, kind="stable")
    first, second = order[:-1], order[1:]
    first, second = (of[who[order[:-1]] == who[order[1:]]] for of in (first, second))
    apart = np.linalg.norm(vectors[first] - vectors[second], axis=1)
    found = {"within_median": float(np.median(apart)), "within_p95": float(np.quantile(apart, 0.95))}
    cells = unite.all_near(vectors, np.arange(len(vectors)), gallery, 16, map)
    for m in (1, 4, 8, 16):
        a = (cells[first, :m] == cells[second, :1]).any(1)
        found[f"pairs_in_{m}_cells"] = float((a | (cells[second, :m] == cells[first, :1]).any(1)).mean())
    return found


def apart(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """A step in a process of its own, with its seconds and peak memory (resident set)."""
    context = multiprocessing.get_context("spawn")
    begun = time.perf_counter()
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        answer = pool.submit(measured, function, arguments).result()
    print(
        f"{function.__name__}: {time.perf_counter() - begun:.0f} s, {answer['peak_mib']:.0f} MiB", flush=True
    )
    return answer


def measured(function: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> dict[str, Any]:
    begun = time.perf_counter()
    answer = function(*arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = {"total_seconds": time.perf_counter() - begun, "processor_seconds": time.process_time()}
    return seconds | {"peak_mib": peak} | answer


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, required=True, help="empty or missing; 700 bytes a row")
    parser.add_argument("--rate", type=float, default=0.001, help="false matches of the calibrated distance")
    parser.add_argument("--cells", type=int, default=people.Settings.cells, help="nearest cells compared")
    parser.add_argument("--wide", type=int, default=people.Settings.wide, help="likewise for a few faces")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file of figures")
    options = parser.parse_args()
    machine = common.machine()
    same = people.calibrated(store.load(None), options.rate)
    figures: dict[str, Any] = {
        "machine": machine,
        "cells": options.cells,
        "wide": options.wide,
        "workers": options.workers,
        "rows": options.rows,
        "rate": options.rate,
        "same": same,
    }
    if not (options.folder / "faces").exists():
        figures["generate"] = apart(generate, options.rows, options.folder)
    figures["find"] = apart(find, options.folder, same, options.cells, options.wide, options.workers)
    figures["gather"] = apart(gather, options.folder, 0.6, options.workers)
    figures["quality"] = apart(quality, options.folder, same, options.cells) | impostors(options.rows, same)
    figures = rounded(figures)
    print(json.dumps(figures, indent=1))
    if options.json:
        known = json.loads(options.json.read_text()) if options.json.exists() else {}
        known[f"{options.rows} rows, rate {options.rate}, {options.cells} and {options.wide} cells"] = figures
        options.json.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
