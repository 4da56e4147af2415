"""Which anonymizer a face gets, and which comes next when that fails.

The rungs, best first: `surrogate` (a generated face with the person's pose and expression, where the mesh can be
trusted), `simple` (a generated face of 64 px, unsteered, for tiny faces), `ksame-pixel` (the average of k gallery
faces, laid on the mesh, or on the detector's five points where there is none) and `solid` (grey). None of them keeps
a pixel of the source inside its region; below the first rung that is the face outline, so hair and ears stay. Every
step is downward and the last rung needs nothing but a box: it fails closed.
"""

from deid import config, records
from deid.interfaces import Face

RUNGS = ("surrogate", "simple", "ksame-pixel", "solid")
BASELINES = ("blur", "pixelate")  # beside the ladder, and only where the configuration asks for them
RENDERED = RUNGS[:-1]
SIMPLE_SIDE = 64  # px of a simple surrogate's rendering; its face is two thirds of that high
SIMPLE_LIMIT = (
    80.0  # px of face height beyond which a simple surrogate is too coarse, and its rung is left out
)


def start(
    anonymizer: str, options: config.Ladder, height: float, mesh_score: float, yaw: float, pitch: float
) -> tuple[str, str]:
    """The rung that a face starts at, and why it is not the first: "" or a code of `records.COVER`.

    Args:
        anonymizer: what the configuration asks for.
        height: of the face's box, px.
        mesh_score: 0..1; 0 where the mesh is not trusted.
        yaw, pitch: of the mesh, degrees; not looked at without a mesh.
    """
    if anonymizer in BASELINES or anonymizer == "solid":
        return anonymizer, "policy"
    if not height >= options.smallest:
        return "solid", "too_small"
    if anonymizer != "surrogate":
        return anonymizer, "policy"
    if not mesh_score:
        return "simple" if height < options.simple_below else "ksame-pixel", "mesh_failed"
    if height < options.simple_below:
        return "simple", "too_small"
    if max(abs(yaw), abs(pitch)) > options.turned:
        return "ksame-pixel", "turned"
    return "surrogate", ""


def lower(face: Face, failure: str) -> str:
    """Put a face one rung down, without what the rung above made, and say which rung that is.

    For every part that finds a face's rung wanting, before compositing or after; `Generate.fill` then renders the
    new rung.

    Args:
        failure: code of `records.COVER`; a code that the face has already stays.

    Raises:
        ValueError: no such code, or the face stands on the last rung.
    """
    if failure not in records.COVER:
        raise ValueError(f"{failure!r} is no code of a failure")
    face.failure = face.failure or failure
    face.surrogate, face.surrogate_mesh, face.surrogate_segments, face.k = None, None, None, 0
    face.anonymizer = _below(face.anonymizer, face.height)
    return face.anonymizer


def _below(anonymizer: str, height: float) -> str:
    if anonymizer in BASELINES:
        return "solid"
    if anonymizer not in RENDERED:
        raise ValueError(f"there is nothing below {anonymizer!r}")
    below = RUNGS[RUNGS.index(anonymizer) + 1]
    return "ksame-pixel" if below == "simple" and height > SIMPLE_LIMIT else below


def pending(face: Face, rung: str) -> bool:
    """The face stands on this rung, and what belongs there is still to be rendered."""
    return face.anonymizer == rung and rung in RENDERED and face.surrogate is None


def fills(face: Face) -> bool:
    """A surrogate is there and may go in: of a face at the first rung nothing has failed."""
    if face.surrogate is None or face.surrogate_mesh is None:
        return False
    return face.anonymizer in RENDERED[1:] or (face.anonymizer in ("", "surrogate") and not face.failure)
