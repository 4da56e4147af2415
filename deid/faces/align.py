"""Geometry of the 468-point mesh: pose, expression, outline, similarity transforms. Pure NumPy.

Axes are the picture's: x to the right, y down, z away from the camera.
"""

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.floating]

# The face outline, in order around the face (MediaPipe's FACE_OVAL).
OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
# Mesh points whose mean is each of a detector's five: right eye, left eye, nose tip, right and left mouth corner.
FIVE_POINTS = ((33, 133), (362, 263), (4,), (61,), (291,))
RIGHT_EYE, LEFT_EYE = FIVE_POINTS[:2]
_BROWS = ((70, 63, 105, 66, 107), (300, 293, 334, 296, 336))
_LIDS = ((159, 145), (386, 374))  # upper and lower, right and left eye

POSE = ("yaw", "pitch", "roll")
EXPRESSION = ("smile", "mouth_opening", "mouth_width", "eye_opening", "brow_height")
MEASURES = (*POSE, *EXPRESSION)


def outline(mesh: Points) -> Points:
    """The face outline [..., 36, 2] of meshes [..., 468, 3], in order."""
    return mesh[..., list(OVAL), :2]


def five_points(mesh: Points) -> NDArray[np.float32]:
    """A detector's five points [..., 5, 2] of meshes [..., 468, 3]."""
    points = [mesh[..., list(indices), :2].mean(-2) for indices in FIVE_POINTS]
    return np.stack(points, axis=-2).astype(np.float32)


def axes(meshes: Points) -> NDArray[np.float64]:
    """Rotations [..., 3, 3] from the head to the picture; columns are the head's left, its down and its back.

    The left-right axis runs between the sides of the face and the eyes' outer corners, the up-down axis from the
    forehead to the base of the nose: the mouth has no part in either.
    """
    m = np.asarray(meshes, np.float64)
    left = (m[..., 454, :] - m[..., 234, :]) + (m[..., 263, :] - m[..., 33, :])
    left /= np.linalg.norm(left, axis=-1, keepdims=True)
    down = m[..., 2, :] - m[..., 10, :]
    back = np.cross(left, down)
    back /= np.linalg.norm(back, axis=-1, keepdims=True)
    return np.stack([left, np.cross(back, left), back], axis=-1)


def pose(meshes: Points) -> NDArray[np.float64]:
    """Yaw, pitch and roll [..., 3] in degrees.

    Yaw is positive when the face looks to the picture's right, pitch when it looks up, roll when the head leans
    clockwise in the picture (the eye on the right stands lower).
    """
    rotation = axes(meshes)
    left, front = rotation[..., 0], -rotation[..., 2]
    roll = np.arctan2(left[..., 1], left[..., 0])
    cosine, sine = np.cos(roll), np.sin(roll)
    across = front[..., 0] * cosine + front[..., 1] * sine  # the direction of view, with the roll taken out
    up = front[..., 0] * sine - front[..., 1] * cosine
    yaw = np.arctan2(across, -front[..., 2])
    pitch = np.arctan2(up, np.hypot(across, front[..., 2]))
    return np.degrees(np.stack([yaw, pitch, roll], axis=-1))


def expression(meshes: Points) -> NDArray[np.float64]:
    """Measures of `EXPRESSION` [..., 5], in the head's own axes, over the mean of face height and width.

    `smile` is the height of the mouth corners over the middle of the lips, `brow_height` that of the brows over the
    eyes; `eye_opening` and `brow_height` are means of both sides.
    """
    m = np.asarray(meshes, np.float64)
    m = (m - m.mean(-2, keepdims=True)) @ axes(meshes)

    def apart(i: int, j: int) -> NDArray[np.float64]:
        return np.asarray(np.linalg.norm(m[..., i, :] - m[..., j, :], axis=-1))

    def height(*indices: int) -> NDArray[np.float64]:
        return np.asarray(m[..., list(indices), 1].mean(-1))

    brows = [height(*eye) - height(*brow) for eye, brow in zip((RIGHT_EYE, LEFT_EYE), _BROWS, strict=True)]
    values = [
        height(13, 14) - height(61, 291),
        apart(13, 14),
        apart(61, 291),
        sum(apart(*lids) for lids in _LIDS) / 2,
        sum(brows) / 2,
    ]
    scale = (apart(10, 2) * 1.6 + apart(234, 454)) / 2
    return np.stack([value / scale for value in values], axis=-1)


def measures(meshes: Points) -> NDArray[np.float32]:
    """`MEASURES` [..., 8] of meshes [..., 468, 3] in any unit; angles in degrees, the rest relative to the face."""
    return np.concatenate([pose(meshes), expression(meshes)], axis=-1).astype(np.float32)


def similarity(source: Points, target: Points) -> NDArray[np.float64]:
    """The similarity [2, 3] that takes points `source` [N, 2] as near to `target` [N, 2] as it can (least squares).

    Umeyama (1991), in two dimensions, without reflection.

    Raises:
        ValueError: the points coincide or are not finite.
    """
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        raise ValueError("the points are not finite")
    a, b = np.asarray(source, np.float64), np.asarray(target, np.float64)
    ca, cb = a.mean(0), b.mean(0)
    za, zb = (a - ca) @ [1, 1j], (b - cb) @ [1, 1j]
    power = float((np.abs(za) ** 2).sum())
    turn = complex((np.conj(za) * zb).sum() / power) if power else 0j
    if not turn:
        raise ValueError("the points coincide")
    linear = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    return np.hstack([linear, (cb - linear @ ca)[:, None]])


def rigid(source: Points, target: Points) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Scale, rotation [3, 3] and shift [3] that take points `source` [N, 3] as near to `target` [N, 3] as they can:
    `scale * source @ rotation.T + shift` (least squares, Umeyama 1991, without reflection).

    Raises:
        ValueError: the points coincide or are not finite.
    """
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        raise ValueError("the points are not finite")
    a, b = np.asarray(source, np.float64), np.asarray(target, np.float64)
    ca, cb = a.mean(0), b.mean(0)
    power = ((a - ca) ** 2).sum()
    u, strength, v = np.linalg.svd((b - cb).T @ (a - ca))
    signs = np.array([1, 1, np.sign(np.linalg.det(u) * np.linalg.det(v))])
    if not (power > 0 and strength[0] > 0):
        raise ValueError("the points coincide")
    rotation = (u * signs) @ v
    scale = float((strength * signs).sum() / power)
    return scale, rotation, cb - scale * rotation @ ca
