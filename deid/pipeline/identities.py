"""Draws the gallery identities of each face, under the run secret."""

import numpy as np
from numpy.typing import NDArray

from deid.config import Match
from deid.errors import FaceError
from deid.faces.align import five_points
from deid.faces.attributes import AttributeHeads, sex_class
from deid.interfaces import Face, Gallery
from deid.privacy import keys
from deid.surrogates import match
from deid.surrogates.match import Indices

SEX_BAND = np.array(
    [0.5, 0.5], np.float32
)  # P(male): what is likelier counts; a wrong guess costs no privacy
SPARES = 128  # identities of a run that spares are drawn from, so that few of them are rendered
ALIKE_TURNED = 256  # identities among which those of a lower rung, which are not steered, are drawn


class Identities:
    """The k identities of a face, as its rung of the ladder asks for them.

    Args:
        heads: of apparent sex and age; None: neither is known.
    """

    def __init__(
        self, gallery: Gallery, options: Match, secret: bytes, heads: AttributeHeads | None = None
    ) -> None:
        match.check(options, gallery)
        self.gallery, self.options, self.secret, self.heads = gallery, options, secret, heads
        self.points = five_points(gallery.meshes)
        self.spares = np.zeros(len(gallery), np.bool_)
        self.spares[keys.rng_for(secret, b"spares").permutation(len(gallery))[:SPARES]] = True

    def of(self, face: Face, unit: int, position: int, number: int, draw: int = 0) -> Indices:
        """Indices [k] of the `number`-th face of a picture; others for each rung and each `draw`.

        Below the first rung a face may have no embedding. Then no margin can be checked, and the draw, which
        does not look at the person, is what keeps him from being found.

        Raises:
            FaceError: fewer than k identities lie beyond the margin.
        """
        first, options = face.anonymizer == "surrogate", self.options
        if face.embedding is None and first:
            raise FaceError("match_failed")
        if options.method == "nearest" and face.embedding is not None:
            return match.nearest(face.embedding, self.gallery, options.k)
        name = keys.face_id(self.secret, unit, position, number)
        name = f"{name} {draw}" if draw else name
        rng = keys.rng_for(self.secret, (name if first else f"{name} {face.anonymizer}").encode())
        sex, age, distance = match.UNKNOWN, float("nan"), np.full(len(self.gallery), np.inf)
        if face.embedding is not None:
            sex, age = self.apparent(face.embedding)
            distance = match.distances(face.embedding, self.gallery)
        if not first:
            distance = self.turned_alike(face, distance)
        looks = face.looks if first else None
        return match.draw(
            distance,
            self.gallery,
            options.k,
            options.margin,
            rng,
            sex,
            age,
            options.age_band,
            looks,
            options.alike,
        )

    def spare(self, face: Face, unit: int, position: int, number: int) -> Indices:
        """Indices [k] of what may take the surrogate's place: a draw of its own, and distant whatever the method.

        Raises:
            FaceError: fewer than k of the spares lie beyond the margin, or the face has no embedding.
        """
        if face.embedding is None:
            raise FaceError("match_failed")
        options = self.options
        rng = keys.rng_for(self.secret, f"{keys.face_id(self.secret, unit, position, number)} spare".encode())
        distance = np.where(self.spares, match.distances(face.embedding, self.gallery), -1.0)
        sex, age = self.apparent(face.embedding)
        return match.draw(distance, self.gallery, options.k, options.margin, rng, sex, age, options.age_band)

    def apparent(self, embedding: NDArray[np.float32]) -> tuple[int, float]:
        """Apparent sex (1 male, 0 female, -1 not known) and age in years (NaN not known)."""
        likelihood, age = self.likely(embedding)
        if not np.isfinite(likelihood):
            return match.UNKNOWN, age
        return int(sex_class(np.array([likelihood]), SEX_BAND)[0]), age

    def likely(self, embedding: NDArray[np.float32] | None) -> tuple[float, float]:
        """Probability of male and apparent age in years; NaN where they are not known or not to count."""
        if self.heads is None or embedding is None:
            return float("nan"), float("nan")
        found = self.heads.predict(embedding[None])
        return float(found["sex"][0]) if self.options.same_sex else float("nan"), float(found["age"][0])

    def turned_alike(self, face: Face, distance: NDArray[np.float64]) -> NDArray[np.float64]:
        """The distances [N], with -1 for identities beyond the margin that are turned otherwise than the face."""
        points = face.points if face.mesh is None else five_points(face.mesh)
        beyond = distance >= self.options.margin
        return np.where(match.alike_turned(points, self.points, beyond, ALIKE_TURNED), distance, -1.0)
