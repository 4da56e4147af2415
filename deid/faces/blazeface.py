"""BlazeFace in LiteRT: faces of a square view, and of a whole picture in overlapping views.

Source: Bazarevsky, Kartynnik, Vakunov, Raveendran, Grundmann 2019, "BlazeFace: Sub-millisecond Neural Face Detection
on Mobile GPUs"; the full-range network is MediaPipe's later one with one anchor in a cell.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deid.faces import litert
from deid.faces.crop import chip
from deid.faces.detect import tiles
from deid.faces.merge import chosen, joined, overlaps
from deid.interfaces import Detections, Picture

# Per network: file, side of its input in px, and (cells on a side, anchors in a cell) of each map.
NETWORKS: dict[str, tuple[str, int, tuple[tuple[int, int], ...]]] = {
    "full": ("face_detection_full_range.tflite", 192, ((48, 1),)),
    "short": ("face_detection_short_range.tflite", 128, ((16, 2), (8, 6))),
}
MOUTH = 0.8  # width of a mouth over the distance between the eyes: the networks tell only its middle
LIMIT = 80.0  # of logits, before they become probabilities
SHARE = 0.25  # of the side of a view: a face for which it is made, where a given box is judged
SAME = 0.3  # IoU from which what is found in such a view is the face in question
WIDENING = 3.0  # between the sides of the views of one scan and the next
MARGINS = (
    0.05,
    -0.06,
    -0.05,
    0.06,
)  # from its boxes, which hold the ears but no forehead, to those of CenterFace


class BlazeFace:
    """One of the networks.

    Args:
        files: the model's files by base name, from the model store.
        kind: `full` for faces from a sixteenth of the view, `short` for faces from a fifth of it.
        threads: of the CPU; LiteRT runs on no other device.
    """

    def __init__(self, files: Mapping[str, Path], kind: str = "full", threads: int = 1) -> None:
        file, self.side, maps = NETWORKS[kind]
        self.anchors = anchors(maps)
        self._net, self._input = litert.load(files[file], threads)
        outputs = {int(o["shape"][-1]): o["index"] for o in self._net.get_output_details()}
        self._places, self._logits = outputs[16], outputs[1]

    def scan(self, picture: Picture, least: float) -> Detections:
        """Faces of a picture [H, W, 3] from about 12 px up, in its pixels, not suppressed.

        Views as large as the network's input cover the picture, then views 3 times as large, until one shows it whole.
        """
        height, width = picture.shape[:2]
        found, side = [], self.side
        while True:
            for (x0, _, left, right), (y0, _, top, bottom) in tiles((height, width), side):
                one = self.look(picture, np.array([x0 + side / 2, y0 + side / 2]), side, least)
                x, y = (one.boxes[:, :2] + one.boxes[:, 2:]).T / 2
                found.append(chosen(one, (x >= left) & (x < right) & (y >= top) & (y < bottom)))
            if side >= max(height, width):
                return joined(found)
            side = int(side * WIDENING)

    def judge(self, picture: Picture, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores [N] of faces at boxes [N, 4], each in a view of its own of 4 times its longer side; 0: none there."""
        scores = np.zeros(len(boxes), np.float32)
        for n, box in enumerate(boxes):
            side = max(float((box[2:] - box[:2]).max()), 1.0) / SHARE
            found = self.look(picture, (box[:2] + box[2:]) / 2, side, 0)
            same = overlaps(box, found.boxes)[0] > SAME
            scores[n] = found.scores[same].max(initial=0)
        return scores

    def look(self, picture: Picture, centre: NDArray[np.floating], side: float, least: float) -> Detections:
        """Faces with a score of `least` or more in a square view; black beyond the border; not suppressed.

        Args:
            picture: [H, W, 3].
            centre: [2] x, y of the view in pixels of the picture.
            side: of the view, in pixels of the picture.
            least: 0..1.

        Returns:
            Boxes and points in pixels of the picture.
        """
        scale = self.side / side
        corner = np.asarray(centre, np.float64) - side / 2
        transform = np.array([[scale, 0, 0], [0, scale, 0]]) - np.outer(scale * corner, [0, 0, 1])
        view = chip(picture, transform, self.side)
        places, logits = self.run(view)
        found = decode(np.float32(1 / self.side) * places, logits, self.anchors, least)
        found.boxes = (found.boxes * side + np.tile(corner, 2)).astype(np.float32)
        found.points = (found.points * side + corner).astype(np.float32)
        return found

    def run(self, view: NDArray[np.number]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What the network says of a view [side, side, 3], 0..255: places [A, 16] in its pixels and logits [A]."""
        self._net.set_tensor(self._input, (view.astype(np.float32) / 127.5 - 1)[None])
        self._net.invoke()
        return self._net.get_tensor(self._places)[0], self._net.get_tensor(self._logits)[0, :, 0]


def decode(
    places: NDArray[np.float32], logits: NDArray[np.float32], centres: NDArray[np.float32], least: float
) -> Detections:
    """Faces in units of the view's side, not suppressed.

    Args:
        places: [A, 16] x, y of the box's centre, its width and height, and x, y of the right eye, left eye, nose tip,
            middle of the mouth and two points by the ears; all in sides of the view, places from the anchor.
        logits: [A] of a face at the anchor.
        centres: [A, 2] of the anchors.
        least: score from which a face counts, 0..1.
    """
    scores = 1 / (1 + np.exp(-np.clip(logits, -LIMIT, LIMIT)))
    kept = scores >= least
    places, centres = places[kept], centres[kept]
    middle, sides = places[:, :2] + centres, np.abs(places[:, 2:4])
    boxes = np.concatenate([middle - sides / 2, middle + sides / 2], axis=1) + np.tile(sides, 2) * MARGINS
    right, left, nose, mouth = (places[:, i : i + 2] + centres for i in (4, 6, 8, 10))
    lip = (left - right) * (MOUTH / 2)
    points = np.stack([right, left, nose, mouth - lip, mouth + lip], axis=1)
    return Detections(boxes.astype(np.float32), scores[kept].astype(np.float32), points.astype(np.float32))


def anchors(maps: tuple[tuple[int, int], ...]) -> NDArray[np.float32]:
    """Centres [A, 2] x, y in 0..1 of the anchors of (cells on a side, anchors in a cell), row by row."""
    parts = []
    for cells, count in maps:
        line = (np.arange(cells) + 0.5) / cells
        grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
        parts.append(np.repeat(grid, count, axis=0))
    return np.concatenate(parts).astype(np.float32)
