"""MTCNN: a cascade of three small networks, from windows of 12 px to boxes with five points.

Source: Zhang, Zhang, Li, Qiao 2016, "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional
Networks", sections II and III.
"""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from deid.faces.crop import chip
from deid.faces.detect import tiles
from deid.faces.merge import chosen, overlaps
from deid.interfaces import Detections, Picture
from deid.models import mtcnn as nets

PYRAMID = 0.709  # between one scale of P-Net and the next: areas halve
TILE = 1280  # px, side of what P-Net sees at once
BATCH = 512  # windows in one call of R-Net or O-Net


class MTCNN:
    """The three networks.

    Args:
        files: the model's files by base name, from the model store.
        threads: of torch on a CPU.
        device: of torch.
    """

    def __init__(self, files: Mapping[str, Path], threads: int = 1, device: str = "cpu") -> None:
        torch.set_num_threads(threads)
        self.device = device
        self.propose_net = nets.load(nets.PNet(), files["pnet.pt"]).to(device)
        self.refine_net = nets.load(nets.RNet(), files["rnet.pt"]).to(device)
        self.output_net = nets.load(nets.ONet(), files["onet.pt"]).to(device)

    def detect(
        self, picture: Picture, height: float = 10, least: tuple[float, float, float] = (0.6, 0.7, 0.7)
    ) -> Detections:
        """Faces of a picture [H, W, 3], in its pixels.

        Args:
            picture: [H, W, 3].
            height: least height of a face, in pixels.
            least: scores from which a window passes each network.
        """
        boxes = self.propose(picture, height, least[0])
        scores, shifts = self.refine(picture, square(boxes))
        boxes, scores = shifted(square(boxes), shifts)[scores >= least[1]], scores[scores >= least[1]]
        boxes = boxes[suppress(boxes, scores, 0.7)]
        found = self.judge(picture, boxes)
        found = chosen(found, found.scores >= least[2])
        return chosen(found, suppress(found.boxes, found.scores, 0.7))

    def propose(self, picture: Picture, height: float, least: float) -> NDArray[np.float32]:
        """Boxes [N, 4] of P-Net over a pyramid in which faces of `height` px are 12 px high at the first level."""
        found = []
        scale = nets.CELL / height
        while min(picture.shape[:2]) * scale >= nets.CELL:
            rows, columns = (round(side * scale) for side in picture.shape[:2])
            flags = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            level = np.asarray(cv2.resize(picture, (columns, rows), interpolation=flags), np.uint8)
            boxes, scores = self._windows(level, least)
            kept = suppress(boxes, scores, 0.5)
            found.append(boxes[kept] / scale)
            scale *= PYRAMID
        return np.concatenate([np.empty((0, 4), np.float32), *found]).astype(np.float32)

    def _windows(self, level: Picture, least: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Boxes [N, 4] and scores [N] of P-Net in pixels of the level, tile by tile, since memory is bounded."""
        found = []
        for (x0, x1, left, right), (y0, y1, top, bottom) in tiles(level.shape, TILE):
            with torch.inference_mode():
                part = np.ascontiguousarray(level[None, y0:y1, x0:x1])
                pixels = normal(torch.from_numpy(part).to(self.device))
                scores, shifts = (output[0].cpu().numpy() for output in self.propose_net(pixels))
            rows, columns = np.nonzero(scores >= least)
            corner = np.stack([columns, rows], axis=1).astype(np.float32) * nets.STRIDE + (x0, y0)
            x, y = corner.T + nets.CELL / 2
            own = (x >= left) & (x < right) & (y >= top) & (y < bottom)
            boxes = np.concatenate([corner, corner + nets.CELL], axis=1)
            found.append((shifted(boxes, shifts[:, rows, columns].T)[own], scores[rows, columns][own]))
        boxes, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return boxes, scores

    def refine(
        self, picture: Picture, boxes: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Scores [N] and shifts [N, 4] of R-Net for square boxes [N, 4]."""
        scores, shifts = self._run(self.refine_net, picture, boxes, nets.R_SIDE, 4)
        return scores, shifts

    def judge(self, picture: Picture, boxes: NDArray[np.float32]) -> Detections:
        """What O-Net says of boxes [N, 4]: as many, in the same order, better placed, with scores and points."""
        squares = square(boxes)
        scores, rest = self._run(self.output_net, picture, squares, nets.O_SIDE, 14)
        sides = (squares[:, 2:] - squares[:, :2])[:, None]
        points = squares[:, None, :2] + rest[:, 4:].reshape(-1, 5, 2) * sides
        return Detections(shifted(squares, rest[:, :4]), scores, points.astype(np.float32))

    def _run(
        self, network: torch.nn.Module, picture: Picture, squares: NDArray[np.float32], side: int, width: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Scores [N] and the other outputs, flat [N, width], of a network on the squares cut to `side` px."""
        scores, rest = [np.empty(0, np.float32)], [np.empty((0, width), np.float32)]
        for start in range(0, len(squares), BATCH):
            cuts = np.stack([cut(picture, one, side) for one in squares[start : start + BATCH]])
            with torch.inference_mode():
                some, *others = network(normal(torch.from_numpy(cuts).to(self.device)))
                scores.append(some.cpu().numpy())
                rest.append(torch.cat([other.flatten(1) for other in others], dim=1).cpu().numpy())
        return np.concatenate(scores), np.concatenate(rest)


def cut(picture: Picture, box: NDArray[np.floating], side: int) -> Picture:
    """The square box [4] of a picture as [side, side, 3]; black beyond the border."""
    scale = side / max(float(box[2] - box[0]), 1.0)
    shift = -scale * np.asarray(box[:2], np.float64) + (scale - 1) / 2  # pixel centres stay on pixel centres
    return chip(picture, np.array([[scale, 0, shift[0]], [0, scale, shift[1]]]), side)


def square(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Boxes [N, 4] as squares of the longer side around the same centres."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    return np.concatenate([middle - half, middle + half], axis=1).astype(np.float32)


def shifted(boxes: NDArray[np.float32], shifts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Boxes [N, 4] with their corners moved by shifts [N, 4] in widths and heights of the box."""
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    return (boxes + shifts * sides).astype(np.float32)


def suppress(boxes: NDArray[np.float32], scores: NDArray[np.float32], overlap: float) -> NDArray[np.intp]:
    """Indices of the boxes [N, 4] that stay, best first: no box that overlaps a better one by more (IoU)."""
    left = np.argsort(-scores, kind="stable")
    keep = []
    while len(left):
        best, left = left[0], left[1:]
        keep.append(best)
        left = left[overlaps(boxes[best], boxes[left])[0] <= overlap]
    return np.array(keep, np.intp)


def normal(pixels: torch.Tensor) -> torch.Tensor:
    """[N, H, W, 3] of 0..255 as the networks take it."""
    return (pixels.permute(0, 3, 1, 2).float() - 127.5) / 128
