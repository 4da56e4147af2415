"""Made people for tests of the k-Same-Net: blobs of colour with a mouth that opens, and meshes of the gallery."""

import numpy as np

from deid.gallery import store
from deid.surrogates.shapefree import Frame
from deid.training.mixtures import People

SIDE = 256


def people(count: int = 6) -> tuple[People, Frame]:
    """People of a seed; each has a colour and a head of his own, and smiles by a paler, wider mouth."""
    rng, meshes = np.random.default_rng(3), store.load(None).meshes
    frame = Frame.fit(meshes[:32])
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    pictures = np.empty((1, count, 2, SIDE, SIDE, 4), np.uint8)
    shapes = np.empty((count, 2, 468, 3), np.float32)
    for n in range(count):
        colour, wide = rng.uniform(60, 220, 3), rng.uniform(0.25, 0.35)
        grain = rng.normal(0, 8, (SIDE, SIDE, 1))
        head = np.hypot((x - 0.5) / wide, (y - 0.5) / 0.4) < 1
        for e in range(2):
            mouth = np.hypot((x - 0.5) / (0.06 + 0.04 * e), (y - 0.62) / 0.02) < 1
            picture = np.where(head[..., None], colour, 200) + grain
            picture[mouth] = (150 + 90 * e, 60 + 180 * e, 60 + 180 * e)
            pictures[0, n, e] = np.dstack([picture.clip(0, 255), head * 255]).astype(np.uint8)
            shapes[n, e] = frame.mean
            shapes[n, e, :, 0] = 0.5 + (frame.mean[:, 0] - 0.5) * (wide / 0.3)
            shapes[n, e, [61, 291], 1] -= 0.02 * e
    return People([f"p{n}" for n in range(count)], pictures, shapes, np.zeros((1, 3), np.float32)), frame
