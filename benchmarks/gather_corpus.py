"""A corpus of people who do not exist, for `benchmarks/gather.py`.

They are drawn around the gallery: its mean plus a random mixture, of weights with squares
summing to 1, of the deviations of six of its identities, so that people scatter as the gallery does. A picture adds
noise of the gallery's covariance (the hard case: it points where people differ), times a factor a picture that is
log-normal. Its scale and spread are solved so that the distances of two pictures of one person have the median .24
and the 95 % quantile .33. How many pictures a person has follows a Pareto law (exponent 2, at least 5, at most
2,000: mean about 10, median 7). All lies in random order in blocks of 65,536 rows in a plain folder.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse
import scipy.sparse.csgraph
from numpy.typing import NDArray

from deid.gallery import store
from deid.privacy import people, unite

BLOCK = 65_536
MIXED = 6
MEDIAN, UPPER = 0.24, 0.33  # of distances of two pictures of one person; 50 % and 95 %


class Folder:
    """Objects as files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, name: str, data: bytes, overwrite: bool = False) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def get(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def names(self, prefix: str) -> list[str]:
        found = (str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())
        return sorted(name for name in found if name.startswith(prefix))


def centres() -> NDArray[np.float32]:
    return store.load(None).embeddings.astype(np.float32)


def noise(gallery: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, float]:
    """Factor of the gallery's covariance [dim, dim], and scale and spread (log) of the pictures' noise."""
    factor = np.linalg.cholesky(np.cov(gallery.T) + 1e-9 * np.eye(gallery.shape[1]))
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 20_000, gallery.shape[1])) @ factor.T
    power = rng.normal(size=(2, 20_000, 1))
    low, high = 0.0, 1.0
    for _ in range(30):
        spread = (low + high) / 2
        apart = np.linalg.norm(first * np.exp(spread * power[0]) - second * np.exp(spread * power[1]), axis=1)
        median, upper = np.quantile(apart, (0.5, 0.95))
        low, high = (spread, high) if upper / median < UPPER / MEDIAN else (low, spread)
    return factor.astype(np.float32), float(MEDIAN / median), spread


def generate(rows: int, folder: Path) -> dict[str, Any]:
    """Write blocks `faces/...` and who is on them, `truth/...`."""
    gallery, rng, scratch = centres(), np.random.default_rng(rows), Folder(folder)
    factor, scale, spread = noise(gallery)
    drawn = np.minimum(5 / np.sqrt(rng.random(rows // 5 + 1)), 2000).astype(np.int64)
    counts = drawn[: int(np.searchsorted(np.cumsum(drawn), rows)) + 1]
    who = rng.permutation(np.repeat(np.arange(len(counts), dtype=np.int32), counts)[:rows])
    mixed = rng.integers(0, len(gallery), (len(counts), MIXED)).astype(np.int16)
    weights = rng.normal(size=mixed.shape).astype(np.float32)
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    male, age = rng.random(len(counts)) < 0.5, rng.uniform(16, 80, len(counts))
    schema = people.schema(gallery.shape[1], 17)
    for number, start in enumerate(range(0, rows, BLOCK)):
        of = who[start : start + BLOCK]
        n = len(of)
        vectors = located(gallery, mixed[of], weights[of])
        power = scale * np.exp(spread * rng.normal(size=(n, 1)))
        vectors += (power * rng.normal(size=vectors.shape)).astype(np.float32) @ factor.T
        columns = [
            np.full(n, number, np.int32), np.arange(n, dtype=np.int32), np.zeros(n, np.int32),
            unite.near((vectors, gallery, 1))[:, 0], lists(vectors.astype(np.float16)),
            np.clip(np.where(male[of], 0.9, 0.1) + rng.normal(0, 0.1, n), 0, 1).astype(np.float32),
            (age[of] + rng.normal(0, 5, n)).astype(np.float32), rng.random(n) < 0.85, pa.array([b""] * n),
            lists(rng.normal(size=(n, 17)).astype(np.float32)),
        ]  # fmt: skip
        sink = pa.BufferOutputStream()
        arrays = [pa.array(of) if isinstance(of, np.ndarray) else of for of in columns]
        pq.write_table(
            pa.table(arrays, schema), sink, use_dictionary=False, compression="none", write_statistics=False
        )
        scratch.put(f"faces/{number:06d}", sink.getvalue().to_pybytes())
        scratch.put(f"truth/{number:06d}", of.tobytes())
    return {"people": len(np.unique(who)), "noise_scale": scale, "noise_spread": spread}


def located(
    gallery: NDArray[np.float32], mixed: NDArray[np.int16], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """People [n, dim] as mixtures of gallery identities [n, MIXED]."""
    middle = gallery.mean(0)
    vectors = np.repeat(middle[None], len(mixed), 0)
    for column in range(MIXED):
        vectors += weights[:, column, None] * (gallery - middle)[mixed[:, column]]
    return vectors


def lists(values: NDArray[Any]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def blocks(folder: Path) -> list[str]:
    return sorted(f"faces/{path.name}" for path in (folder / "faces").iterdir())


def truth(folder: Path, name: str) -> NDArray[np.int64]:
    return np.fromfile(folder / name.replace("faces", "truth"), np.int32).astype(np.int64)


def impostors(rows: int, same: float) -> dict[str, float]:
    """Of pairs of different people's means: the share below `same`, how many that is for one person, and the share of
    people whom plain single linkage would make one, of as many as have so many rows (at most 100,000)."""
    gallery, rng = centres(), np.random.default_rng(3)
    count = min(rows // 10, 100_000)
    mixed = rng.integers(0, len(gallery), (count, MIXED)).astype(np.int16)
    weights = rng.normal(size=mixed.shape).astype(np.float32)
    drawn = located(gallery, mixed, weights / np.linalg.norm(weights, axis=1, keepdims=True))
    norms = (drawn**2).sum(1)
    graph = []
    for start in range(0, count, 1000):
        part = slice(start, start + 1000)
        near = norms[part, None] + norms - 2 * drawn[part] @ drawn.T < same**2
        graph.append(scipy.sparse.csr_matrix(near))
    edges = scipy.sparse.vstack(graph)
    share = (edges.nnz - count) / count / (count - 1)
    sizes = np.bincount(scipy.sparse.csgraph.connected_components(edges, directed=False)[1])
    return {
        "share_of_pairs_below_same": share,
        "others_below_same": share * rows / 10,
        "single_linkage_people": count,
        "single_linkage_share_in_one": float(sizes.max() / count),
    }
