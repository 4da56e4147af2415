"""Who attacks, and how: what is enrolled and probed, by which recognizer, among which people."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deid.evaluation import heads
from deid.evaluation.faces import Attacker, Faces
from deid.evaluation.observe import Observation
from deid.evaluation.reid import Comparison, Result, Templates, compare, of_probes, reidentify
from deid.evaluation.settings import Evaluation

IMPOSTORS = {"all": "all other people", "alike": "people of the same sex, age band and skin-tone band"}


@dataclass(frozen=True)
class Setting:
    name: str
    title: str
    enrol_treated: bool
    probe_treated: bool
    retrained: bool = False

    @property
    def parrot(self) -> bool:
        return self.enrol_treated and self.probe_treated


SETTINGS = (
    Setting("forward", "enrolled clear, probed de-identified", False, True),
    Setting("reverse", "enrolled de-identified, probed clear", True, False),
    Setting("parrot", "enrolled and probed de-identified", True, True),
    Setting(
        "parrot, retrained",
        "enrolled and probed de-identified, head retrained on de-identified faces",
        True,
        True,
        retrained=True,
    ),
)


@dataclass(frozen=True)
class Attack:
    """What all tables of one recognizer and one kind of impostors share."""

    faces: Faces
    evaluation: Evaluation
    attacker: Attacker
    impostors: str  # of `IMPOSTORS`
    fold: NDArray[np.intp]  # [N] of each face, for training
    rng: np.random.Generator
    fit: heads.Fit = heads.fit

    @property
    def within(self) -> bool:
        return self.impostors == "alike"

    def probes(self, setting: Setting) -> NDArray[np.intp]:
        """Of the parrot, without the pictures that it has enrolled: the same picture again is no attack."""
        probes = self.faces.probes
        return probes[~np.isin(probes, self.faces.enrolled)] if setting.parrot else probes

    def sides(self, setting: Setting, seen: list[Observation]) -> tuple[Templates, Templates]:
        """Enrolled and probes, where the setting shows `seen` on the treated sides."""
        f = self.faces
        return (
            f.templates(self.attacker, seen if setting.enrol_treated else f.clear, f.enrolled),
            f.templates(self.attacker, seen if setting.probe_treated else f.clear, self.probes(setting)),
        )

    def compared(self, enrolled: Templates, probes: Templates) -> Comparison | None:
        """None where nothing can be compared."""
        people = np.unique(enrolled.subjects[enrolled.acquired])
        if len(people) < 2 or not np.isin(probes.subjects, people).any():
            return None
        return compare(enrolled, probes, self.attacker.metric, self.faces.group_of, self.within)

    def figures(self, comparison: Comparison | None) -> Result | None:
        return None if comparison is None else reidentify(comparison, self.rng, self.evaluation.resamples)

    def released(self, comparison: Comparison | None) -> Result | None:
        """The figures over the probes that there is a picture of, and which share there is none of; None without any.

        A picture that was kept back finds nobody and proves nothing: as a miss it would hide how many of those that
        did go out are found.
        """
        if comparison is None or not comparison.acquired.any():
            return None
        there = self.figures(of_probes(comparison, comparison.acquired))
        if there is None or comparison.acquired.all():
            return there
        whole = reidentify(comparison, self.rng, self.evaluation.resamples, ())
        return replace(
            there,
            lost=whole.lost,
            probes=whole.probes,
            failures_to_acquire=whole.failures_to_acquire,
        )
