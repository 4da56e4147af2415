"""The run configuration of the treatment that keeps the limits given and is the most useful: `deid recommend`."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from deid.errors import ConfigError, InputError, PromiseError
from deid.evaluation.options import configured, differing, people

By = Literal["value", "bound"]
Figure = dict[str, float]  # value, low, high; NaN where not measured
PACKAGED = "tradeoff.json"
AT_LEAST = ("found_again", "expression", "sex", "kept")  # the others are asked to be at most
NAMES = {
    "rank1": "rank-1, enrolled clear, probed de-identified, worst recognizer",
    "reverse": "rank-1, enrolled de-identified, probed clear, worst recognizer",
    "auc": "AUC against everybody, worst recognizer, either way round",
    "auc_alike": "AUC among people of the same kind, worst recognizer, either way round",
    "parrot": "rank-1, enrolled and probed de-identified, worst recognizer and training",
    "k": "people promised behind a surrogate",
    "kept": "found again, expression and sex kept, all of them",
    "found_again": "face found again",
    "expression": "expression as before, worse estimator",
    "sex": "apparent sex as before",
    "seam": "gradient along the seam, result over source",
}
UNKNOWN: Figure = {"value": math.nan, "low": math.nan, "high": math.nan}


@dataclass(frozen=True)
class Measured:
    """One treatment in one evaluation."""

    name: str
    where: str  # the evaluation, in words: people, faces, title
    figures: dict[str, Figure]


@dataclass(frozen=True)
class Candidate:
    """Settings over the job's defaults, and their figures in every evaluation; the worst one counts."""

    settings: dict[str, Any]
    measured: list[Measured]

    @property
    def name(self) -> str:
        return self.measured[0].name

    def figure(self, name: str) -> Figure:
        """The worst figure over the evaluations; not measured in one is not measured."""
        found = [m.figures.get(name, UNKNOWN) for m in self.measured]
        if any(math.isnan(f["value"]) for f in found):
            return UNKNOWN
        return (min if name in AT_LEAST else max)(found, key=lambda f: f["value"])


def recommend(files: Sequence[str | Path], asked: Mapping[str, float | None], by: By = "value") -> str:
    """The YAML of the treatment that keeps every limit and keeps the most; of equal ones, the most private.

    files: evaluation.json of `deid evaluate`; none: what the package brings. With several, a treatment must have been
    measured in each of them, and its worst figures count. asked: limit by names of `NAMES`; None: nothing is asked. by:
    whether a figure has to keep its limit, or the worse bound of its 95 % interval.

    Raises:
        InputError: a file is no evaluation.
        ConfigError: no treatment of this job was measured in all of the files.
        PromiseError: no treatment keeps the limits; says which is missed by how much by the nearest one.
    """
    evidence = [read(path) for path in files] or [packaged()]
    limits = {name: limit for name, limit in asked.items() if limit is not None}
    everyone = candidates(evidence)
    if not everyone:
        raise ConfigError(
            "no treatment of this job is in all of the evaluations; give evaluations with the same trials"
        )
    fitting = [c for c in everyone if all(m <= 0 for m in missed(c, limits, by).values())]
    if not fitting:
        raise PromiseError(_nearest(everyone, limits, by))
    return render(
        max(fitting, key=_worth), limits, by, [e["attribution"] for e in evidence if e["attribution"]]
    )


def packaged() -> dict[str, Any]:
    """The evaluation that comes with the package."""
    text = (resources.files("deid.evaluation") / "data" / PACKAGED).read_text(encoding="utf-8")
    return _evidence(json.loads(text), "the packaged evaluation")


def read(path: str | Path) -> dict[str, Any]:
    """The trade-off of an evaluation.json."""
    try:
        return _evidence(json.loads(Path(path).read_text(encoding="utf-8")), str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; give an evaluation.json") from None
    except ValueError:
        raise InputError(f"{path}: not valid JSON; give an evaluation.json of deid evaluate") from None


def _evidence(document: Any, where: str) -> dict[str, Any]:
    """Points and what they were measured on, of an evaluation or of a trade-off section alone."""
    try:
        given = document.get("sections", document)
        listed = list(given.values()) if isinstance(given, dict) and "data" not in given else given
        made = next(s for s in (listed if isinstance(listed, list) else [listed]) if s["id"] == "tradeoff")
        on = made["data"]["measured_on"]
        words = f"{int(on['people'])} people, {int(on['faces'])} faces ({_one_line(on['title'])})"
        points = [_measured(point, words) for point in made["data"]["points"]]
    except (AttributeError, KeyError, TypeError, ValueError, StopIteration):
        raise InputError(f"{where}: holds no trade-off; give an evaluation.json of deid evaluate") from None
    return {"points": points, "attribution": _one_line(document.get("attribution") or "")}


def _measured(point: dict[str, Any], where: str) -> tuple[dict[str, Any] | None, Measured]:
    """A figure that lacks an attack, since its control failed or it could not be tried, is not measured."""
    figures = {
        name: {side: math.nan if figure.get(side) is None else float(figure[side]) for side in UNKNOWN}
        for name, figure in (point["privacy"] | point["utility"]).items()
        if not figure.get("lacking")
    }
    settings = None if point["settings"] is None else differing(point["settings"])
    return settings, Measured(_one_line(point["name"]), where, {n: UNKNOWN | f for n, f in figures.items()})


def candidates(evidence: Sequence[Mapping[str, Any]]) -> list[Candidate]:
    """Treatments of the job that were measured in every evaluation, in the order of the first one."""
    by_settings: dict[str, dict[int, tuple[dict[str, Any], Measured]]] = {}
    for number, given in enumerate(evidence):
        for settings, measured in given["points"]:
            if settings is not None:
                key = json.dumps(settings, sort_keys=True)
                by_settings.setdefault(key, {}).setdefault(number, (settings, measured))
    return [
        Candidate(found[0][0], [measured for _, measured in found.values()])
        for found in by_settings.values()
        if len(found) == len(evidence)
    ]


def missed(candidate: Candidate, limits: Mapping[str, float], by: By) -> dict[str, float]:
    """By how much each limit is missed; 0 or less is kept, infinity not measured."""
    found = {}
    for name, limit in limits.items():
        if name == "k":
            found[name] = limit - people(candidate.settings)
            continue
        value = _judged(candidate, name, by)
        over = limit - value if name in AT_LEAST else value - limit
        found[name] = math.inf if math.isnan(value) else round(over, 9)
    return found


def _judged(candidate: Candidate, name: str, by: By) -> float:
    side = "value" if by == "value" else "low" if name in AT_LEAST else "high"
    return candidate.figure(name)[side]


def _worth(candidate: Candidate) -> tuple[float, float, float]:
    kept, alike, parrot = (candidate.figure(name)["value"] for name in ("kept", "auc_alike", "parrot"))
    return (
        -math.inf if math.isnan(kept) else kept,
        -math.inf if math.isnan(alike) else -alike,
        -math.inf if math.isnan(parrot) else -parrot,
    )


def _nearest(everyone: Sequence[Candidate], limits: Mapping[str, float], by: By) -> str:
    """In one line, the treatment whose worst miss is the least, and what it misses."""

    def relative(name: str, by_how_much: float) -> float:
        return by_how_much / limits[name] if name == "k" else by_how_much

    def furthest(candidate: Candidate) -> float:
        return max(relative(*miss) for miss in missed(candidate, limits, by).items())

    near = min(everyone, key=furthest)
    said = []
    for name, over in missed(near, limits, by).items():
        if math.isinf(over):
            said.append(f"{name} was not measured")
        elif over > 0:
            value = people(near.settings) if name == "k" else _judged(near, name, by)
            bound = "" if by == "value" or name == "k" else " (bound of its interval)"
            said.append(f"{name} is {value:.3g}{bound}, {over:.3g} off the {limits[name]:.3g} asked")
    return f"no treatment keeps all limits; nearest is {near.name!r}: {', '.join(said)}"


def render(candidate: Candidate, limits: Mapping[str, float], by: By, attribution: Sequence[str] = ()) -> str:
    """A run configuration in YAML: what differs from the defaults, with the figures as comments."""
    judged = "value" if by == "value" else "worse bound of the interval"
    said = [
        f"{candidate.name}: of the treatments that keep these limits the one that keeps most of the pictures.",
        *(
            f"Measured on {m.where}; other pictures and other attackers: other figures."
            for m in candidate.measured
        ),
        *attribution,
        *cautions(candidate.settings),
        f"Figure (95 % interval); asked of the {judged}:",
        *(f"  {_line(candidate, name, limits.get(name))}" for name in NAMES),
    ]
    lines = [
        *(f"# {line}" for line in said),
        "input:",
        "  uri: data/raw # placeholder: folder or s3:// prefix with your shards",
        "output:",
        "  uri: data/deid # placeholder: an empty folder or prefix",
        "state: data/state # placeholder: apart from both",
        "# models:",
        "#   accept: [clean, permissive, restricted] # the default generator is restricted; see deid models list",
    ]
    own = (
        yaml.safe_dump(candidate.settings, sort_keys=False) if candidate.settings else "# else the defaults\n"
    )
    return "\n".join(lines) + "\n" + own


def cautions(settings: Mapping[str, Any]) -> list[str]:
    """What one should know of the settings that the figures may not say."""
    config = configured(settings)
    said = []
    if config.anonymizer in ("blur", "pixelate"):
        said.append("Caution: blur and pixelate are baselines; a recognizer trained on them may find more.")
    elif people(settings) == 1 and config.anonymizer != "solid":
        said.append("Caution: no number of people is promised behind a surrogate; ask for one with --k.")
    if not config.gate.enabled:
        said.append("Caution: results are not looked at again (gate.enabled: false).")
    return said


def _line(candidate: Candidate, name: str, limit: float | None) -> str:
    sign = ">=" if name in (*AT_LEAST, "k") else "<="
    wanted = "" if limit is None else f"; asked {sign} {limit:g}"
    if name == "k":
        promised = people(candidate.settings)
        return f"{NAMES[name]}: {promised if promised > 1 else 'none'}{wanted}"
    figure = candidate.figure(name)
    if math.isnan(figure["value"]):
        return f"{NAMES[name]}: not measured{wanted}"
    return f"{NAMES[name]}: {figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f}){wanted}"


def _one_line(text: Any) -> str:
    """Words from a file, safe in a comment and in an error: no line breaks, nothing that cannot be printed."""
    return "".join(c for c in " ".join(str(text).split()) if c.isprintable())
