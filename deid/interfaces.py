"""The replaceable parts, each a protocol of one or two methods on batches; NumPy at the borders, torch inside.

A part is picked in the configuration by a built-in name or by a class path (`package.module:Class`), which is
called as `Class(files, threads=1, device="cpu" or "cuda", **options)`: the model's files by base name, the threads of
one actor, and the part's own options.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # [H, W, 3] RGB, upright


@dataclass
class Detections:
    """Faces of one picture, best first."""

    boxes: NDArray[np.float32]  # [N, 4] x0, y0, x1, y1 in pixels
    scores: NDArray[np.float32]  # [N] 0..1
    points: NDArray[
        np.float32
    ]  # [N, 5, 2] right eye, left eye, nose tip, right, left mouth corner (the person's
    # right is on the picture's left), pixels

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def sound(self) -> bool:
        """Boxes, scores and points are as many, and the boxes are finite."""
        return len(self.boxes) == len(self.scores) == len(self.points) and bool(np.isfinite(self.boxes).all())


@dataclass
class Face:
    """One face of one picture, filled in stage by stage.

    `failure` is "" or a code of `records.COVER`, `anonymizer` "" or a name of `records.ANONYMIZERS`.
    """

    box: NDArray[np.float32]  # [4] pixels
    score: float
    points: NDArray[np.float32]  # [5, 2] pixels
    mesh: NDArray[np.float32] | None = None  # [468, 3] pixels of the picture, z in the same unit
    mesh_score: float = 0.0  # 0..1; 0 where there is no mesh, or one laid by the detector's points
    embedding: NDArray[np.float32] | None = None  # [dim]
    segments: NDArray[np.uint8] | None = (
        None  # [128, 128, 5] parts of the head on its chip (deid.faces.segment)
    )
    looks: NDArray[np.float32] | None = None  # [len(LOOKS)] of deid.faces.appearance
    anonymizer: str = ""  # the rung of the ladder; lowered by `deid.surrogates.ladder.lower` alone
    failure: str = ""
    surrogate: Picture | None = None  # [S, S, 3]
    surrogate_mesh: NDArray[np.float32] | None = None  # [468, 3] pixels of the surrogate
    surrogate_segments: NDArray[np.uint8] | None = None  # [128, 128, 5]
    spare: Picture | None = None  # [S, S, 3] what stands in when the gate refuses the surrogate
    spare_mesh: NDArray[np.float32] | None = None  # [468, 3] pixels of the spare
    k: int = 0  # gallery identities averaged
    identities: NDArray[np.int32] | None = None  # [k] of the gallery, which the assignment appoints
    surrogate_id: int = -1  # number of the shared surrogate (`keys.surrogate_id`); -1: none is appointed
    wanted: NDArray[np.float32] | None = (
        None  # [5] `align.EXPRESSION` of the surrogate; None: as the mesh has it
    )
    sex: int = -1  # apparent: 1 male, 0 female, -1 not known
    age: float = float("nan")  # apparent, years
    expression: str = ""  # of the source (`deid.privacy.audit.expression`); "": not looked at
    gate: str = ""  # "" before compositing, then a name of `records.GATE`
    status: str = ""  # "" before compositing, then "replaced" or "covered"

    @property
    def height(self) -> float:
        return float(self.box[3] - self.box[1])

    @property
    def laid(self) -> bool:
        """The mesh is not the mesher's: a gallery face's, laid on the detector's five points."""
        return self.mesh is not None and self.mesh_score == 0


@dataclass
class Gallery:
    """The fixed gallery of synthetic identities: no person is behind any entry."""

    styles: NDArray[np.float32]  # [N, style_dim]
    embeddings: NDArray[np.float32]  # [N, dim]
    meshes: NDArray[np.float32]  # [N, 468, 3] in units of the generated picture's side (0..1)
    attributes: dict[str, NDArray[np.generic]] = field(default_factory=dict)  # each [N]: sex, age, yaw, ...
    mean_style: NDArray[np.float32] | None = None  # [style_dim], the truncation centre
    metadata: dict[str, str] = field(default_factory=dict)  # model hashes, seed, recipe
    textures: dict[str, list[bytes]] = field(
        default_factory=dict
    )  # each [N]: encoded pictures of the entries

    def __len__(self) -> int:
        return len(self.styles)


class Detector(Protocol):
    def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        """Faces of each picture, in pixels of that picture, parts outside the picture allowed."""


class Mesher(Protocol):
    def mesh(
        self, picture: Picture, detections: Detections
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Meshes [N, 468, 3] in pixels of the picture, and face scores [N] 0..1."""


class Embedder(Protocol):
    dim: int

    def embed(
        self, pictures: Sequence[Picture], faces: Sequence[Sequence[Face]]
    ) -> list[NDArray[np.float32]]:
        """Per picture the embeddings [N, dim] of its faces; Euclidean distance is the dissimilarity."""


class Generator(Protocol):
    latent_dim: int
    style_dim: int

    def map(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """Styles [N, style_dim] of latents [N, latent_dim] drawn from a standard normal distribution."""

    def generate(self, styles: NDArray[np.float32], side: int | None = None) -> NDArray[np.uint8]:
        """Pictures [N, side, side, 3] RGB of styles [N, style_dim]; side in pixels, None: the generator's own.

        A generator may also take styles [N, L, style_dim], one for each of its L layers, coarse to fine.
        """


@dataclass
class Rendering:
    """A surrogate's head, drawn for one face."""

    picture: Picture  # [S, S, 3], its background plain
    mesh: NDArray[np.float32]  # [468, 3] pixels of the picture


@runtime_checkable
class Renderer(Protocol):
    """A generator that draws gallery identities straight onto a face's pose and expression: no style is steered, and
    nothing is rendered on trial."""

    def use(self, gallery: Gallery) -> None:
        """Say which gallery's identities will be drawn; called once, before `draw`.

        Raises:
            ModelError: it is none of this generator's.
        """

    def draw(
        self, identities: Sequence[NDArray[np.int64]], faces: Sequence[Face], side: int
    ) -> list[Rendering]:
        """For each face the equal-weight mixture of gallery identities [k], in pictures of a side (px), or of the
        generator's own where that is less.

        The mesh of each face gives pose and expression; where `wanted` is set, the expression has these measures
        instead. Nothing else passes from the face.

        Raises:
            FaceError: a mesh is none of a face.
        """
