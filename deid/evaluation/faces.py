"""The faces of an evaluation, and what the measuring models saw of each in the source and in every treatment."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deid.evaluation import groups
from deid.evaluation.observe import Observation
from deid.evaluation.reid import Metric, Templates
from deid.evaluation.seam import Seam


@dataclass(frozen=True)
class Subject:
    """A face and what is known about its person. Nothing here leaves the evaluation but counts and shares."""

    picture: str  # key of the source picture
    person: str
    enrolled: bool  # the attacker holds this picture with a name on it
    probe: bool  # the attacker wants to know who this is
    sex: str = "unknown"  # female, male
    age: float = float("nan")  # years
    tone: float = float("nan")  # skin tone of the clear face, ITA in degrees
    expression: str = ""  # smiling, neutral, other, or unknown: ""

    @property
    def group(self) -> groups.Group:
        """Sex, age band and skin-tone band: what a surrogate keeps on purpose."""
        return groups.attribute_groups({"": self.sex}, {"": self.age}, {"": self.tone})[""]


@dataclass(frozen=True)
class Attacker:
    """A recognizer by which templates were made: `Observation.vectors[name]`."""

    name: str
    metric: Metric
    own: bool  # the pipeline's own, which the surrogates were drawn against


@dataclass
class Faces:
    """N faces in one order everywhere. Observations of a treatment are at the place of the same source face.

    Where a treatment's own picture is missing (quarantined), or shows no face at that place, the observation has
    `score` 0 and NaN in all that detectors and meshes see; `vectors` then hold what the recognizers see at the place
    where the face was (an attacker who has the place loses nothing when a detector does), NaN without a picture.
    """

    subjects: list[Subject]
    clear: list[Observation]
    grey: list[Observation]  # the source with a grey head: what is left of a person outside of it
    treated: dict[str, list[Observation]]  # by treatment
    seams: dict[str, list[Seam]]
    attackers: list[Attacker]
    smile_threshold: float  # of `expression.smile`: above it is smiling
    group_of: dict[str, groups.Group] = field(init=False)  # of each person

    def __post_init__(self) -> None:
        sizes = {len(self.subjects), len(self.clear), len(self.grey), *map(len, self.treated.values())}
        if len(sizes | set(map(len, self.seams.values()))) != 1:
            raise ValueError("every treatment needs one observation a face")
        self.group_of = {s.person: s.group for s in reversed(self.subjects)}
        self.group_of |= {s.person: s.group for s in reversed(self.subjects) if s.enrolled}

    def __len__(self) -> int:
        return len(self.subjects)

    @property
    def persons(self) -> NDArray[np.str_]:
        """[N]"""
        return np.array([s.person for s in self.subjects], dtype=np.str_)

    @property
    def enrolled(self) -> NDArray[np.intp]:
        """Indices of the enrolled faces."""
        return np.flatnonzero([s.enrolled for s in self.subjects])

    @property
    def probes(self) -> NDArray[np.intp]:
        """Indices of the probes."""
        return np.flatnonzero([s.probe for s in self.subjects])

    def templates(self, attacker: Attacker, seen: list[Observation], chosen: NDArray[np.intp]) -> Templates:
        """Of one recognizer, of these faces as they were seen; NaN where there is no picture."""
        size = next((len(o.vectors[attacker.name]) for o in self.clear if attacker.name in o.vectors), 1)
        empty = np.full(size, np.nan, np.float32)
        vectors = [seen[n].vectors.get(attacker.name, empty) for n in chosen]
        return Templates(np.stack(vectors) if len(chosen) else np.zeros((0, size)), self.persons[chosen])
