"""Does the audit, joined to its pictures and by the true pairs to the source, know anything of the source's order?"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deid import records
from deid.privacy.linkage.line import Finding, correlation, permuted, ranks, spearman
from deid.privacy.linkage.pairs import DRAWS, Pairs
from deid.privacy.linkage.reading import digest

Codes = NDArray[np.int64]
BINS = 8  # of an order, or of the hash of a name
_VALUES = 16  # different values of a column from which they are put in bins, by their order
_BANDS = r"<\d+|\d+-\d+|>=\d+|\d+\+|none|unknown|\*"
# What the columns of a sound audit may hold.
_CLOSED = {
    "status": r"replaced|covered|dropped|\*",
    "anonymizer": "|".join(map(re.escape, (*records.ANONYMIZERS, "*"))),
    "k_class": _BANDS,
    "sex": r"male|female|unknown|\*",
    "age_band": _BANDS,
    "expression": r"smiling|neutral|unknown|\*",
    "face_size": _BANDS,
}


@dataclass
class Joined:
    """The first audit row of each paired picture."""

    wanted: dict[str, int]  # output key: number of the pair
    rows: dict[int, int] = field(default_factory=dict)  # number of the pair: of the row
    values: dict[str, dict[int, str]] = field(default_factory=dict)  # column: number of the pair: value
    seen: int = 0

    def add(self, table: pa.Table) -> None:
        ids = table["output_id"].combine_chunks()
        places = np.flatnonzero(np.asarray(pc.is_in(ids, pa.array(list(self.wanted), ids.type))))
        kept = table.take(pa.array(places)).to_pylist()
        for place, row in zip(places.tolist(), kept, strict=True):
            pair = self.wanted[row["output_id"]]
            if pair not in self.rows:
                self.rows[pair] = self.seen + place
                for name, value in row.items():
                    self.values.setdefault(name, {})[pair] = str(value)
        self.seen += len(table)


def tests(tables: Iterable[pa.Table], pairs: Pairs, shuffled: bool) -> list[Finding]:
    """Order of the rows, and each column but the ids, against place, shard and name of the source.

    What a picture shows (sex, age, size of a face) may follow the source's order, since corpora are sorted by what they
    show; so a column that holds nothing but the words and bands of a sound audit is information there, and has its
    limit at what it could tell. Against a hash of the source's name, which follows nothing, every column is tested.

    shuffled: the order of the source says nothing of what its pictures show, so that every column is tested.
    """
    joined = Joined({sample.key: number for number, sample in enumerate(pairs.output)})
    for table in tables:
        joined.add(table)
    chosen = sorted(joined.rows)
    if len(chosen) < 2:
        return []
    number, shard = (pairs.of(name)[0][chosen] for name in ("number", "shard"))
    hashed = np.array([digest(pairs.source[n].key.encode()) % BINS for n in chosen])
    targets = {"order": _bins(number), "shard": np.unique(shard, return_inverse=True)[1], "name": hashed}
    rows = np.array([joined.rows[n] for n in chosen])
    note = f"rank correlation of audit row and place in the source, {len(chosen)} pictures"
    found = [correlation("audit_rows", spearman(rows, number), len(chosen) - 1, note)]
    for name, values in joined.values.items():
        if name not in ("output_id", "shard"):
            column = [values[n] for n in chosen]
            found += [
                _test(name, column, to, target, shuffled or to == "name") for to, target in targets.items()
            ]
    return found


def _test(name: str, values: list[str], to: str, target: Codes, follows_nothing: bool) -> Finding:
    codes, rng = _codes(values), np.random.default_rng(0)
    shown = not follows_nothing and closed(name, values)
    draws = np.array([information(codes, rng.permutation(target)) for _ in range(DRAWS)])
    note = f"bits that the column {name} tells of the source's {to}, {len(values)} pictures"
    if shown:
        note += "; information: it holds the words of a sound audit alone, and pictures may be sorted by what they show"
    most = math.log2(max(2, len(np.unique(codes)))) if shown else None
    return permuted(f"audit.{name}.{to}", information(codes, target), draws, note, most)


def closed(name: str, values: Iterable[str]) -> bool:
    """The column holds a few words or bands of a sound audit, and nothing else."""
    different = set(values)
    pattern = re.compile(_CLOSED.get(name, r"(?!)"))
    return len(different) <= _VALUES and all(map(pattern.fullmatch, different))


def _codes(values: list[str]) -> Codes:
    different, codes = np.unique(values, return_inverse=True)
    if len(different) <= _VALUES:
        return codes
    try:
        return _bins(np.array(values, np.float64))
    except ValueError:
        return _bins(codes)


def _bins(values: NDArray[np.int64] | NDArray[np.float64]) -> Codes:
    return (ranks(values) * BINS / len(values)).astype(np.int64)


def information(a: Codes, b: Codes) -> float:
    """Mutual information of two columns of codes [N] >= 0, in bits."""
    rows, columns = int(a.max()) + 1, int(b.max()) + 1
    p = np.bincount(a * columns + b, minlength=rows * columns).reshape(rows, columns) / len(a)
    independent = p.sum(1, keepdims=True) * p.sum(0, keepdims=True)
    there = p > 0
    return max(0.0, float((p[there] * np.log2(p[there] / independent[there])).sum()))
