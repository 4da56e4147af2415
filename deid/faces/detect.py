"""CenterFace: boxes and five points of every face in a picture, at several scales.

Source: Xu, Yan, Yang, Li et al. 2020, "CenterFace: Joint Face Detection and Alignment Using Face as Point".
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from deid import log as logs
from deid.errors import ConfigError
from deid.interfaces import Detections, Picture

log = logs.logger(__name__)

Network = Callable[[NDArray[np.float32]], Sequence[NDArray[np.float32]]]  # [1, 3, H, W] to the four outputs

FILE = "centerface.onnx"
STRIDE = 4  # pixels of a level in one cell of the outputs
MULTIPLE = 32  # sides of the network's input
REDUCTION = 4  # between one level and the next
FULL_VIEW = 320  # px: longer side of a level below which none is needed: what fills it is not too large
TALL = 40  # px: least height at a reduced level; smaller ones were seen better at the level above
LARGE = 280  # px: taller ones are seen better at the level below: from here on boxes and points are off
IOU = 0.3  # boxes that overlap more are one face
INSIDE = 0.6  # as are boxes of which this part of the smaller lies in the larger


class CenterFaceDetector:
    """CenterFace over a pyramid of the picture.

    The topmost level is the picture enlarged at most `enlarge` times, as far as it then has no more than
    `enlarge_pixels` pixels, and never reduced: small pictures are enlarged, since the network misses half of the
    faces below 16 px as they are; large ones are seen at their own resolution, since a 12-megapixel photograph
    enlarged three times would take 12 s. Below it come levels reduced 4 times each, until one shows the whole picture
    within 320 px, for the faces that are too large for the level above (taller than 280 px).
    So a picture costs about `max(pixels, min(enlarge_pixels, pixels * enlarge**2)) * 1.07` pixels of network time,
    and levels larger than `tile` are run in overlapping tiles: memory does not grow with the picture.

    Args:
        files: `centerface.onnx`, as the model store gives it.
        threads: of the network on a CPU.
        device: `cuda` takes the CUDA execution provider where ONNX Runtime has it, else the CPU with a warning.
        engine: `onnxruntime`, or `openvino` (CPU only): bfloat16 where the CPU has it (AMX, AVX512-BF16).
        threshold: least score. 0.2 finds some more small faces, and takes more hair and hands for faces.
        enlarge: greatest enlargement, 1 or more.
        enlarge_pixels: pixels of the enlarged picture at most.
        tile: side of a tile in pixels, a multiple of 32, at least 256.

    Raises:
        ConfigError: an option is out of its range.
    """

    def __init__(
        self,
        files: Mapping[str, Path],
        threads: int = 1,
        device: str = "cpu",
        *,
        engine: str = "onnxruntime",
        threshold: float = 0.25,
        enlarge: float = 3.0,
        enlarge_pixels: int = 1_200_000,
        tile: int = 1280,
    ) -> None:
        if not 0 < threshold < 1:
            raise ConfigError(f"detector.options.threshold: {threshold} does not lie between 0 and 1")
        if enlarge < 1:
            raise ConfigError(f"detector.options.enlarge: {enlarge} is below 1")
        if tile < 256 or tile % MULTIPLE:
            raise ConfigError(f"detector.options.tile: {tile} is no multiple of {MULTIPLE} from 256 on")
        if engine not in _ENGINES:
            raise ConfigError(f"detector.options.engine: {engine!r} is unknown; use {', '.join(_ENGINES)}")
        self.threshold = threshold
        self.enlarge = enlarge
        self.enlarge_pixels = enlarge_pixels
        self.tile = tile
        self.network: Network = _ENGINES[engine](dynamic_model(files[FILE]), threads, device)

    def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        """Faces of each picture [H, W, 3], best first, in its pixels; the centres of the boxes lie inside of it."""
        return [self._detect(picture) for picture in pictures]

    def _detect(self, picture: Picture) -> Detections:
        boxes, scores, points, ranks = self.candidates(picture)
        keep = suppress(
            boxes, ranks
        )  # a face that is too large for its level stays where no other level has it
        keep = keep[np.argsort(-scores[keep], kind="stable")]
        return Detections(boxes[keep], scores[keep], points[keep])

    def candidates(self, picture: Picture, every: bool = False) -> tuple[NDArray[np.float32], ...]:
        """Boxes [N, 4], scores [N], points [N, 5, 2] in pixels of a picture [H, W, 3], and ranks [N], of all levels.

        A face has one candidate in each level that shows it, or with `every` one for each cell that sees it. Ranks are
        scores, less 1 where the face is too large for its level.
        """
        height, width = picture.shape[:2]
        found = []
        for number, scale in enumerate(self.scales(height, width)):
            level = _resize(picture, scale)
            factor = np.array([width / level.shape[1], height / level.shape[0]], np.float32)
            boxes, scores, points = self._level(level, every)
            heights = boxes[:, 3] - boxes[:, 1]
            tall = heights >= (TALL if number else 0)
            parts = boxes * np.tile(factor, 2), scores, points * factor, scores - (heights > LARGE)
            found.append([part[tall] for part in parts])
        return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))

    def scales(self, height: int, width: int) -> list[float]:
        """Scales of the pyramid's levels, the largest first."""
        room = (self.enlarge_pixels / (height * width)) ** 0.5
        scales = [min(max(room, 1.0), self.enlarge)]
        while scales[-1] * max(height, width) > FULL_VIEW:
            scales.append(scales[-1] / REDUCTION)
        return scales

    def _level(
        self, level: Picture, every: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Boxes [N, 4], scores [N] and points [N, 5, 2] in pixels of the level."""
        found = []
        for (x0, x1, left, right), (y0, y1, top, bottom) in tiles(level.shape, self.tile):
            part = level[y0:y1, x0:x1]
            boxes, scores, points = decode(self.network(_blob(part)), self.threshold)
            boxes += np.array([x0, y0, x0, y0], np.float32)
            points += np.array([x0, y0], np.float32)
            x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
            own = (x >= left) & (x < right) & (y >= top) & (y < bottom)
            found.append((boxes[own], scores[own], points[own]))
        boxes, scores, points = (np.concatenate(parts) for parts in zip(*found, strict=True))
        if every:
            return boxes, scores, points
        keep = suppress(boxes, scores)
        return boxes[keep], scores[keep], points[keep]


def decode(
    outputs: Sequence[NDArray[np.float32]], threshold: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Boxes [N, 4], scores [N] and points [N, 5, 2] in pixels of the network's input, not suppressed.

    Args:
        outputs: heatmap [1, 1, h, w], log of height and width in cells [1, 2, h, w], offset of the centre, y and x,
            in cells [1, 2, h, w], points, y and x, in heights and widths from the box's corner [1, 10, h, w].
        threshold: least value of the heatmap.
    """
    heatmap, sizes, offsets, landmarks = (output[0] for output in outputs)
    rows, columns = np.nonzero(heatmap[0] >= threshold)
    size = np.exp(np.minimum(sizes[:, rows, columns].T[:, ::-1], 8)) * STRIDE  # width, height
    offset = offsets[:, rows, columns].T[:, ::-1]
    centre = (np.stack([columns, rows], axis=1) + offset + 0.5) * STRIDE
    corner = centre - size / 2
    boxes = np.concatenate([corner, centre + size / 2], axis=1).astype(np.float32)
    places = landmarks[:, rows, columns].T.reshape(-1, 5, 2)[:, :, ::-1]
    points = (corner[:, None] + places * size[:, None]).astype(np.float32)
    return boxes, heatmap[0, rows, columns].astype(np.float32), points


def suppress(boxes: NDArray[np.float32], ranks: NDArray[np.float32]) -> NDArray[np.intp]:
    """Indices of the boxes [N, 4] that stay, by falling rank [N]: no box that overlaps a better one or lies within."""
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    left = np.argsort(-ranks, kind="stable")
    keep = []
    while len(left):
        best, left = left[0], left[1:]
        keep.append(best)
        corner = np.maximum(boxes[best, :2], boxes[left, :2])
        common = np.prod(np.maximum(np.minimum(boxes[best, 2:], boxes[left, 2:]) - corner, 0), axis=1)
        apart = common <= IOU * (areas[best] + areas[left] - common)
        left = left[apart & (common <= INSIDE * np.minimum(areas[best], areas[left]))]
    return np.array(keep, np.intp)


def dynamic_model(path: Path) -> bytes:
    """The network for any size of input: the file's static sizes (10, 3, 32, 32) are only those of its export.

    Weights are listed among the file's inputs, as was usual up to ONNX IR version 3; they are taken off.
    """
    model = onnx.load(str(path))
    graph = model.graph
    used = {name for node in graph.node for name in node.input}
    weights = [tensor for tensor in graph.initializer if tensor.name in used]
    inputs = [value for value in graph.input if value.name not in {t.name for t in graph.initializer}]
    for number, value in enumerate([*inputs, *graph.output]):
        batch, _, height, width = value.type.tensor_type.shape.dim
        batch.dim_value = 1
        height.dim_param, width.dim_param = f"height{number}", f"width{number}"
    del graph.initializer[:], graph.input[:]
    graph.initializer.extend(weights)
    graph.input.extend(inputs)
    content: bytes = model.SerializeToString()
    return content


def _blob(part: Picture) -> NDArray[np.float32]:
    """Network input [1, 3, H, W], 0..255, sides extended to multiples of 32 by the last row and column."""
    height, width = part.shape[:2]
    border = (0, -height % MULTIPLE, 0, -width % MULTIPLE)
    padded = cv2.copyMakeBorder(part, *border, cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(padded.transpose(2, 0, 1)[None], np.float32)


def _resize(picture: Picture, scale: float) -> Picture:
    if scale == 1:
        return picture
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (width, height), interpolation=kind), np.uint8)


def tiles(shape: Sequence[int], tile: int) -> Iterator[tuple[tuple[float, ...], ...]]:
    """Per tile and axis (x, y): begin and end of its pixels, begin and end of the centres that it answers for."""
    rows, columns = _spans(shape[0], tile), _spans(shape[1], tile)
    return ((column, row) for row in rows for column in columns)


def _spans(length: int, tile: int) -> list[tuple[Any, ...]]:
    """Tiles of one axis, which overlap by an eighth or more; a centre is the tile's whose border is farther."""
    count = 1 if length <= tile else -(-(length - tile // 8) // (tile - tile // 8))
    starts = [round(i * (length - tile) / (count - 1)) if count > 1 else 0 for i in range(count)]
    cuts = [-np.inf, *((a + tile + b) / 2 for a, b in itertools.pairwise(starts)), np.inf]
    return [(start, min(start + tile, length), *cuts[i : i + 2]) for i, start in enumerate(starts)]


def _onnxruntime(model: bytes, threads: int, device: str) -> Network:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.startswith("cuda"):
        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            # A search for the fastest kernels would start anew with each size of picture.
            providers.insert(0, ("CUDAExecutionProvider", {"cudnn_conv_algo_search": "HEURISTIC"}))
        else:
            log.warning(
                "this ONNX Runtime has no CUDA provider, so CenterFace runs on the CPU; see the extra gpu"
            )
    session = onnxruntime.InferenceSession(model, options, providers=providers)
    name = session.get_inputs()[0].name
    return lambda blob: session.run(None, {name: blob})


def _openvino(model: bytes, threads: int, device: str) -> Network:
    import openvino

    if device != "cpu":
        raise ConfigError("detector.options.engine: openvino runs on the CPU alone; use onnxruntime")
    options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model), "CPU", options)
    request = compiled.create_infer_request()

    def run(blob: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        results = request.infer([blob])
        return [results[index] for index in range(len(compiled.outputs))]

    return run


_ENGINES: dict[str, Callable[[bytes, int, str], Network]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
