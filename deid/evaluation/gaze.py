"""Where a face looks: the iris in the eye, by the iris landmark network in LiteRT.

Source: Ablavatski, Vakunov, Grishchenko, Raveendran, Zhdanovich 2020, "Real-time Pupil Tracking from Monocular Video
for Digital Puppetry" (MediaPipe Iris); crops as in MediaPipe's `iris_landmark_left_and_right` graph.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deid.faces import litert
from deid.faces.align import LEFT_EYE, RIGHT_EYE
from deid.faces.crop import chip
from deid.interfaces import Picture

SIDE = 64  # px, of the network's input
REACH = 2.3  # side of the crop over the width of the eye
CORNERS = (0, 8)  # of the eye, among the contour points of the network
LIDS = (slice(1, 8), slice(9, 16))  # lower and upper lid
OPEN = 0.12  # height of an eye over its width: below it the eye is closed
LEAST = 10.0  # px, width of an eye: below it the iris has 4 px


class Gaze:
    """The iris network.

    Args:
        files: the files of `iris`, from the model store.
        threads: of the CPU.
    """

    def __init__(self, files: Mapping[str, Path], threads: int = 1) -> None:
        self._net, self._input = litert.load(files["iris_landmark.tflite"], threads)
        outputs = {int(np.prod(o["shape"])): o["index"] for o in self._net.get_output_details()}
        self._contour, self._iris = outputs[71 * 3], outputs[5 * 3]

    def of(self, picture: Picture, mesh: NDArray[np.floating]) -> NDArray[np.float64]:
        """Offset [2] of the iris' centre from the middle between the corners of the eye, over the eye's width.

        To the right and down as one sees the face when it is upright: along the line through the corners of each eye,
        and across it. The mean of both eyes, or the one that can be seen; NaN where both are closed or narrower than
        10 px.

        Args:
            picture: [H, W, 3].
            mesh: [468, 3] of the face, pixels of the picture.
        """
        eyes = [self.eye(picture, mesh[list(RIGHT_EYE), :2], mirrored=False)]
        eyes.append(self.eye(picture, mesh[list(LEFT_EYE), :2], mirrored=True))
        found = np.array(eyes)
        known = np.isfinite(found).all(axis=1)
        return np.asarray(found[known].mean(axis=0)) if known.any() else np.full(2, np.nan)

    def eye(self, picture: Picture, corners: NDArray[np.floating], mirrored: bool) -> NDArray[np.float64]:
        """The offset [2] in one eye.

        Args:
            corners: [2, 2] of the eye in the picture, the one on the picture's left first, if the face is upright.
            mirrored: the eye is the person's left one: the network was trained on right eyes.
        """
        contour, iris = self.points(picture, corners, mirrored)
        if contour is None:
            return np.full(2, np.nan)
        a, b = contour[CORNERS[0]], contour[CORNERS[1]]
        width = float(np.linalg.norm(b - a))
        lower, upper = (contour[part, 1].mean() for part in LIDS)
        if width <= 0 or (lower - upper) / width < OPEN:
            return np.full(2, np.nan)
        right = (b - a) / width
        offset = (iris[0] - (a + b) / 2) / width
        return np.array([offset @ right * (-1 if mirrored else 1), offset @ [-right[1], right[0]]])

    def points(
        self, picture: Picture, corners: NDArray[np.floating], mirrored: bool
    ) -> tuple[NDArray[np.float64] | None, NDArray[np.float64]]:
        """Contour [71, 2] and iris [5, 2] (its centre first) in pixels of the crop, in which every eye is a right one;
        None where the eye is too small."""
        along = np.asarray(corners[1] - corners[0], np.float64)
        width = float(np.hypot(*along))
        if not width >= LEAST:
            return None, np.full((5, 2), np.nan)
        scale = SIDE / (REACH * width)
        cosine, sine = along / width
        turn = scale * np.array([[cosine, sine], [-sine, cosine]])
        shift = SIDE / 2 - turn @ np.mean(corners, axis=0)
        cut = chip(picture, np.hstack([turn, shift[:, None]]), SIDE)
        if mirrored:
            cut = np.ascontiguousarray(cut[:, ::-1])
        self._net.set_tensor(self._input, (cut.astype(np.float32) / 255)[None])
        self._net.invoke()
        contour = self._net.get_tensor(self._contour).reshape(71, 3)[:, :2].astype(np.float64)
        return contour, self._net.get_tensor(self._iris).reshape(5, 3)[:, :2].astype(np.float64)
