"""A surrogate's style, steered to a source face's pose, expression and looks, rendered on trial and corrected."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deid.errors import ConfigError, FaceError
from deid.faces.align import EXPRESSION, MEASURES
from deid.faces.appearance import COLOURS, LOOKS
from deid.gallery import worn
from deid.interfaces import Face, Gallery
from deid.surrogates.control import Control

Style = NDArray[np.float32]  # [style_dim]
SURE = (5.5, 6.5)  # log odds of the surrogate's apparent sex
LEAST = 0.001  # likelihood, on either side, beyond which log odds no longer grow
NOT_BALD = 0.6  # share of skin above the forehead beyond which a head has no hair colour
ROOM = 0.33  # face heights of hair for which there is room in a generated picture; the rest is stretched
OUTLYING = (0.5, 99.5)  # percentiles of the gallery to which its values are clipped
STRENGTH = 0.8  # part of what is missing that a correction adds
FARTHEST = 1.15  # of the gallery's median distance from the centre: how far a style may go,
FARTHER = 1.1  # or of its own distance before it was steered
FLOOR = 0.1  # of the mean variance, added to that of every direction
HIDDEN = 0.04  # share of a face that may be covered: a hand is more
HAIR = COLOURS[3:6]


@dataclass(frozen=True)
class Seen:
    """What a trial rendering of a style shows."""

    mesh: NDArray[np.float32]  # [468, 3] px
    looks: NDArray[np.float32] | None = None  # [len(LOOKS)]
    hidden: float = 0.0  # share of the face that something else covers


@dataclass(frozen=True)
class Range:
    """How far styles may go from their centre, by the Mahalanobis distance: beyond, the generator breaks."""

    centre: NDArray[np.float64]  # [style_dim]
    whiten: NDArray[np.float64]  # [style_dim, style_dim]
    limit: float

    @classmethod
    def fit(cls, styles: NDArray[np.float32]) -> "Range":
        centre = styles.mean(0, np.float64)
        values, vectors = np.linalg.eigh(np.cov((styles - centre).T))
        whiten = vectors / np.sqrt(np.maximum(values, 0) + FLOOR * values.mean())
        distances = np.linalg.norm((styles - centre) @ whiten, axis=1)
        return cls(centre, whiten, FARTHEST * float(np.median(distances)))

    def distance(self, style: Style) -> float:
        return float(np.linalg.norm((style - self.centre) @ self.whiten))

    def within(self, start: Style, style: Style) -> Style:
        """The last style within the limit on the way from `start` to `style`."""
        share, limit = 1.0, max(self.limit, FARTHER * self.distance(start))
        while share > 0.05 and self.distance(start + np.float32(share) * (style - start)) > limit:
            share -= 0.05
        return np.asarray(start + np.float32(share) * (style - start), np.float32)


class Steering:
    """Steering within a gallery.

    Args:
        corrections: trial renderings, after each of which the style is corrected.

    Raises:
        ConfigError: too few identities.
    """

    def __init__(self, gallery: Gallery, corrections: int) -> None:
        self.corrections = corrections
        values = {
            name: _clipped(gallery, name)
            for name in (*LOOKS, "cut", *worn.KINDS, "age")
            if name in gallery.attributes
        }
        if "sex" in gallery.attributes:
            values["sex"] = log_odds(np.asarray(gallery.attributes["sex"], np.float64))
        if len(gallery) < 2 * (len(values) + len(MEASURES)):
            values = {}  # too few to learn looks from: pose and expression alone
        try:
            self.control = Control.fit(gallery.styles, gallery.meshes, others=values)
        except ValueError as error:
            raise ConfigError(f"gallery: {error}; build a larger one") from None
        self.range = Range.fit(gallery.styles)

    def follow(
        self, style: Style, face: Face, see: Callable[[Style], Seen], male: float, age: float
    ) -> tuple[Style, bool]:
        """The style with a face's pose, expression and looks, of its apparent sex and age; and whether its last trial
        showed a face that nothing covers.

        Args:
            see: renders a style small and measures it.
            male: probability, NaN when not known; age: years, likewise.

        Raises:
            FaceError: the face has no mesh.
        """
        if face.mesh is None:
            raise FaceError("match_failed")
        target, start = self.control.target(face.mesh, self.wanted(face, male, age)), style
        style = self.range.within(start, self.control.steer(start, target))
        sound = True
        for _ in range(self.corrections):
            try:
                found = see(style)
            except FaceError:  # no face to measure: the last style stays, and is checked when rendered
                sound = False
                break
            sound = found.hidden < HIDDEN
            looks = {} if found.looks is None else dict(zip(LOOKS, found.looks.tolist(), strict=True))
            seen = self.control.target(found.mesh, looks)
            style = self.range.within(start, self.control.correct(style, target, seen, STRENGTH))
        return style, sound

    def wanted(self, face: Face, male: float, age: float) -> dict[str, float]:
        """Targets by name; a head that is not cut off, and nothing worn."""
        found = dict.fromkeys(("cut",), 0.0) | dict.fromkeys(worn.KINDS, -1.0) | {"age": age}
        if np.isfinite(male):
            odds = float(log_odds(np.array([male]))[0])
            found["sex"] = float(np.copysign(np.clip(abs(odds), *SURE), odds))
        if face.wanted is not None:
            found |= dict(zip(EXPRESSION, face.wanted.tolist(), strict=True))
        if face.looks is not None:
            found |= dict(zip(LOOKS, face.looks.tolist(), strict=True))
            found["hair_top"] = min(found["hair_top"], ROOM)
            if found["bald"] > NOT_BALD:
                found |= dict.fromkeys(HAIR, float("nan"))
        return found


def log_odds(probability: NDArray[np.floating]) -> NDArray[np.float64]:
    """Logarithm of the odds [N] of probabilities [N], bounded."""
    p = np.clip(np.asarray(probability, np.float64), LEAST, 1 - LEAST)
    return np.asarray(np.log(p / (1 - p)))


def _clipped(gallery: Gallery, name: str) -> NDArray[np.float64]:
    values = np.asarray(gallery.attributes[name], np.float64)
    return np.asarray(np.clip(values, *np.nanpercentile(values, OUTLYING)))
