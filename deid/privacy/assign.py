"""k-Same over people: gallery cells are merged until each holds at least k people, and each gets one surrogate.

After k-Same (Newton, Sweeney and Malin 2005), whose promise, that a surrogate points at no fewer than k people, holds
only when k *people* share it. So cells are merged by counts of distinct people, and the k gallery identities of a
cell's surrogate are drawn at random beyond a margin from all of its members: the nearest k would look like them.

Everything works on aggregates of cells (`deid.privacy.tally`): as many as the gallery has cells and classes, however
many faces there are.
"""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deid import config
from deid.errors import FaceError, PromiseError
from deid.interfaces import Gallery
from deid.privacy import keys, tally
from deid.privacy.tally import Cell
from deid.surrogates import match

UNKNOWN = -1
CLEAR = 0.5  # P(male) from which people count as men
DRAWS = 8  # of identities for one surrogate
ENOUGH = 24  # identities of the right sex and age among which to draw; the margin gives way to that


class Key(NamedTuple):
    """A cell of the gallery, of people of one apparent sex and age band."""

    cell: int  # gallery identity
    sex: int  # 1 male, 0 female, -1 not known
    band: int  # index of the age band, -1 not known


@dataclass(frozen=True)
class Surrogate:
    """What one group of cells shares."""

    keys: tuple[Key, ...]
    draws: tuple["Draw", ...]  # the first is meant; the others stand in for a face that is not fit to be seen
    people: int  # distinct people, as counted
    across: int  # people whose class is not that of most
    sex: int  # of most: 1 male, 0 female, -1 not known
    age: float  # mean, years; NaN: not known
    looks: tuple[float, ...]  # mean of `appearance.LOOKS`; NaN: not known

    @property
    def identities(self) -> tuple[int, ...]:
        return self.draws[0].identities


class Draw(NamedTuple):
    """Gallery identities, ascending, weights 1/len; none where too few lie beyond the margin."""

    identities: tuple[int, ...]
    margin: float  # their least distance from any member


def key(cell: int, male: float, age: float, bands: Iterable[int]) -> Key:
    """The class of a person in the cell `cell`, of P(male) `male` and age in years, either NaN where not known."""
    sex = UNKNOWN if np.isnan(male) else int(male >= CLEAR)
    band = UNKNOWN if np.isnan(age) else sum(age >= bound for bound in bands)
    return Key(int(cell), sex, band)


def proven(cell: Cell, settings: tally.Settings) -> int:
    """Distinct people that a cell surely holds: as counted, and no more than stand clearly apart from one another
    (`settings.most` where more do)."""
    counted = int(cell.people.lower)
    return counted if settings.subjects else min(counted, len(cell.witnesses))


def witnessing(options: config.Assignment) -> tally.Settings:
    """How cells are gathered for this assignment."""
    return tally.Settings(options.apart, most=2 * options.k, subjects=options.subject is not None)


def assign(
    cells: Mapping[Any, Cell],
    gallery: Gallery,
    options: config.Assignment,
    matching: config.Match,
    secret: bytes,
) -> list[Surrogate]:
    """The surrogates of a release, in an order that says nothing.

    Raises:
        PromiseError: fewer than k people.
    """
    if options.subject is not None and cells and not any(cell.people.count for cell in cells.values()):
        raise PromiseError(
            "assignment.subject: no sample's .json names its person in this field; correct it, or leave it out to tell "
            "people apart by their faces"
        )
    groups = merge(cells, gallery.embeddings, options.k, witnessing(options))
    groups.sort(key=lambda group: min(group.keys))
    order = keys.permutation(secret, len(groups))
    return [
        _surrogate(groups[n], number, gallery, options, matching, secret) for number, n in enumerate(order)
    ]


@dataclass
class Group:
    """Cells on their way to k people."""

    keys: list[Key]
    cell: Cell
    centre: NDArray[np.float64]  # [dim] mean of the cells' centres, by people
    weight: float
    classes: dict[tuple[int, int], int]  # people by sex and band

    @property
    def label(self) -> tuple[int, int]:
        """Sex and band of most of its people."""
        return max(sorted(self.classes), key=lambda name: self.classes[name])


def merge(
    cells: Mapping[Any, Cell], centres: NDArray[np.floating], k: int, settings: tally.Settings
) -> list[Group]:
    """Groups of cells, each with at least k people.

    The least cell is merged with the nearest of the same sex and age band, where there is one, else of the same sex,
    else with the nearest; until none is too small.

    Args:
        centres: [G, dim] of the gallery.
        settings: with which the cells were gathered.

    Raises:
        PromiseError: there are fewer than k people.
    """
    groups = [_single(name, cells[name], centres) for name in sorted(cells)]
    alive = np.ones(len(groups), np.bool_)
    where = np.array([group.centre for group in groups]).reshape(len(groups), centres.shape[1])
    label = np.array([group.label for group in groups]).reshape(len(groups), 2)
    held = np.array([proven(group.cell, settings) for group in groups], np.int64)
    while (small := np.flatnonzero(alive & (held < k))).size:
        if alive.sum() == 1:
            clustered = round(groups[small[0]].cell.people.count)
            raise PromiseError(
                f"assignment.k: {held[small[0]]} distinct people were found, and {k} must share a surrogate; nothing "
                f"is released (clearly apart; {clustered} by clustering alone). Give more pictures or a lower "
                "assignment.k"
            )
        one = int(small[np.argmin(held[small])])
        alive[one] = False
        other = _nearest(where, label, alive, where[one], label[one])
        _unite(groups[other], groups[one], settings)
        where[other], label[other] = groups[other].centre, groups[other].label
        held[other] = proven(groups[other].cell, settings)
    return [groups[n] for n in np.flatnonzero(alive)]


def _single(name: Key, cell: Cell, centres: NDArray[np.floating]) -> Group:
    people = round(cell.people.count)
    return Group(
        [name], copy.deepcopy(cell), centres[name.cell].astype(np.float64), max(people, 1), {name[1:]: people}
    )


def _unite(group: Group, other: Group, settings: tally.Settings) -> None:
    weight = group.weight + other.weight
    group.centre = (group.centre * group.weight + other.centre * other.weight) / weight
    group.weight, group.cell = weight, group.cell.merge(other.cell, settings.apart, settings.most)
    group.keys += other.keys
    for name, people in other.classes.items():
        group.classes[name] = group.classes.get(name, 0) + people


def _nearest(
    where: NDArray[np.float64],
    label: NDArray[np.int64],
    alive: NDArray[np.bool_],
    place: NDArray[np.float64],
    own: NDArray[np.int64],
) -> int:
    same_sex = alive & (label[:, 0] == own[0])
    same = same_sex & (label[:, 1] == own[1])
    among = np.flatnonzero(next(found for found in (same, same_sex, alive) if found.any()))
    return int(among[np.argmin(((where[among] - place) ** 2).sum(1))])


def _surrogate(
    group: Group,
    number: int,
    gallery: Gallery,
    options: config.Assignment,
    matching: config.Match,
    secret: bytes,
) -> Surrogate:
    cell, (sex, _) = group.cell, group.label
    age, looks = float(_mean(cell.age[:1], cell.age[1:])[0]), _mean(cell.looks, cell.knows)
    draws = (
        draw(
            cell.nearest.astype(np.float64),
            gallery,
            matching,
            options.apart,
            keys.rng_for(secret, f"surrogate {number} {turn}".encode()),
            sex,
            age,
            looks,
        )
        for turn in range(DRAWS)
    )
    people = round(cell.people.count)
    across = people - group.classes[group.label]
    keyed = tuple(sorted(group.keys))
    return Surrogate(keyed, tuple(draws), people, across, sex, age, tuple(looks.tolist()))


def _mean(sums: NDArray[np.floating], known: NDArray[np.number]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums / known, np.float64)


def draw(
    distance: NDArray[np.float64],
    gallery: Gallery,
    matching: config.Match,
    least: float,
    rng: np.random.Generator,
    sex: int,
    age: float,
    looks: NDArray[np.floating] | None,
) -> Draw:
    """match.k identities for all who share a surrogate; none where too few lie `least` away.

    Args:
        distance: [G] of each gallery identity from the nearest of them.
        least: the margin below which `match.margin` never gives way, where few identities lie beyond it.
    """
    if matching.method == "nearest":
        chosen = np.sort(np.argsort(distance, kind="stable")[: matching.k])
        return Draw(tuple(chosen.tolist()), float(distance[chosen].min()))
    usual = match.margin_that_leaves(max(ENOUGH, matching.k), distance, gallery, sex, age, matching.age_band)
    margin = max(min(matching.margin, usual), min(least, matching.margin))
    try:
        chosen = match.draw(
            distance, gallery, matching.k, margin, rng, sex, age, matching.age_band, looks, matching.alike
        )
    except FaceError:
        return Draw((), margin)
    return Draw(tuple(chosen.tolist()), float(distance[chosen].min()))
