"""Which gallery identities are averaged into a person's surrogate.

`nearest` is the k-Same of Newton, Sweeney and Malin (2005) as face de-identification papers use it: natural, but
the k most similar identities look like the person, so recognizers still find him. `distant` draws at random among
those beyond a margin from the person, and is the default.
"""

import numpy as np
from numpy.typing import NDArray

from deid import config
from deid.errors import ConfigError, FaceError
from deid.faces.appearance import LOOKS
from deid.interfaces import Gallery

Indices = NDArray[np.int64]
UNKNOWN = -1  # sex
CLEARLY = 0.2  # likelihood of the other sex below which an identity counts
# How much a difference of one standard deviation of the gallery counts; the rest is left to steering.
WEIGHTS = {
    "skin_l": 5.0,
    "skin_a": 0.5,
    "skin_b": 2.0,
    "hair_l": 0.7,
    "hair_b": 0.4,
    "hair_top": 0.5,
    "hair_side": 0.5,
}
WEIGHTS |= {"bald": 1.5, "hair_low": 5.0, "fringe": 1.0, "beard": 0.7}
CUT = 4.0  # what it costs when all of the upper border is hair: its head ends there


def check(match: config.Match, gallery: Gallery) -> None:
    """Raises ConfigError when the gallery cannot give k different identities; called before any work."""
    if match.k > len(gallery):
        raise ConfigError(
            f"match.k is {match.k}, but the gallery holds {len(gallery)} identities; "
            "lower match.k or build a larger gallery"
        )


def distances(embeddings: NDArray[np.float32], gallery: Gallery) -> NDArray[np.float64]:
    """Euclidean distances [..., N] of embeddings [..., dim] to the gallery's identities.

    Row by row and without the |a|^2 - 2ab + |b|^2 shortcut: a face's draw must not depend on its batch.

    Raises:
        FaceError: an embedding is not finite, or of another embedder (other length).
    """
    people = np.asarray(embeddings, np.float64)
    entries = gallery.embeddings.astype(np.float64)
    if people.shape[-1:] != entries.shape[1:] or not np.isfinite(people).all():
        raise FaceError("match_failed")
    rows = [np.sqrt(((entries - person) ** 2).sum(1)) for person in people.reshape(-1, entries.shape[1])]
    return np.array(rows).reshape(*people.shape[:-1], len(entries))


def nearest(embedding: NDArray[np.float32], gallery: Gallery, k: int) -> Indices:
    """The k nearest identities [..., k] of embeddings [..., dim], nearest first; ties by gallery order.

    Raises:
        FaceError: the gallery holds fewer than k identities, or the embedding cannot be used.
    """
    if not 1 <= k <= len(gallery):
        raise FaceError("match_failed")
    return np.argsort(distances(embedding, gallery), axis=-1, kind="stable")[..., :k].astype(np.int64)


def distant(
    embedding: NDArray[np.float32],
    gallery: Gallery,
    k: int,
    margin: float,
    rng: np.random.Generator,
    sex: int = UNKNOWN,
    age: float = float("nan"),
    age_band: float = float("inf"),
    looks: NDArray[np.floating] | None = None,
    alike: int = 0,
) -> Indices:
    """k different identities [k], in ascending order, drawn among those at least `margin` from embedding [dim].

    Drawn among identities of the person's apparent sex and age where these give k, else of the sex alone, else among
    all; of these, among the `alike` that look most like `looks`. The margin always holds.

    Args:
        sex: the person's apparent sex, 1 male, 0 female, -1 not known; the gallery's `sex` attribute [N] is the
            probability of male, or the same classes.
        age: the person's apparent age in years, NaN where it is not known; likewise the gallery's `age` attribute.
        age_band: greatest difference of age, years.
        looks: skin, hair and so on [len(LOOKS)] of the person's head, NaN where not known.
        alike: how many identities the looks leave to draw from, never fewer than k; 0: they do not count.

    Raises:
        FaceError: fewer than k identities lie beyond the margin, or the embedding cannot be used.
    """
    return draw(distances(embedding, gallery), gallery, k, margin, rng, sex, age, age_band, looks, alike)


def draw(
    distance: NDArray[np.float64],
    gallery: Gallery,
    k: int,
    margin: float,
    rng: np.random.Generator,
    sex: int = UNKNOWN,
    age: float = float("nan"),
    age_band: float = float("inf"),
    looks: NDArray[np.floating] | None = None,
    alike: int = 0,
) -> Indices:
    """`distant` from one row [N] of `distances`, for callers that hold a batch."""
    beyond = distance >= margin
    same_sex = beyond & _same_sex(gallery, sex)
    same_age = same_sex & _same_age(gallery, age, age_band)
    pool = np.flatnonzero(next((pool for pool in (same_age, same_sex) if pool.sum() >= k), beyond))
    if not 1 <= k <= len(pool):
        raise FaceError("match_failed")
    if looks is not None and alike:
        pool = pool[np.argsort(unlikeness(looks, gallery)[pool], kind="stable")[: max(alike, k)]]
    return np.sort(rng.choice(pool, size=k, replace=False)).astype(np.int64)


def margin_that_leaves(
    count: int, distance: NDArray[np.float64], gallery: Gallery, sex: int, age: float, age_band: float
) -> float:
    """The greatest margin beyond which `count` identities of a sex and age lie, at distances [N]; 0 where there are not
    so many."""
    right = np.sort(distance[_same_sex(gallery, sex) & _same_age(gallery, age, age_band)])[::-1]
    return float(right[count - 1]) if len(right) >= count else 0.0


def alike_turned(
    points: NDArray[np.float32],
    gallery_points: NDArray[np.float32],
    among: NDArray[np.bool_],
    count: int,
) -> NDArray[np.bool_]:
    """Which [N] of the gallery are turned most like a face: the `count` of `among` [N] whose five points [N, 5, 2] a
    similarity takes nearest to the face's [5, 2] (Procrustes distance). Shape of five points tells pose, hardly who.
    """
    own, others = _standard(points), _standard(gallery_points)
    apart = np.where(among, 1 - np.abs(others @ np.conj(own)), np.inf)
    return among & (apart <= np.sort(apart)[min(count, len(apart)) - 1])


def _standard(points: NDArray[np.float32]) -> NDArray[np.complex128]:
    """Points [..., N, 2] as complex numbers [..., N], centred, of length 1."""
    flat = np.asarray(points, np.float64) @ np.array([1, 1j])
    centred = flat - flat.mean(-1, keepdims=True)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=-1, keepdims=True), 1e-9))


def _same_sex(gallery: Gallery, sex: int) -> NDArray[np.bool_]:
    if sex == UNKNOWN or "sex" not in gallery.attributes:
        return np.ones(len(gallery), np.bool_)
    likelihood = np.asarray(gallery.attributes["sex"], np.float64)
    if sex not in (0, 1):
        return np.zeros(len(gallery), np.bool_)
    return np.asarray(likelihood > 1 - CLEARLY if sex else likelihood < CLEARLY)


def _same_age(gallery: Gallery, age: float, band: float) -> NDArray[np.bool_]:
    if not np.isfinite(age) or "age" not in gallery.attributes:
        return np.ones(len(gallery), np.bool_)
    return np.abs(np.asarray(gallery.attributes["age"], np.float64) - age) <= band


def unlikeness(looks: NDArray[np.floating], gallery: Gallery) -> NDArray[np.float64]:
    """How little each identity [N] looks like `looks` [len(LOOKS)]: weighted squared differences, in deviations of the
    gallery. What either has no value for does not count; a head cut off by its picture's border does."""
    cost = np.zeros(len(gallery))
    for name, value in zip(LOOKS, looks, strict=True):
        if name in WEIGHTS and name in gallery.attributes and np.isfinite(value):
            entries = np.asarray(gallery.attributes[name], np.float64)
            cost += WEIGHTS[name] * np.nan_to_num((entries - value) / (np.nanstd(entries) + 1e-9)) ** 2
    return cost + CUT * np.asarray(gallery.attributes.get("cut", np.zeros(len(gallery))), np.float64)
