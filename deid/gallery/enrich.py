"""More identities of the looks that a generator seldom draws, so that everybody has enough to be drawn from.

Plain draws hold few people of dark skin, few women of short or tied hair, few bald men. Looks are close to linear in
the style, so many styles can be searched for them without rendering one; only the best are rendered and examined, like
every other candidate.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deid.gallery import build
from deid.interfaces import Gallery, Generator
from deid.surrogates.steering import Steering

FIRST = 1_000_000  # number of the first candidate that is searched
SEARCHED = 30_000


@dataclass(frozen=True)
class Rare:
    """A group to be enlarged: apparent sex, the look that is wanted, and which end of it."""

    male: bool
    look: str
    high: bool
    count: int  # candidates examined


GROUPS = (
    Rare(male=False, look="skin_l", high=False, count=110),
    Rare(male=True, look="skin_l", high=False, count=110),
    Rare(male=False, look="hair_low", high=False, count=110),
    Rare(male=True, look="bald", high=True, count=60),
)


def candidates(gallery: Gallery, generator: Generator, recipe: build.Recipe) -> NDArray[np.int64]:
    """Numbers [N], ascending, of the candidates that promise to belong to one of `GROUPS`."""
    control = Steering(gallery, corrections=0).control
    numbers = np.arange(FIRST, FIRST + SEARCHED)
    centre = build.mean_style(generator, recipe)
    expected = control.measures(build.draw_styles(generator, recipe, numbers, centre))
    column = {
        name: expected[:, control.names.index(name)] for name in {"sex", "cut", *(g.look for g in GROUPS)}
    }
    whole = column["cut"] < np.median(column["cut"])
    chosen: set[int] = set()
    for group in GROUPS:
        usable = np.flatnonzero(whole & ((column["sex"] > 0) == group.male))
        order = np.argsort(column[group.look][usable] * (-1 if group.high else 1), kind="stable")
        chosen.update(numbers[usable[order[: group.count]]].tolist())
    return np.array(sorted(chosen), np.int64)


def extended(gallery: Gallery, batch: Mapping[str, NDArray[np.generic]], recipe: build.Recipe) -> Gallery:
    """The gallery with the usable candidates of a batch of `build.Examiner` that are near to no identity in it."""
    embeddings, kept = list(gallery.embeddings), []
    for row, reason in enumerate(batch["dropped"]):
        if (
            not reason
            and np.linalg.norm(np.array(embeddings) - batch["embedding"][row], axis=1).min()
            >= recipe.distance
        ):
            kept.append(row)
            embeddings.append(batch["embedding"][row])
    columns = {name: np.asarray(values)[kept] for name, values in batch.items()}
    wanted = [name for name in gallery.attributes if name in columns]
    return Gallery(
        styles=np.concatenate([gallery.styles, columns["style"]]),
        embeddings=np.concatenate([gallery.embeddings, columns["embedding"]]),
        meshes=np.concatenate([gallery.meshes, columns["mesh"]]),
        attributes={name: np.concatenate([gallery.attributes[name], columns[name]]) for name in wanted},
        mean_style=gallery.mean_style,
        metadata={**gallery.metadata, "enriched": str(len(kept))},
    )
