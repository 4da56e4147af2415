"""Recall, precision and cost of the detector on photographs of crowds, by face height.

    python -m benchmarks.crowds --data FOLDER

`crowds/` holds 200 photographs of about 400 px with 977 annotated faces (from the Face Mask Detection data set, CC0),
a third of them below 16 px. Boxes match at an IoU of .4, best score first, each annotation once. Some small faces
carry no annotation, so the precision is a lower bound. The weights of the strict detector were fitted to
the first 100 photographs, so the second 100 stand beside. Where `london/` is there too, its 120 portraits of 800 px
tell the cost of an ordinary portrait and how often exactly one face is found. Figures go to `results/crowds.json` and,
as Markdown, to the screen.
"""

import argparse
import collections
import csv
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import common
from deid import config
from deid.config import Part
from deid.interfaces import Detections, Detector, Picture
from deid.pipeline import parts
from deid.shards.pictures import decode

LEAST_IOU = 0.4
BANDS = {"below 16": 16.0, "16 to 19": 20.0, "20 to 39": 40.0, "40 to 79": 80.0, "80 and more": np.inf}
FROM = 20.0  # px: height from which a face is not small
FITTED = 100  # photographs, the first ones, that something was fitted to; the others are held out
VARIANTS: dict[str, Part] = {
    "default": Part(name="centerface"),
    "threshold .20": Part(name="centerface", options={"threshold": 0.2}),
    "threshold .15": Part(name="centerface", options={"threshold": 0.15}),
    "not enlarged": Part(name="centerface", options={"enlarge": 1}),
    "enlarged twice": Part(name="centerface", options={"enlarge": 2}),
    "default, OpenVINO": Part(name="centerface", options={"engine": "openvino"}),
    "strict": Part(name="strict"),
    "strict, OpenVINO": Part(name="strict", options={"engine": "openvino"}),
}


def main() -> None:
    arguments = parser().parse_args()
    truth = annotations(arguments.data / "crowds" / "boxes.csv")
    crowds = [read(arguments.data / "crowds" / name) for name in truth]
    portraits = [read(path) for path in sorted((arguments.data / "london").glob("*.jpg"))]
    rows: dict[str, dict[str, Any]] = {}
    figures = {"machine": common.machine(), "threads": arguments.threads, "variants": rows}
    for name in arguments.variants:
        detector = built(VARIANTS[name], arguments.threads)
        print(f"{name}: {len(crowds)} crowds, {len(portraits)} portraits", flush=True)
        rows[name] = row(detector, crowds, list(truth.values()), portraits)
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / "crowds.json").write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n")
    print(markdown(rows))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    common.add_data_argument(made, required=True)
    made.add_argument("--results", type=Path, default=common.REPOSITORY / "benchmarks" / "results")
    made.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    made.add_argument("--threads", type=int, default=1, help="of the network; the cost is processor time")
    return made


def built(part: Part, threads: int) -> Detector:
    """The detector as a run would build it, whatever its licence."""
    chosen = config.parse(
        {
            "input": {"uri": "raw"},
            "output": {"uri": "out"},
            "state": "state",
            "models": {"accept": ["clean", "permissive", "restricted"]},
            "detector": part.model_dump(),
        }
    )
    detector: Detector = parts.build(chosen, "detector", config.Stage(threads=threads))
    return detector


def annotations(path: Path) -> dict[str, NDArray[np.float64]]:
    """Per file name the boxes [N, 4] (x0, y0, x1, y1 in pixels)."""
    boxes: dict[str, list[list[float]]] = collections.defaultdict(list)
    with open(path, newline="") as file:
        for line in csv.DictReader(file):
            boxes[line["file"]].append([float(line[side]) for side in ("xmin", "ymin", "xmax", "ymax")])
    return {name: np.array(some) for name, some in boxes.items()}


def read(path: Path) -> Picture:
    return decode(path.read_bytes(), common.MAX_PIXELS).pixels


def row(
    detector: Detector,
    crowds: Sequence[Picture],
    truth: Sequence[NDArray[np.float64]],
    portraits: Sequence[Picture],
) -> dict[str, Any]:
    """Figures of one detector."""
    detector.detect(crowds[:10])
    found, cost = timed(detector.detect, crowds)
    hits = [matched(detections, boxes) for detections, boxes in zip(found, truth, strict=True)]
    hit, heights = np.concatenate(hits), np.concatenate([boxes[:, 3] - boxes[:, 1] for boxes in truth])
    band = np.searchsorted(list(BANDS.values()), heights, side="right")
    held_out = slice(FITTED, None)
    result: dict[str, Any] = {
        **shares(found, truth),
        "second_100": shares(found[held_out], truth[held_out]),
        "recall_by_height": {name: float(hit[band == i].mean()) for i, name in enumerate(BANDS)},
        "faces_by_height": {name: int((band == i).sum()) for i, name in enumerate(BANDS)},
        "crowd_seconds_a_picture": cost / len(crowds),
        "crowd_seconds_a_megapixel": cost / sum(megapixels(picture) for picture in crowds),
    }
    if portraits:
        detector.detect(portraits[:2])
        found, cost = timed(detector.detect, portraits)
        counts = collections.Counter(map(len, found))
        result |= {
            "portraits": len(portraits),
            "portraits_with_one_face": counts[1],
            "portrait_seconds_a_picture": cost / len(portraits),
            "portrait_seconds_a_megapixel": cost / sum(megapixels(picture) for picture in portraits),
        }
    return result


def shares(found: Sequence[Detections], truth: Sequence[NDArray[np.float64]]) -> dict[str, Any]:
    """Of some photographs: faces, recall of all and of those from 20 px up, precision, and the share touched."""
    pairs = list(zip(found, truth, strict=True))
    hit = np.concatenate([matched(detections, boxes) for detections, boxes in pairs])
    heights = np.concatenate([boxes[:, 3] - boxes[:, 1] for boxes in truth])
    return {
        "faces": len(hit),
        "recall": float(hit.mean()),
        "recall_from_20": float(hit[heights >= FROM].mean()),
        "precision": float(hit.sum() / max(sum(map(len, found)), 1)),
        "touched": float(np.concatenate([touched(detections, boxes) for detections, boxes in pairs]).mean()),
    }


def timed(
    detect: Callable[[Sequence[Picture]], list[Detections]], pictures: Sequence[Picture]
) -> tuple[list[Detections], float]:
    """Detections, and the processor time in seconds."""
    start = time.process_time()
    found = detect(pictures)
    return found, time.process_time() - start


def megapixels(picture: Picture) -> float:
    return float(picture.shape[0] * picture.shape[1] / 1e6)


def matched(detections: Detections, truth: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which annotated boxes [N, 4] were found."""
    hit = np.zeros(len(truth), bool)
    for box in detections.boxes:
        overlaps = np.where(hit, 0, iou(box, truth))
        if overlaps.max() >= LEAST_IOU:
            hit[overlaps.argmax()] = True
    return hit


def touched(detections: Detections, truth: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which annotated boxes [N, 4] have their middle in a box, however that box fits."""
    x, y = ((truth[:, :2] + truth[:, 2:]) / 2).T[:, :, None]
    x0, y0, x1, y1 = detections.boxes.T[:, None]
    return np.asarray(((x > x0) & (x < x1) & (y > y0) & (y < y1)).any(axis=1))


def iou(box: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.float64]:
    """Intersection over union [N] of a box [4] and others [N, 4]."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    common_area = np.prod(np.maximum(sides, 0), axis=1)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    return np.asarray(common_area / (areas - common_area), np.float64)


def markdown(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The table for RESULTS.md."""
    first = next(iter(rows.values()))
    bands = [f"{name} px ({count})" for name, count in first["faces_by_height"].items()]
    titles = ["detector", f"recall ({first['faces']})", "from 20 px", "middle in a box", "precision"]
    titles += [
        f"second 100: recall ({first['second_100']['faces']})",
        "from 20 px",
        "middle in a box",
        "precision",
    ]
    titles += bands
    titles += ["s a picture", "s a megapixel"]
    if "portraits" in first:
        titles += [f"one face in portraits of 800 px ({first['portraits']})", "s a portrait"]
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for name, figures in rows.items():
        both = figures, figures["second_100"]
        shown = [part[key] for part in both for key in ("recall", "recall_from_20", "touched", "precision")]
        cells = [name, *(f"{share:.3f}" for share in (*shown, *figures["recall_by_height"].values()))]
        cells += [f"{figures[f'crowd_seconds_a_{unit}']:.3f}" for unit in ("picture", "megapixel")]
        if "portraits" in first:
            cells += [
                str(figures["portraits_with_one_face"]),
                f"{figures['portrait_seconds_a_picture']:.3f}",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
