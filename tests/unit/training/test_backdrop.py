import cv2
import numpy as np

from deid.gallery import store
from deid.training.backdrop import head_mask

SKIN, HAIR, SHIRT = (200, 150, 120), (60, 40, 30), (245, 245, 245)


def portrait() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A drawn head before an unevenly lit grey wall, its mesh, and where hair and face are."""
    mesh = store.load(None).meshes.mean(0) * 256 + np.array((60, 100, 0), np.float32)
    y, x = np.mgrid[0:420, 0:380]
    picture = np.repeat((190 + 0.06 * x - 0.05 * y)[..., None], 3, 2).astype(np.uint8)
    low, high = mesh[:, :2].min(0), mesh[:, :2].max(0)
    middle, half = (low + high) / 2, (high - low) / 2
    centre = tuple(int(v) for v in middle)
    head = np.zeros(picture.shape[:2], np.uint8)
    cv2.ellipse(
        head, (centre[0], centre[1] - 25), (int(half[0] * 1.15), int(half[1] * 1.15)), 0, 0, 360, 1, -1
    )
    head[int(high[1] - 40) :] = 0
    picture[head > 0] = HAIR
    cv2.rectangle(picture, (centre[0] - 35, int(high[1]) - 20), (centre[0] + 35, 420), SKIN, -1)
    cv2.rectangle(picture, (20, int(high[1]) + 60), (360, 420), SHIRT, -1)
    face = cv2.convexHull(mesh[:, :2].astype(np.float32)).round().astype(np.int32)
    cv2.fillConvexPoly(picture, face, SKIN)
    cv2.fillConvexPoly(head, face, 1)
    noise = np.random.default_rng(0).normal(0, 2, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8), mesh.astype(np.float32), head > 0


def test_a_head_is_found_without_neck_shirt_and_wall() -> None:
    picture, mesh, head = portrait()
    mask = head_mask(picture, mesh)
    assert mask.shape == picture.shape[:2]
    assert mask.min() >= 0
    assert mask.max() <= 1
    chin = int(mesh[152, 1])
    found = mask > 0.5
    assert (found & head)[:chin].sum() / head[:chin].sum() > 0.95
    assert (found & ~head)[:chin].sum() / head[:chin].sum() < 0.05
    assert mask[chin + 25 :].max() < 0.05


def test_shine_on_the_forehead_is_no_hole() -> None:
    picture, mesh, _ = portrait()
    at = mesh[151, :2].round().astype(int)
    cv2.circle(picture, (int(at[0]), int(at[1]) - 25), 6, (195, 195, 195), -1)
    assert head_mask(picture, mesh)[at[1] - 25, at[0]] > 0.9
