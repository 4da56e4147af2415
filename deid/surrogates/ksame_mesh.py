"""k-Same-M: ready-made mixtures of consented people, warped to the target's pose and expression.

Gross, Sweeney, de la Torre and Baker (2006) average the shapes and the shape-free textures of an active appearance
model. Here the averages are made beforehand, from other people than those who are replaced, and kept as textures of
the shape-free frame and neutral shapes; a face gives its pose and its expression and nothing else.
"""

import base64
import io
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.errors import FaceError, ModelError
from deid.faces import align
from deid.interfaces import Face, Gallery, Rendering
from deid.surrogates import composite, masks
from deid.surrogates.shapefree import Frame
from deid.surrogates.shapes import Shapes

TEXTURES = ("neutral", "smiling")  # columns of the gallery: encoded RGBA
MODEL = "ksame_mesh"  # key of its metadata: frame, shapes and mouth, as an .npz in base64
SIDES = (128, 256, 512)  # px of textures
BACKGROUND = 200.0  # grey level of what is not head
LEVELS = 24  # of a texture's opacity
PARTED = (0.018, 0.05)  # `mouth_opening` from which what is between the lips begins to show, and shows whole
CACHE_BYTES = 128 * 2**20

Layers = NDArray[np.float32]  # [S, S, 4] RGB times opacity, 0..255, and opacity 0..1


class KSameMesh:
    """Draws the mixtures of a gallery that `jobs/build_mixtures.py` made.

    Args:
        files: none; all is in the gallery.
        threads: of the CPU.
        device: not used: it runs on the CPU.
    """

    def __init__(self, files: Mapping[str, Path], threads: int = 1, device: str = "cpu") -> None:
        self._kept: OrderedDict[tuple[tuple[int, ...], int], tuple[Layers, Layers]] = OrderedDict()

    def use(self, gallery: Gallery) -> None:
        if MODEL not in gallery.metadata or not set(TEXTURES) <= set(gallery.textures):
            raise ModelError("gallery: it has no mixtures to draw; build one with jobs/build_mixtures.py")
        arrays = unpack(gallery.metadata[MODEL])
        self.gallery, self.frame = gallery, Frame(arrays["frame"].astype(np.float32))
        self.shapes = Shapes(*(arrays[name].astype(np.float64) for name in ("mean", "expressions", "people")))
        mouth = arrays["mouth"].astype(np.float32)
        opacity = mouth[..., 3:] / np.float32(255)
        self.mouth = np.concatenate([mouth[..., :3] * opacity, opacity], axis=2)
        self._kept.clear()

    def draw(
        self, identities: Sequence[NDArray[np.int64]], faces: Sequence[Face], side: int
    ) -> list[Rendering]:
        side = min(side, SIDES[-1])
        return [self._draw(chosen, face, side) for chosen, face in zip(identities, faces, strict=True)]

    def _draw(self, chosen: NDArray[np.int64], face: Face, side: int) -> Rendering:
        if face.mesh is None or not len(chosen):
            raise FaceError("generate_failed")
        shape = self.gallery.meshes[chosen].mean(0).astype(np.float64)
        pose, expression = self.shapes.pose_and_expression(face.mesh)
        if face.wanted is None:
            expression = self.shapes.towards(shape, align.expression(face.mesh), expression)
        else:
            expression = self.shapes.towards(shape, face.wanted)
        mesh = self.shapes.mesh_of(shape, expression, pose)
        mesh = upright(mesh, self.frame, side)
        texture = self._texture(chosen, self.shapes.smile(expression), mesh, side)
        head = np.asarray(self.frame.from_frame(texture, mesh, side), np.float32)
        picture = head[..., :3] + BACKGROUND * (1 - head[..., 3:])
        return Rendering(picture.round().clip(0, 255).astype(np.uint8), mesh)

    def _texture(
        self, chosen: NDArray[np.int64], smile: float, mesh: NDArray[np.float32], side: int
    ) -> Layers:
        """Texture of a mixture: more of the smiling one the more it smiles, and teeth where the lips are parted."""
        neutral, smiling = self._textures(tuple(chosen.tolist()), side)
        texture = np.asarray(cv2.addWeighted(neutral, 1 - smile, smiling, smile, 0), np.float32)
        opening = float(align.expression(mesh)[align.EXPRESSION.index("mouth_opening")])
        share = float(masks.smoothstep((opening - PARTED[0]) / (PARTED[1] - PARTED[0])))
        if share:
            rows, columns, mouth = self._between(side)
            texture[rows, columns] *= 1 - share * mouth[..., 3:]
            texture[rows, columns] += share * mouth
        return texture

    def _between(self, side: int) -> tuple[slice, slice, Layers]:
        """What shows between the lips, and where it is."""
        mouth = _sized(self.mouth, side)
        rows, columns = (np.flatnonzero(mouth[..., 3].any(axis)) for axis in (1, 0))
        where = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        return (*where, mouth[where])

    def _textures(self, chosen: tuple[int, ...], side: int) -> tuple[Layers, Layers]:
        key = chosen, next((size for size in SIDES if size >= side), SIDES[-1])
        if key not in self._kept:
            made = (
                np.mean([self._decoded(name, one, key[1]) for one in chosen], axis=0) for name in TEXTURES
            )
            neutral, smiling = made
            self._kept[key] = neutral, smiling
        self._kept.move_to_end(key)
        while sum(2 * kept[0].nbytes for kept in self._kept.values()) > CACHE_BYTES and len(self._kept) > 1:
            self._kept.popitem(last=False)
        return self._kept[key]

    def _mixed(self, name: str, chosen: tuple[int, ...], side: int) -> Layers:
        return np.mean([self._decoded(name, one, side) for one in chosen], axis=0, dtype=np.float32)

    def _decoded(self, name: str, index: int, side: int) -> Layers:
        encoded = np.frombuffer(self.gallery.textures[name][index], np.uint8)
        found = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
        if found is None or found.shape[2:] != (4,):
            raise FaceError("generate_failed")
        layers = np.asarray(cv2.cvtColor(found, cv2.COLOR_BGRA2RGBA), np.float32)
        layers[..., 3] /= 255
        layers[..., :3] *= layers[..., 3:]
        return _sized(layers, side)


def upright(mesh: NDArray[np.float32], frame: Frame, side: int) -> NDArray[np.float32]:
    """A mesh of any place, size and roll (px) as it stands in a picture of this side (px), depth as well."""
    scale, matrix = composite.similarity(mesh, (frame.mean * side).astype(np.float32))
    flat = mesh[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    return np.hstack([flat, mesh[:, 2:] * scale]).astype(np.float32)


def encode(layers: NDArray[np.float32], quality: int) -> bytes:
    """A texture [S, S, 4] (RGB 0..255, opacity 0..1) as WebP."""
    opacity = (layers[..., 3] * LEVELS).round() * (255 / LEVELS)
    whole = np.dstack([layers[..., 2::-1], opacity]).round().clip(0, 255).astype(np.uint8)
    done, data = cv2.imencode(".webp", whole, [cv2.IMWRITE_WEBP_QUALITY, quality])
    if not done:
        raise ValueError("a texture could not be encoded")
    return data.tobytes()


def pack(arrays: Mapping[str, NDArray[np.generic]]) -> str:
    """Arrays as text; `unpack` is the inverse."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return base64.b64encode(buffer.getvalue()).decode()


def unpack(text: str) -> dict[str, NDArray[np.generic]]:
    """The arrays of `pack`.

    Raises:
        ModelError: they are no such arrays.
    """
    try:
        with np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False) as found:
            return {name: found[name] for name in ("frame", "mean", "expressions", "people", "mouth")}
    except (ValueError, KeyError, OSError):
        raise ModelError("gallery: its mixtures cannot be read; build it again") from None


def _sized(layers: NDArray[np.float32], side: int) -> Layers:
    if len(layers) == side:
        return layers
    return np.asarray(cv2.resize(layers, (side, side), interpolation=cv2.INTER_AREA), np.float32)
