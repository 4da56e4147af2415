"""Control pictures beside de-identified ones."""

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.interfaces import Picture
from deid.surrogates import masks

GREY = 127
SCALE = 1.5  # of the face outline: face, ears, hairline and jaw


def grey_head(picture: Picture, mesh: NDArray[np.float32], scale: float = SCALE) -> Picture:
    """The picture with a grey head: all that a perfect replacement of the head would leave of the person.

    mesh: [468, 3], pixels of the picture.
    """
    polygon = masks.scaled(masks.outline(mesh), scale)
    result = picture.copy()
    cv2.fillPoly(result, [np.round(polygon).astype(np.int32)], (GREY, GREY, GREY))
    return result
