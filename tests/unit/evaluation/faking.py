"""Faces that were never seen: made-up observations of made-up people, in which what an attack must find is known."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deid.evaluation.faces import Attacker, Faces, Subject
from deid.evaluation.observe import Observation
from deid.evaluation.seam import Seam
from deid.evaluation.settings import Evaluation

ATTACKERS = [Attacker("own", "euclidean", True), Attacker("other", "cosine", False)]
SIZE = 16  # of a template


def faces(people: int = 24, pictures: int = 2, noise: float = 0.15, seed: int = 0) -> Faces:
    """The first picture of each person is enrolled, the others are probes.

    Treatments: `identity` shows the source, `random heads` somebody else each time, `one head` always the same one,
    `gone` no face, `missing` has no pictures.
    """
    rng = np.random.default_rng(seed)
    sexes, ages = ("female", "male"), (20.0, 30.0, 40.0, 50.0)
    subjects, clear = list[Subject](), list[Observation]()
    treated: dict[str, list[Observation]] = {
        name: [] for name in ("identity", "random heads", "one head", "gone", "missing")
    }
    stranger = rng.normal(size=SIZE)
    for person in range(people):
        centre = rng.normal(size=SIZE)
        for picture in range(pictures):
            expression = ("neutral", "smiling")[picture % 2]
            subjects.append(
                Subject(
                    f"{person:03d}_{picture}",
                    f"p{person:03d}",
                    enrolled=picture == 0,
                    probe=picture > 0,
                    sex=sexes[person % 2],
                    age=ages[person // 2 % 4],
                    tone=(50.0, 20.0)[person // 8 % 2],
                    expression=expression,
                )
            )
            smiling = expression == "smiling"
            clear.append(observation(centre + noise * rng.normal(size=SIZE), rng, smiling, person))
            treated["identity"].append(clear[-1])
            treated["random heads"].append(observation(rng.normal(size=SIZE), rng, smiling, person))
            treated["one head"].append(
                observation(stranger + noise * rng.normal(size=SIZE), rng, smiling, person)
            )
            treated["gone"].append(Observation(vectors=_vectors(rng.normal(size=SIZE))))
            treated["missing"].append(Observation())
    grey = [Observation(vectors=_vectors(rng.normal(size=SIZE))) for _ in clear]
    seams = {name: [Seam(1.0, 1.1)] * len(clear) for name in treated}
    return Faces(subjects, clear, grey, treated, seams, ATTACKERS, smile_threshold=0.0)


def evaluation(names: Iterable[str], **settings: Any) -> Evaluation:
    """Of these treatments, as results that are there."""
    results = [{"name": name, "uri": name} for name in names]
    given: dict[str, Any] = {
        "source": {"uri": "source"},
        "output": "report",
        "results": results,
        "baselines": [],
    }
    return Evaluation.model_validate(given | {"resamples": 100} | settings)


def observation(
    vector: NDArray[np.float64], rng: np.random.Generator, smiling: bool, person: int
) -> Observation:
    """A face that was found, with all that the models say of it."""
    mesh = np.random.default_rng(7).uniform(40, 160, (468, 3)) + rng.normal(scale=0.2, size=(468, 3))
    probabilities = np.full(7, 0.02)
    probabilities[3 if smiling else 6] = 0.88
    chip = rng.integers(0, 255, (64, 64, 3), np.uint8)
    chip[44:54, 20:44] = 255 if smiling else 0  # a mouth
    scene, scene_box = _scene(person)
    return Observation(
        score=0.95,
        face_box=np.array([40.0, 40, 160, 160]),
        points=np.array([[70.0, 80], [130, 80], [100, 110], [80, 140], [120, 140]]),
        box=np.array([41.0, 41, 159, 159]),
        mesh=mesh,
        mesh_score=0.99,
        lab=np.array([65.0, 10, 15]) + rng.normal(size=3),
        expression=probabilities,
        sex=float(person % 2),
        age=30.0 + rng.normal(),
        gaze=rng.normal(scale=0.05, size=2),
        sharpness=10 + rng.normal(),
        features=rng.normal(size=256),
        chip=chip,
        scene=scene,
        scene_box=scene_box,
        vectors=_vectors(vector),
    )


def _scene(person: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Noise with a light blob as a face in it, always at the same place for one person; and the face's box."""
    rng = np.random.default_rng(person)
    wide, high = rng.uniform(16, 30), rng.uniform(18, 40)
    x, y = rng.uniform(2, 94 - wide), rng.uniform(2, 94 - high)
    down, across = np.mgrid[:96, :96] + 0.5
    inside = ((across - x - wide / 2) / (wide / 2)) ** 2 + ((down - y - high / 2) / (high / 2)) ** 2 < 1
    pixels = rng.integers(0, 120, (96, 96, 3))
    pixels[inside] += 110
    return pixels.astype(np.uint8), np.array([x, y, x + wide, y + high])


def _vectors(vector: NDArray[np.float64]) -> dict[str, NDArray[np.float32]]:
    return {attacker.name: vector.astype(np.float32) for attacker in ATTACKERS}
