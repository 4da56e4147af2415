"""A small face detector that is trained within seconds, and how well it finds faces."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from deid.evaluation import learning
from deid.evaluation.scenes import SIDE
from deid.evaluation.utility import iou

Floats = NDArray[np.float64]
STRIDE = 4  # px of the scene, of a cell of the map
CELLS = SIDE // STRIDE
STEPS, BATCH, RATE = 250, 16, 6e-3
SPREAD = 0.12  # of a face's sides, deviation of its peak in the map
FEWEST_PEAK = 1.0  # cells, the same at the least
BOX = 2.0  # weight of the box's loss beside the map's
ZOOM, MOVE = 0.2, 12.0  # of a scene in training: at most by this share, px
PEAKS = 3  # detections of a scene at the most
START = math.log(30.0)  # px, side that is guessed before training
IOUS = np.arange(0.5, 1.0, 0.05)  # COCO's thresholds


class Network(nn.Module):
    """A map of faces and, at each cell, where the face's middle is and the logarithms of its sides: [B, 5, 24, 24]."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(_block(3, 12, 2), _block(12, 24, 2))
        self.coarse = nn.Sequential(_block(24, 36, 2), _block(36, 36, 1), _block(36, 36, 1))
        self.mix = _block(24 + 36, 24, 1)
        self.head = nn.Conv2d(24, 5, 1)
        nn.init.normal_(self.head.weight, std=0.01)
        self.head.bias = nn.Parameter(torch.tensor([-4.0, 0, 0, START, START]))

    def forward(self, scenes: Tensor) -> Tensor:
        fine = self.fine(scenes)
        coarse = F.interpolate(self.coarse(fine), scale_factor=2.0, mode="bilinear", align_corners=False)
        found: Tensor = self.head(self.mix(torch.cat([fine, coarse], 1)))
        return found


def _block(come: int, go: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(come, go, 3, stride, 1, bias=False), nn.BatchNorm2d(go), nn.ReLU())


def train(scenes: NDArray[np.uint8], boxes: Floats, seed: int, steps: int = STEPS) -> Network:
    """Learn from scenes [N, 96, 96, 3] with one face each, in a box [N, 4] (pixels); the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    network = learning.initial(Network, seed)
    pictures, truth = learning.tensor(scenes), torch.from_numpy(boxes).float()
    batches = learning.Batches(len(scenes), BATCH, generator)

    def loss() -> Tensor:
        chosen = batches.next()
        batch, where = _varied(learning.unit(pictures[chosen]), truth[chosen], generator)
        return _loss(network(batch.contiguous(memory_format=torch.channels_last)), where)

    learning.train(network, loss, steps, RATE)
    return network


def _varied(scenes: Tensor, boxes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Scenes mirrored, moved, zoomed and tinted at random, and their boxes, which stay within."""
    count = len(scenes)
    flip = torch.rand(count, generator=generator) < 0.5
    scenes = learning.mirror(scenes, flip)
    swapped = torch.stack([SIDE - boxes[:, 2], boxes[:, 1], SIDE - boxes[:, 0], boxes[:, 3]], 1)
    boxes = torch.where(flip[:, None], swapped, boxes)
    zoom = 1 + ZOOM * (2 * torch.rand(count, 1, generator=generator) - 1)
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, zoom * (boxes[:, 2:] - boxes[:, :2]) / 2
    aim = middle + MOVE * (2 * torch.rand(count, 2, generator=generator) - 1)
    aim = torch.minimum(torch.maximum(aim, half), torch.maximum(SIDE - half, half))
    back = torch.zeros(count, 2, 3)  # from the new scene to the old one, both -1..1
    back[:, 0, 0] = back[:, 1, 1] = 1 / zoom[:, 0]
    back[:, :, 2] = (2 * middle / SIDE - 1) - (2 * aim / SIDE - 1) / zoom
    grid = F.affine_grid(back, [count, 3, SIDE, SIDE], align_corners=False)
    moved = F.grid_sample(scenes, grid, padding_mode="border", align_corners=False)
    return learning.tinted(moved, generator), torch.cat([aim - half, aim + half], 1)


def _loss(found: Tensor, boxes: Tensor) -> Tensor:
    """CenterNet's focal loss of the map (Zhou, Wang, Krähenbühl 2019), and the L1 loss of boxes around the peak."""
    sides, middle = boxes[:, 2:] - boxes[:, :2], (boxes[:, :2] + boxes[:, 2:]) / 2
    centres = STRIDE * (torch.arange(CELLS) + 0.5)
    across, down = (centres[None] - middle[:, axis, None] for axis in (0, 1))  # [B, 24]
    wide, high = ((SPREAD * sides[:, axis, None]).clamp(FEWEST_PEAK * STRIDE) for axis in (0, 1))
    peak = torch.exp(-((down / high)[:, :, None] ** 2 + (across / wide)[:, None, :] ** 2) / 2)
    top = peak >= peak.amax((1, 2), keepdim=True)
    p = torch.sigmoid(found[:, 0]).clamp(1e-4, 1 - 1e-4)
    hit = -(((1 - p) ** 2) * torch.log(p))[top].sum()
    miss = -(((1 - peak) ** 4) * p**2 * torch.log(1 - p))[~top].sum()
    grids = [-across[:, None, :].expand_as(peak) / STRIDE, -down[:, :, None].expand_as(peak) / STRIDE]
    logs = [torch.log(sides[:, axis, None, None]).expand_as(peak) for axis in (0, 1)]
    far = torch.stack([0.25 * (found[:, 1 + n] - grids[n]).abs() for n in (0, 1)], 1)
    off = torch.stack([(found[:, 3 + n] - logs[n]).abs() for n in (0, 1)], 1)
    close = peak * (peak > 0.2)
    return (hit + miss) / len(boxes) + BOX * ((far + off).sum(1) * close).sum() / close.sum()


@torch.no_grad()
def detect(network: Network, scenes: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Boxes [N, 3, 4] (pixels) and their scores [N, 3], best first, in scenes [N, 96, 96, 3]."""
    both = [network(learning.unit(t)) for t in learning.tensor(scenes).split(64)]
    found = torch.cat(both) if both else torch.zeros(0, 5, CELLS, CELLS)
    heat = torch.sigmoid(found[:, 0])
    alone = heat * (heat == F.max_pool2d(heat[:, None], 3, 1, 1)[:, 0])
    scores, cells = alone.flatten(1).topk(PEAKS, dim=1)
    picked = found[:, 1:].flatten(2).gather(2, cells[:, None].expand(-1, 4, -1)).permute(0, 2, 1)  # [N, 3, 4]
    place = torch.stack([cells % CELLS, torch.div(cells, CELLS, rounding_mode="floor")], -1) + 0.5
    middle, half = STRIDE * (place + picked[..., :2]), picked[..., 2:].clamp(max=math.log(2 * SIDE)).exp() / 2
    return torch.cat([middle - half, middle + half], -1).double().numpy(), scores.double().numpy()


def hits(truth: Floats, boxes: Floats) -> NDArray[np.bool_]:
    """[T, N, K] whether detection k of scene n is the one that finds its face at COCO's threshold t: IoU .5 to .95.

    truth: [N, 4]. boxes: [N, K, 4], best first; only the first that overlaps enough counts, the rest are false.
    """
    overlap = np.stack([iou(t[None], b)[0] for t, b in zip(truth, boxes, strict=True)])
    enough = overlap[None] >= IOUS[:, None, None]
    return enough & (enough.cumsum(axis=2) == 1)


def precision(found: NDArray[np.bool_], scores: Floats, weight: Floats) -> float:
    """Mean over COCO's thresholds of the average precision, where scene n counts `weight` [N] times.

    found: [T, N, K], see `hits`. scores: [N, K]. Precision is made monotone and summed over every step of recall.
    """
    faces = weight.sum()
    if not faces:
        return float("nan")
    order = np.argsort(-scores, axis=None, kind="stable")
    each = np.repeat(weight, scores.shape[1])[order]
    true = found.reshape(len(found), -1)[:, order] * each
    sure = true.cumsum(axis=1) / np.maximum(each.cumsum(), 1e-12)
    best = np.maximum.accumulate(sure[:, ::-1], axis=1)[:, ::-1]
    return float((best * true).sum(axis=1).mean() / faces)
