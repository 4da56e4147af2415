"""A whole evaluation that nobody made: sections as the parts hand them over, with twelve treatments and long names."""

import functools
import io
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from deid.evaluation import plots
from deid.evaluation.sections import NAN, Cell, Column, Plot, Section, Table
from deid.evaluation.settings import Evaluation

CHOSEN = "k-same, whole head, k = 5 (the default of this tool)"
STRENGTH = {  # share of people that are still found
    CHOSEN: 0.03,
    "per-face surrogates, whole head, nothing shared between people": 0.04,
    "distant, face": 0.25,
    "distant, head": 0.05,
    "k-Same nearest, face (published)": 0.5,
    "k-Same-Pixel": 0.2,
    "blur, weak": 0.97,
    "blur": 0.9,
    "blur, strong": 0.4,
    "pixelate": 0.35,
    "solid": 0.02,
    "a tool of somebody else with a rather long name, version 3.1": 0.6,
}
CONTROLS = {"clear": 0.99, "grey head": 0.02, "random pairs": 0.017}
RECOGNIZERS = ("dlib ResNet", "MobileFaceNet")
ATTACK = [
    Column("rank1", "rank-1", "lower", 0.1),
    Column("auc", "AUC", "lower"),
    Column("eer", "EER", "higher"),
    Column("tar_1", "TAR at FAR 1 %", "lower"),
    Column("tar_01", "TAR at FAR 0.1 %", "lower"),
    Column("furthest", "least alike of all", "lower"),
    Column("missed", "no face found", "", digits=0),
]
KEPT = {
    "found_again": ("face found again (unrelated detector, IoU >= .6)", 0.99),
    "smile_mesh": ("smiling or neutral as before (mesh)", 0.95),
    "smile_network": ("smiling or neutral as before (fer)", 0.95),
    "sex": ("apparent sex as before (own heads)", 0.97),
    "seam_shows": ("pictures with a seam above 1.2", None),
    "landmarks": ("eyes, nose, mouth moved (over eye distance)", None),
    "yaw": ("yaw error, degrees, median", None),
    "pitch": ("pitch error, degrees, median", None),
    "roll": ("roll error, degrees, median", None),
    "age": ("apparent age changed, years (own heads)", None),
}


def evaluation(**settings: Any) -> Evaluation:
    """With the chosen treatment first, k = 5, and paths that may not be in the report."""
    results = [{"name": name, "uri": f"s3://canary-bucket/result-{n}"} for n, name in enumerate(STRENGTH)]
    given: dict[str, Any] = {
        "source": {"uri": "/canary/source/folder", "labels": "/canary/labels.csv"},
        "output": "/canary/output/folder",
        "title": "Street scenes, spring release: de-identification",
        "results": results,
        "baselines": (),
        "k": 5,
        "recognizers": ("/canary/recognizer.yaml",),
    }
    return Evaluation.model_validate(given | settings)


def about() -> dict[str, Any]:
    """Of the evaluation, as its run describes it."""
    return {
        "title": "Street scenes, spring release: de-identification",
        "made": "2026-11-25",
        "deid": "0.1.0",
        "source": {"pictures": 120, "faces": 120, "people": 60, "labelled": True},
        "treatments": {
            name: {"anonymizer": "surrogate", "assignment": {"mode": "k-same", "k": 5}, "margin": 0.6}
            for name in STRENGTH
        },
        "recognizers": [{"name": name, "own": name.startswith("dlib")} for name in RECOGNIZERS],
        "machine": "2 CPU cores, 8 GB",
        "seconds": 743,
        "digest": "5f0c" * 16,
    }


def sections(drawn: bool = True, seed: int = 0) -> list[Section]:
    """Of all parts, not in the report's order; drawn: with the plots."""
    rng = np.random.default_rng(seed)
    made = [fairness(rng), utility(rng), privacy(rng), tradeoff(rng), inversion(rng)]
    if drawn:
        for section in made:
            section.plots = list(_plots(section.id, seed))
    return made + [simple(id, title, rng) for id, title in OTHERS.items()]


@functools.cache
def _plots(id: str, seed: int) -> tuple[Plot, ...]:
    made = next(section for section in sections(False, seed) if section.id == id)
    draw = {"privacy": _attack_plots, "utility": _shares, "tradeoff": _points}
    return tuple(draw[id](made.tables[0])) if id in draw else ()


def _attack_plots(table: Table) -> list[Plot]:
    curves = {
        name: (np.linspace(0, 1, 200).tolist(), (np.linspace(0, 1, 200) ** max(0.02, 1 - found)).tolist())
        for name, found in (CONTROLS | STRENGTH).items()
    }
    alt = "ROC of every treatment; the chosen one runs along the line of chance, weak blur along the upper edge."
    title = "ROC, clear enrolled and de-identified probed, dlib"
    return [
        plots.lines(
            "privacy.forward.roc", title, alt, curves, "false accept rate", "true accept rate", ([0, 1], [0, 1]),
            chosen=CHOSEN,
        ),
        plots.bars("privacy.rank1", "Rank-1 by treatment.", table, table.columns[:2], "share"),
    ]  # fmt: skip


def _shares(table: Table) -> list[Plot]:
    return [plots.dots("utility-shares", "Shares that are kept.", table, table.columns, "share of faces")]


def _points(table: Table) -> list[Plot]:
    points = {name: (row["rank1"], row["kept"]) for name, row in table.rows.items()}
    return [
        plots.scatter(
            "tradeoff", table.title, "Rank-1 against expression kept.", points, "rank-1, lower is safer",
            "expression kept", CHOSEN, ("solid", CHOSEN), (0.1, 0.95),
        )
    ]  # fmt: skip


OTHERS = {
    "downstream": "Downstream training",
    "naturalness": "Naturalness",
    "composite": "Composite score",
    "explain": "Explainability",
}


def privacy(rng: np.random.Generator) -> Section:
    """Every setting, recognizer and choice of impostors; one of the tables is invalid."""
    tables = []
    for setting in ("forward", "reverse", "parrot", "parrot, retrained"):
        for number, recognizer in enumerate(RECOGNIZERS):
            for impostors in ("all", "alike"):
                tables.append(_attack(rng, setting, recognizer, number, impostors))
    intro = ["Whether a recognizer links de-identified faces to people, in three settings."]
    data = {"curve": np.arange(3)}
    return Section("privacy", "Privacy: re-identification", intro, tables, data=data)


def utility(rng: np.random.Generator) -> Section:
    """One table for shares and one for distances."""
    columns = [
        Column(id, title, "higher" if asked else "lower", asked) for id, (title, asked) in KEPT.items()
    ]
    rows = {
        name: {c.id: _cell(rng, 0.98 if c.better == "higher" else 0.1, c) for c in columns}
        for name in STRENGTH
    }
    rows["solid"]["smile_mesh"] = Cell(NAN, text="not measured in any face")
    tables = [
        Table(
            "utility.shares", "What is kept", columns[:5], rows, ["Source and result by the same estimator."]
        ),
        Table("utility.all", "Landmarks, pose, age", columns, rows),
    ]
    tables[1].columns = columns[5:]
    return Section("utility", "Utility", ["What is left for use."], tables)


def fairness(rng: np.random.Generator) -> Section:
    """By group, with the largest gap."""
    column = Column("rank1", "rank-1 (forward, dlib)", "lower", 0.1)
    groups = ("female", "male", "under 30", "30 to 49", "50 and more", "light", "tan", "dark")
    rows = {group: {"rank1": _cell(rng, 0.06, column)} for group in groups}
    table = Table("fairness.sex", "Rank-1 by group", [column], rows, row_title="group")
    gap = {
        "what": "rank-1 (forward, dlib)", "kind": "skin-tone band", "groups": ["dark", "light"],
        "value": 0.083, "low": 0.0, "high": 0.21, "by_chance": 0.12, "p": 0.62,
    }  # fmt: skip
    return Section("fairness", "Fairness", ["By group."], [table], [], {"largest_gap": gap})


def tradeoff(rng: np.random.Generator) -> Section:
    """Points of strength and utility."""
    columns = [Column("rank1", "rank-1", "lower", 0.1), Column("kept", "expression kept", "higher", 0.95)]
    rows = {
        name: {"rank1": _cell(rng, found, columns[0]), "kept": _cell(rng, 0.95 - found / 9, columns[1])}
        for name, found in STRENGTH.items()
    }
    return Section(
        "tradeoff", "Trade-off", [], [Table("tradeoff", "Strength against utility", columns, rows)]
    )


def inversion(rng: np.random.Generator) -> Section:
    """An attack that was not trained, for one treatment."""
    column = Column("gain", "gain over the constant guess", "lower")
    rows = {name: {"gain": _cell(rng, found, column)} for name, found in STRENGTH.items()}
    problem = "the attack was not trained: it does not restore clear faces either"
    table = Table("inversion", "Faces restored by a network", [column], rows, problems=[problem])
    return Section("inversion", "Inversion", [], [table])


def simple(id: str, title: str, rng: np.random.Generator) -> Section:
    """One table of one figure."""
    column = Column("figure", "figure", "higher")
    rows = {name: {"figure": _cell(rng, 0.7, column)} for name in list(STRENGTH)[:6]}
    return Section(id, title, ["As it says."], [Table(id, title, [column], rows)])


def picture(width: int = 1200, height: int = 600, seed: int = 0, kind: str = "JPEG", **options: Any) -> bytes:
    """An encoded picture of noise on colours, which no encoder makes small."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 255, (height, width, 3), np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, kind, **options)
    return sink.getvalue()


def plot(id: str, png: bytes) -> Plot:
    return Plot(id, "A plot", "What it shows.", png)


def _attack(rng: np.random.Generator, setting: str, recognizer: str, number: int, impostors: str) -> Table:
    about = {"recognizer": recognizer, "setting": setting, "impostors": impostors}
    alike = impostors == "alike"
    limits = {("forward", "all"): {"rank1": 0.1}, ("forward", "alike"): {"auc": 0.6}}
    limits |= {("parrot", "all"): {"rank1": 0.301}, ("parrot, retrained", "all"): {"rank1": 0.301}}
    asked = limits.get((setting, impostors), {})
    columns = [replace(column, limit=asked.get(column.id)) for column in ATTACK]
    rows = {}
    for name, found in (CONTROLS | STRENGTH).items():
        share = min(1.0, found * (5 if setting.startswith("parrot") and found < 0.1 else 1))
        area = 0.5 + (share - 0.02) / 2 * (0.2 if alike and share < 0.2 else 1)
        values = (share, area, 1 - area, share * 0.9, share * 0.6, 0.02, 0)
        rows[name] = {c.id: _cell(rng, v, c) for c, v in zip(columns, values, strict=True)}
    title = f"{setting.capitalize()}: {recognizer}, impostors {'of the same looks' if alike else 'all'}"
    table = Table(f"privacy.{setting}.{number}.{impostors}", title, columns, rows, about=about)
    table.notes = ["60 people enrolled, 60 probes; chance 0.017. 95 % intervals: bootstrap over people."]
    if setting == "parrot, retrained" and alike:
        table.problems = ["rank-1 of the clear probes is 0.43, below 0.9: the attack is too weak"]
    return table


def _cell(rng: np.random.Generator, value: float, column: Column) -> Cell:
    """The value with noise of a sample of 60 people, and an interval about it."""
    if not column.digits:
        return Cell(value, measured=60, of=60)
    spread = 0.03 + 0.2 * value * abs(1 - min(value, 1))
    shown = round(float(np.clip(value + rng.normal(0, spread / 8), 0, max(1, value))), 4)
    low, high = max(0.0, shown - spread), shown + spread if shown > 1 else min(1.0, shown + spread)
    return Cell(shown, low, high, column.met(shown), 60, 60)
