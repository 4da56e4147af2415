"""The k-Same-Net as a generator of its own: mixtures of synthetic identities, steered by expression, pose and light.

Its weights were trained on consented pictures by `jobs/train_ksame_net.py` (docs/models/ksame_net.md). Each identity of
the packaged file is a mixture of three people; nobody's single face was ever a target.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from deid.errors import FaceError, ModelError
from deid.faces import align
from deid.interfaces import Face, Gallery, Rendering
from deid.models import ksame_net
from deid.models.ksame_net import LIGHT, SIDE, TURN, Conditions, KSameNetwork
from deid.surrogates.ksame_mesh import BACKGROUND, upright
from deid.surrogates.shapefree import Frame
from deid.surrogates.shapes import Shapes

Values = NDArray[np.floating]
PACKAGED = Path(__file__).parent / "data" / "ksame_net.safetensors"
LIMIT = 3.0  # standard deviations of the training people's expressions beyond which the input is cut
SOLID = 0.4  # opacity above which a part of a head hangs together with another
FAINT = 0.08  # opacity below which there is nothing, and that far from 1 above which all is head
FARTHEST = 45.0  # degrees of yaw and pitch beyond which the input is cut


class KSameNet:
    """Heads of mixtures.

    Args:
        files: {"ksame_net.safetensors": path}, weights of one's own; empty: the packaged ones.
        threads: of the CPU; set for the whole process, as PyTorch has it.
        device: "cpu" or "cuda".

    Raises:
        ModelError: the file cannot be read, or holds another network.
    """

    def __init__(
        self, files: Mapping[str, Path] | None = None, threads: int = 1, device: str = "cpu"
    ) -> None:
        file = (files or {}).get(PACKAGED.name, PACKAGED)
        self.device = device
        torch.set_num_threads(threads)
        try:
            state = {name: value.float() for name, value in load_file(file).items()}
            about = {
                n.removeprefix("about."): state.pop(n).numpy() for n in list(state) if n.startswith("about.")
            }
            self.identities, coefficients = ksame_net.sizes(state)
            network = KSameNetwork(self.identities, coefficients)
            network.load_state_dict(state)
            self.frame = Frame(about["frame"])
            self.centre, self.spread = about["centre"], about["spread"]
            self.shapes = Shapes(
                *(about[f"shapes.{n}"].astype(np.float64) for n in ("mean", "expressions", "people"))
            )
            self._mean = about["mean"] if coefficients else None
            self._basis = about["basis"] if coefficients else None
        except (OSError, SafetensorError, RuntimeError, KeyError) as error:
            raise ModelError(
                f"{file.name}: no k-Same-Net ({type(error).__name__}); install deid again"
            ) from None
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network.eval().requires_grad_(False).to(device)

    def use(self, gallery: Gallery) -> None:
        """Say whose mixtures will be drawn: the styles of a gallery of `jobs/build_net_gallery.py` are their weights.

        Raises:
            ModelError: it is none of this network's.
        """
        if self.variant == "plain" or gallery.styles.shape[1:] != (self.identities,):
            raise ModelError(
                "gallery: it has no mixtures of this network; build one with jobs/build_net_gallery.py"
            )
        self._gallery = gallery

    def draw(
        self, identities: Sequence[NDArray[np.int64]], faces: Sequence[Face], side: int
    ) -> list[Rendering]:
        """As `deid.interfaces.Renderer` says; textures of all faces are made in one pass.

        Raises:
            FaceError: a face without a mesh, a mesh that is none, or no identities.
        """
        meshes = [self._mesh(*given, side) for given in zip(identities, faces, strict=True)]
        if not meshes:
            return []
        mixtures = np.stack([self._gallery.styles[chosen].mean(0) for chosen in identities])
        textures, _ = self.heads(mixtures, align.expression(np.stack(meshes)))
        drawn = []
        for texture, mesh in zip(textures.astype(np.float32), meshes, strict=True):
            texture[..., 3] = ((texture[..., 3] / 255 - FAINT) / (1 - 2 * FAINT)).clip(0, 1)
            texture[..., 3] *= joined(texture[..., 3])
            texture[..., :3] *= texture[..., 3:]
            head = np.asarray(self.frame.from_frame(texture, mesh, side), np.float32)
            picture = head[..., :3] + BACKGROUND * (1 - head[..., 3:])
            drawn.append(Rendering(picture.round().clip(0, 255).astype(np.uint8), mesh))
        return drawn

    def _mesh(self, chosen: NDArray[np.int64], face: Face, side: int) -> NDArray[np.float32]:
        """The mixture's own shape with the face's pose and expression [468, 3], px of the picture to be drawn."""
        if face.mesh is None or not len(chosen):
            raise FaceError("generate_failed")
        shape = self._gallery.meshes[chosen].mean(0).astype(np.float64)
        pose, like = self.shapes.pose_and_expression(face.mesh)
        if face.wanted is None:
            expression = self.shapes.towards(shape, align.expression(face.mesh), like)
        else:
            expression = self.shapes.towards(shape, face.wanted)
        return upright(self.shapes.mesh_of(shape, expression, pose), self.frame, side)

    @property
    def variant(self) -> str:
        """ "shapefree" or "plain"."""
        return "plain" if self._basis is None else "shapefree"

    def mixture(self, members: Sequence[int]) -> NDArray[np.float32]:
        """Equal weights [identities] of k different identities.

        Raises:
            ValueError: none, twice the same, or one that is not there.
        """
        chosen = sorted(set(members))
        if not chosen or len(chosen) != len(members) or chosen[0] < 0 or chosen[-1] >= self.identities:
            raise ValueError(f"a mixture is of different identities, 0 to {self.identities - 1}")
        weights = np.zeros(self.identities, np.float32)
        weights[chosen] = np.float32(1 / len(chosen))
        return weights

    def heads(
        self,
        mixtures: Values,
        expression: Values | None = None,
        pose: Values | None = None,
        light: Values | None = None,
        side: int = SIDE,
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Pictures [N, side, side, 4], RGB and head mask, and meshes [N, 468, 3] in the frame's units, not turned.

        Of the shape-free variant the pictures are textures in `frame`; of the plain one they show the head in its pose,
        and the meshes are the frame's mean.

        Args:
            mixtures: [N, identities], weights of `mixture`.
            expression: [N, 5], `align.EXPRESSION`; None: the mean of the training people, half a smile.
            pose: [N, 3] yaw, pitch, roll in degrees; None: frontal.
            light: [N, 4], `deid.models.ksame_net.LIGHT`; None: as in the training pictures.
            side: 128 or 256 px.

        Raises:
            ValueError: arrays of other shapes.
        """
        count, zero = len(mixtures), np.zeros
        given = {
            "identity": (self.identities, mixtures),
            "expression": (
                len(align.EXPRESSION),
                zero((count, 5)) + self.centre if expression is None else expression,
            ),
            "pose": (3, zero((count, 3)) if pose is None else pose),
            "light": (len(LIGHT), zero((count, 4)) if light is None else light),
        }
        arrays = {name: np.asarray(value, np.float32) for name, (_, value) in given.items()}
        for name, (width, _) in given.items():
            if arrays[name].shape != (count, width):
                raise ValueError(f"{name}: [{count}, {width}] wanted, not {list(arrays[name].shape)}")
        arrays["expression"] = np.clip((arrays["expression"] - self.centre) / self.spread, -LIMIT, LIMIT)
        arrays["pose"] = np.clip(arrays["pose"], -FARTHEST, FARTHEST) / TURN
        conditions = Conditions(*(torch.from_numpy(value.astype(np.float32)) for value in arrays.values()))
        with torch.inference_mode():
            found, shape = self.network(conditions.to(self.device), side)
            pictures = found.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        if self._basis is None or self._mean is None:
            return pictures, np.repeat(self.frame.mean[None], count, 0)
        meshes = self._mean + np.tensordot(shape.cpu().numpy(), self._basis, 1)
        return pictures, meshes.astype(np.float32)

    def portraits(
        self,
        mixtures: Values,
        expression: Values | None = None,
        pose: Values | None = None,
        light: Values | None = None,
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Pictures [N, 256, 256, 4] of heads in their pose, RGB and mask, and their meshes [N, 468, 3] in pixels.

        Arguments as of `heads`. Of the plain variant the meshes are only about where the face is.

        Raises:
            ValueError: arrays of other shapes.
            FaceError: a pose that turns the face away.
        """
        pictures, meshes = self.heads(mixtures, expression, pose, light)
        poses = np.zeros((len(mixtures), 3)) if pose is None else np.clip(pose, -FARTHEST, FARTHEST)
        placed = np.stack([turned(mesh, each) for mesh, each in zip(meshes, poses, strict=True)]) * SIDE
        located = placed.astype(np.float32)
        if self.variant == "plain":
            return pictures, located
        shown = [self.frame.from_frame(*given, SIDE) for given in zip(pictures, located, strict=True)]
        return np.stack(shown).astype(np.uint8), located


def joined(mask: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 where a mask [S, S], 0..1, hangs together with its largest part, else 0: hair does not hover."""
    _, labels, sizes, _ = cv2.connectedComponentsWithStats((mask > SOLID).astype(np.uint8))
    largest = 1 + int(sizes[1:, cv2.CC_STAT_AREA].argmax()) if len(sizes) > 1 else 0
    near = cv2.dilate((labels == largest).astype(np.uint8), np.ones((5, 5), np.uint8))
    return np.asarray(near, np.float32)


def turned(mesh: NDArray[np.floating], pose: Values | Sequence[float]) -> NDArray[np.float64]:
    """A mesh [468, 3] turned about its middle by yaw, pitch and roll in degrees, as `align.pose` counts them."""
    yaw, pitch, roll = np.radians(pose)
    across = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
    up = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    lean = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    middle = np.asarray(mesh, np.float64).mean(0)
    return np.asarray((mesh - middle) @ (lean @ across @ up).T + middle)
