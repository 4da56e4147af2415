"""Surrogates of a generator that draws gallery identities straight onto a face: nothing is steered or tried."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deid.errors import FaceError
from deid.faces.mesh import as_detection
from deid.interfaces import Face, Gallery, Picture, Renderer, Rendering
from deid.surrogates import composite, ksame, ladder
from deid.surrogates.match import Indices

Chosen = tuple[Face, Indices]


class Direct:
    """Draws with a renderer what faces' rungs ask for.

    Args:
        sizes: px of pictures; the least that covers a face is drawn.
        tolerance: share of the needed pixels that will do.
    """

    def __init__(self, renderer: Renderer, gallery: Gallery, sizes: Sequence[int], tolerance: float) -> None:
        self.renderer, self.gallery, self.sizes, self.tolerance = renderer, gallery, sizes, tolerance
        self.mean_mesh = gallery.meshes.mean(0)
        renderer.use(gallery)

    def render(self, batch: Sequence[Chosen]) -> list[Rendering]:
        """Pictures of faces, each of the least side that covers it; a face at the rung `simple` looks straight on."""
        sides = [self._side(face) for face, _ in batch]
        found: dict[int, Rendering] = {}
        for side in sorted(set(sides)):
            rows = [n for n, own in enumerate(sides) if own == side]
            chosen = [batch[n][1] for n in rows]
            faces = [self._posed(*batch[n], side) for n in rows]
            found.update(zip(rows, self.renderer.draw(chosen, faces, side), strict=True))
        return [found[n] for n in range(len(batch))]

    def portrait(self, index: int, side: int) -> Picture:
        """One identity [side, side, 3] or smaller, as the gallery's mesh has it."""
        chosen = np.array([index])
        return self.renderer.draw([chosen], [_face(self.gallery.meshes[index] * side)], side)[0].picture

    def place(self, face: Face, drawn: Rendering, sizes: Sequence[int]) -> bool:
        """Give a face its surrogate, no larger than its place in the picture needs.

        Raises:
            FaceError: what was drawn cannot be used.
        """
        picture, mesh = drawn.picture, drawn.mesh
        if not np.isfinite(mesh).all():
            raise FaceError("generate_failed")
        if face.anonymizer == "simple":
            picture = ksame.reduced(picture, ladder.SIMPLE_SIDE)
            mesh = mesh * np.float32(len(picture) / len(drawn.picture))
        if face.mesh is None:
            face.mesh = ksame.lay(mesh, face.points, face.box)
        face.surrogate, face.surrogate_mesh = composite.fit_size(picture, mesh, face, sizes)
        return True

    def _side(self, face: Face) -> int:
        if face.anonymizer == "simple" or face.mesh is None:
            return min(self.sizes)
        return composite.least_size(self.mean_mesh, face, self.sizes, self.tolerance)

    def _posed(self, face: Face, chosen: Indices, side: int) -> Face:
        """The face whose pose and expression are drawn."""
        if face.anonymizer != "simple" and face.mesh is not None:
            return face
        return _face(self.gallery.meshes[chosen].mean(0) * side)


def _face(mesh: NDArray[np.floating]) -> Face:
    seen = as_detection(mesh.astype(np.float32))
    return Face(seen.boxes[0], 1.0, seen.points[0], mesh.astype(np.float32), 1.0)
