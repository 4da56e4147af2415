"""The page of a study, which holds no truth, and the key to it, which does."""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from deid.errors import ConfigError
from deid.evaluation import settings
from deid.evaluation.study import heads, tasks
from deid.evaluation.study import questions as q
from deid.interfaces import Detector
from deid.privacy import wrapping
from deid.shards import pictures

PAGE, KEY, FORMAT = "study.html", "study-key.json", "deid-study-key"
LANGUAGES = ("en", "ja")
QUALITY = 90  # of the JPEGs
TASKS = 60
HEADS_A_TASK = 3  # heads looked for, so that people can be paired with others of their sex and age


@dataclass(frozen=True)
class Made:
    folder: Path
    page: str  # version and digest
    tasks: dict[str, int]  # by kind; "check" for the checks
    source_faces: int  # people's faces from the source that the page shows
    people: int
    missed: heads.Missed
    size: int  # bytes of the page
    asked: int  # tasks that were asked for, beside the checks
    unknown: dict[str, int]  # tasks about faces by kind, whose label does not say the right answer
    strangers: int  # pairs of different people
    unmatched: int  # of them, not of the same sex and age band
    unlabelled: int  # of those, since a label has no sex or no age


@dataclass(frozen=True)
class Options:
    out: Path
    tasks: int = TASKS
    # None: a fresh secret. Whoever knows the seed of a study can work out its answers from the page.
    seed: int | None = None
    language: str = "en"
    synthetic_only: bool = False
    contact: str = ""  # who runs the study, as participants read it


def make(source: settings.Source, result: settings.Result, options: Options) -> Made:
    """Cut heads, draw tasks, write study.html and study-key.json into a folder that holds no study yet.

    Raises:
        ConfigError: an option is wrong, or the folder holds a study.
        InputError: there are no pictures, pairs or faces to ask about.
    """
    if options.language not in LANGUAGES:
        raise ConfigError(f"language {options.language!r}: it is one of {', '.join(LANGUAGES)}")
    if options.tasks < len(q.ASKED):
        raise ConfigError(f"tasks {options.tasks}: it takes {len(q.ASKED)} or more, one of each question")
    for name in (PAGE, KEY):
        if (options.out / name).exists():
            raise ConfigError(f"{options.out}: holds a study already; name another folder")
    rng, missed = np.random.default_rng(options.seed), heads.Missed()
    pairs = heads.pairs(source, result)
    found = heads.find(pairs, _detector(), rng, HEADS_A_TASK * options.tasks, missed)
    drawn = tasks.draw(found, options.tasks, options.synthetic_only, rng)
    content, key = assemble(found, drawn, rng)
    html = page(content, options.language, options.contact)
    options.out.mkdir(parents=True, exist_ok=True)
    wrapping.write_private(options.out / KEY, json.dumps(key, indent=1).encode())
    (options.out / PAGE).write_bytes(html)
    shown = {shot.head for task in drawn for shot in task.shots if shot.side == "source"}
    counted = Counter("check" if task.check else task.kind for task in drawn)
    people = len({found[shot.head].label.person for task in drawn for shot in task.shots})
    return Made(
        options.out,
        content["page"],
        dict(counted),
        len(shown),
        people,
        missed,
        len(html),
        options.tasks,
        dict(Counter(task.kind for task in drawn if not task.truth)),
        *_strangers(found, drawn),
    )


def _strangers(found: Sequence[heads.Head], drawn: Sequence[tasks.Task]) -> tuple[int, int, int]:
    """Pairs of different people; of them not of one sex and age band; of those, since a label lacks one of the two."""
    pairs = [task for task in drawn if task.condition in (q.DIFFERENT, q.STRANGER)]
    unmatched = [task for task in pairs if not task.alike]
    lacking = [
        task
        for task in unmatched
        if not all(found[s.head].known[kind] for s in task.shots for kind in ("sex", "age"))
    ]
    return len(pairs), len(unmatched), len(lacking)


def _detector() -> Detector:
    """The pipeline's own; faces too small to be asked about need no enlargement."""
    from deid.faces.detect import CenterFaceDetector
    from deid.models.store import default_store

    return CenterFaceDetector(default_store().files("centerface"), enlarge=1)


def assemble(
    found: Sequence[heads.Head], drawn: Sequence[tasks.Task], rng: np.random.Generator
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the page holds, and the key. All ids are random, and everything stands in the order of its id."""
    shots = sorted({shot for task in drawn for shot in task.shots}, key=lambda shot: (shot.head, shot.side))
    names = dict(zip(shots, _ids("p", len(shots), rng), strict=True))
    own = dict(zip(_ids("t", len(drawn), rng), drawn, strict=True))
    asked = [_asked(name, own[name], names) for name in sorted(own)]
    encoded = {
        names[shot]: pictures.encode(tasks.picture(found, shot), "jpg", QUALITY)
        for shot in sorted(shots, key=names.__getitem__)
    }
    images = {name: base64.b64encode(data).decode() for name, data in encoded.items()}
    content: dict[str, Any] = {"tasks": asked, "pictures": images}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    content["page"] = f"{q.VERSION}-{digest[:16]}"
    key = {"format": FORMAT, "version": q.VERSION, "page": content["page"]}
    return content, key | {"tasks": {name: _truth(own[name]) for name in sorted(own)}}


def _ids(prefix: str, number: int, rng: np.random.Generator) -> list[str]:
    """Different random names."""
    return [f"{prefix}{value:08x}" for value in rng.choice(1 << 32, number, replace=False)]


def _asked(name: str, task: tasks.Task, names: dict[tasks.Shot, str]) -> dict[str, Any]:
    word = {"word": task.word} if task.word else {}
    return {"id": name, "kind": task.kind, "pictures": sorted(names[shot] for shot in task.shots), **word}


def _truth(task: tasks.Task) -> dict[str, Any]:
    return {name: getattr(task, name) for name in ("kind", "truth", "condition", "alike", "check")}


def page(content: dict[str, Any], language: str, contact: str) -> bytes:
    """The page, UTF-8: everything in one file; it may load nothing and run nothing but its own script."""
    own = resources.files(__package__)
    text = {
        name: (own / name).read_text(encoding="utf-8") for name in ("page.css", "page.js", "page.html.j2")
    }
    data = content | {
        "language": language,
        "contact": contact,
        "texts": json.loads((own / "texts.json").read_text(encoding="utf-8")),
        "columns": q.COLUMNS,
        "questions": {kind: asdict(question) for kind, question in q.QUESTIONS.items()},
    }
    embedded = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        text["page.html.j2"]
    )
    hashes = {name: _hash(text[name]) for name in ("page.css", "page.js")}
    made = template.render(
        language=language,
        title=data["texts"][language]["title"],
        css=text["page.css"],
        js=text["page.js"],
        css_hash=hashes["page.css"],
        js_hash=hashes["page.js"],
        data=embedded,
    )
    return made.encode()


def _hash(text: str) -> str:
    """As a Content Security Policy names what may run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
