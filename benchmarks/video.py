"""How much of a clip's faces tracking covers: fictional people who walk through a compressed clip with a cut.

For each visible face of each frame: is it found, is it covered once gaps are filled, and how often does a person's
track change. Run: python benchmarks/video.py [--out folder for pictures of it]
"""

import argparse
import json
import platform
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from deid.demo import backgrounds
from deid.demo.people import LICENCES, Person, Studio, cast
from deid.demo.scene import Scene
from deid.faces.detect import CenterFaceDetector
from deid.faces.embed import DlibEmbedder
from deid.faces.mesh import FaceMesher
from deid.gallery import store as gallery_store
from deid.interfaces import Face, Picture
from deid.models.store import Store
from deid.privacy import people as persons
from deid.surrogates import masks
from deid.video import container, encode, settle, tracks

RESULT = Path(__file__).parent / "results" / "video.json"
WIDTH, HEIGHT, FRAMES, CUT = 854, 480, 160, 90
RATE = 12.5  # frames a second, as many cameras record
QUALITY = 33  # CRF: a camera that saves
FALSE_MATCHES = 0.01  # rate that gives `same`
COVERED = 0.5  # of a face's area


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="folder for pictures of the clip")
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    studio = Studio()
    crowd = cast(studio, options.seed, 5, 2, 24)
    frames, truth = clip(crowd, options.seed)
    shape = encode.Shape(WIDTH, HEIGHT, Fraction(RATE), Fraction(1, 1000))
    stamped = [(round(1000 * n / RATE), frame) for n, frame in enumerate(frames)]
    begin = time.process_time()
    parts = [encode.segment(stamped[n : n + 60], shape, QUALITY) for n in range(0, FRAMES, 60)]
    encoded = (time.process_time() - begin) / FRAMES
    data = encode.join(parts, shape)
    begin = time.process_time()
    seen = [pixels for _, pixels in container.decode(data, container.probe(data))]
    decoded = (time.process_time() - begin) / FRAMES
    faces = [look(pixels) for pixels in seen]
    report = {
        "clip": f"{WIDTH}x{HEIGHT}, {FRAMES} frames at {RATE} a second, H.264 CRF {QUALITY}, {len(data)} bytes",
        "encode_ms": round(1000 * encoded, 1),
        "decode_ms": round(1000 * decoded, 1),
        "av": av.__version__,
        "machine": platform.machine(),
        **measured(seen, faces, truth, options.out),
    }
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


def clip(crowd: list[Person], seed: int) -> tuple[list[Picture], list[dict[int, NDArray[np.float64]]]]:
    """Frames, and the boxes of the faces in each that are visible, by person."""
    rng = np.random.default_rng(seed)
    places = [backgrounds.background(rng, kind, HEIGHT, WIDTH) for kind in (4, 5)]
    pace, phase = rng.uniform(2.5, 6, len(crowd)), rng.uniform(0, 6, len(crowd))
    depth = np.sort(rng.uniform(45, 130, len(crowd)))
    frames, truth = [], []
    for n in range(FRAMES):
        scene = Scene(places[n >= CUT].astype(np.float32).copy())
        for number, person in enumerate(crowd):
            take = person.takes[(n >= CUT) % len(person.takes)]
            way = (n * pace[number] + 170 * number) % (WIDTH + 240) - 120
            middle = way if number % 2 else WIDTH - way
            bottom = HEIGHT * 0.98 + 4 * np.sin(n / 2 + phase[number])
            scene.add(number, take, middle, bottom, depth[number] * (1.4 + 0.1 * np.sin(n / 20)), 1.0)
        cv2.rectangle(scene.pixels, (WIDTH // 2 - 9, 0), (WIDTH // 2 + 9, HEIGHT), (0.15, 0.16, 0.18), -1)
        noise = rng.normal(0, 0.025, scene.pixels.shape).astype(np.float32)
        frames.append(np.round(np.clip(scene.pixels + noise, 0, 1) * 255).astype(np.uint8))
        truth.append(visible(scene))
    return frames, truth


def visible(scene: Scene) -> dict[int, NDArray[np.float64]]:
    """Boxes of faces that are inside the picture and half uncovered by those before them and by the post."""
    found = {}
    boxes = np.array(scene.boxes)
    for n, (person, box) in enumerate(zip(scene.people, boxes, strict=True)):
        middle = (box[:2] + box[2:]) / 2
        inside = 0 <= middle[0] < WIDTH and 0 <= middle[1] < HEIGHT
        before = np.concatenate([boxes[n + 1 :], [[WIDTH / 2 - 9, 0, WIDTH / 2 + 9, HEIGHT]]])
        hidden = max(share(box, other) for other in before)
        if inside and hidden < 0.5:
            found[person] = box
    return found


def share(box: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Share of the area of `box` that lies in `other`."""
    low, high = np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])
    return float(np.prod(np.maximum(high - low, 0)) / np.prod(np.maximum(box[2:] - box[:2], 1)))


_STORE = Store(LICENCES)
_DETECTOR = CenterFaceDetector(_STORE.files("centerface"), threads=2)
_MESHER = FaceMesher(_STORE.files("facemesh"))
_EMBEDDER = DlibEmbedder(_STORE.files("dlib_resnet"), threads=2)


def look(pixels: Picture) -> list[Face]:
    """Faces of a frame, as pass 1 finds them."""
    (found,) = _DETECTOR.detect([pixels])
    if not len(found):
        return []
    meshes, scores = _MESHER.mesh(pixels, found)
    faces = [
        Face(box, float(score), points, mesh if good >= 0.5 else None, float(good))
        for box, score, points, mesh, good in zip(
            found.boxes, found.scores, found.points, meshes, scores, strict=True
        )
    ]
    for face, vector in zip(faces, _EMBEDDER.embed([pixels], [faces])[0], strict=True):
        face.embedding = vector
    return faces


def measured(
    seen: list[Picture],
    faces: list[list[Face]],
    truth: list[dict[int, NDArray[np.float64]]],
    out: Path | None,
) -> dict[str, object]:
    """Shares of visible faces covered before and after, changes of track, milliseconds a frame."""
    same = persons.calibrated(gallery_store.load(None), FALSE_MATCHES)
    settings = tracks.Settings(same, gap=round(RATE), extend=3, smooth=2)
    begin = time.process_time()
    breaks = tracks.cuts(np.array([tracks.signature(pixels) for pixels in seen]))
    flat = [(n, face) for n, found in enumerate(faces) for face in found]
    vectors = np.array([face.embedding for _, face in flat], np.float32)
    numbers = tracks.link(
        np.array([n for n, _ in flat]), np.array([face.box for _, face in flat]), vectors, breaks, settings
    )
    good = np.array([face.mesh is not None and masks.agrees(face) for _, face in flat], np.float32)
    means = tracks.pooled(numbers, vectors, good, int(numbers.max()) + 1)
    given: dict[int, list[tuple[int, Face]]] = {}
    for (n, face), track in zip(flat, numbers, strict=True):
        given.setdefault(n, []).append((int(track), face))
    after = settle.settle(given, 0, len(seen), breaks, (WIDTH, HEIGHT), settings, means)
    spent = (time.process_time() - begin) / len(seen)
    if out:
        draw(seen, faces, after, out)
    shown = sum(map(len, truth))
    before = sum(
        any(share(box, face.box) >= COVERED for face in faces[n])
        for n, of in enumerate(truth)
        for box in of.values()
    )
    covered = sum(
        any(share(box, face.box) >= COVERED for _, face in after[n])
        for n, of in enumerate(truth)
        for box in of.values()
    )
    who = [owner(face.box, truth[n]) for n, face in flat]
    mine = [
        (int(track), 1000 * (n >= CUT) + person)
        for (n, _), track, person in zip(flat, numbers, who, strict=True)
        if person >= 0
    ]
    added = [
        face for n in after for _, face in after[n] if face.score == 0 and owner(face.box, truth[n], 0.2) < 0
    ]
    return {
        "visible_faces": shown,
        "found": round(before / shown, 4),
        "covered": round(covered / shown, 4),
        "cut_found": np.flatnonzero(breaks).tolist() == [CUT],
        "people": len({person for _, person in mine}),
        "tracks": len({track for track, _ in mine}),
        "switches": tracks.switches(*zip(*mine, strict=True)),
        "filled_without_a_visible_face": len(added),
        "filled": sum(face.score == 0 for found in after.values() for _, face in found),
        "track_ms": round(1000 * spent, 2),
    }


def owner(box: NDArray[np.floating], truth: dict[int, NDArray[np.float64]], least: float = COVERED) -> int:
    """The person whose face it covers most of; -1: nobody's."""
    best = max(truth, key=lambda person: share(truth[person], box), default=-1)
    return best if best >= 0 and share(truth[best], box) >= least else -1


def draw(
    seen: list[Picture], faces: list[list[Face]], after: dict[int, list[tuple[int, Face]]], out: Path
) -> None:
    """Every eighth frame: boxes as found in white, settled ones in the track's colour, filled ones thick."""
    out.mkdir(parents=True, exist_ok=True)
    for n in range(0, len(seen), 8):
        canvas = np.ascontiguousarray(seen[n][..., ::-1])
        for face in faces[n]:
            cv2.rectangle(canvas, *np.round(face.box).astype(int).reshape(2, 2).tolist(), (255, 255, 255), 1)
        for track, face in after[n]:
            colour = tuple(int(v) for v in np.random.default_rng(track).integers(60, 255, 3))
            corners = np.round(face.box).astype(int).reshape(2, 2).tolist()
            cv2.rectangle(canvas, *corners, colour, 1 if face.score else 3)
            for x, y in [] if face.mesh is None else np.round(face.mesh[::6, :2]).astype(int).tolist():
                cv2.circle(canvas, (x, y), 1, colour, -1)
        cv2.imwrite(str(out / f"{n:04d}.png"), canvas)


if __name__ == "__main__":
    main()
