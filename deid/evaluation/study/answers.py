"""The key of a study and the files that its page saved, checked and joined."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deid.errors import InputError
from deid.evaluation.study import questions as q
from deid.evaluation.study.make import FORMAT


@dataclass(frozen=True)
class Truth:
    """What the key says of a task; see `tasks.Task`."""

    kind: str
    truth: str
    condition: str
    alike: bool
    check: bool


@dataclass(frozen=True)
class Key:
    page: str
    tasks: dict[str, Truth]

    def chosen(self, kind: str, condition: str | None = None, truth: str | None = None) -> list[str]:
        """Ids of the tasks of a kind, checks left out; of one condition, or with one right answer."""
        return [
            name
            for name, task in self.tasks.items()
            if task.kind == kind
            and not task.check
            and condition in (None, task.condition)
            and truth in (None, task.truth)
        ]


@dataclass(frozen=True)
class Given:
    answer: str
    milliseconds: int
    language: str


@dataclass
class Answers:
    """By participant and task, of those who count."""

    key: Key
    given: dict[str, dict[str, Given]]
    dropped: list[str] = field(default_factory=list)  # participants

    @property
    def participants(self) -> list[str]:
        return list(self.given)

    def matrix(self, tasks: Sequence[str]) -> NDArray[np.str_]:
        """Answers [P, T]; "" where there is none."""
        rows = [[row[task].answer if task in row else "" for task in tasks] for row in self.given.values()]
        return np.array(rows, dtype=np.str_).reshape(len(self.given), len(tasks))

    def seconds(self, tasks: Sequence[str]) -> float:
        """Median time of an answer to these tasks; NaN without any."""
        times = [row[task].milliseconds for row in self.given.values() for task in tasks if task in row]
        return float(np.median(times)) / 1000 if times else float("nan")


def load_key(path: str | Path) -> Key:
    """The key of a study.

    Raises:
        InputError: the file cannot be read, or is no key of this version.
    """
    try:
        raw = json.loads(Path(path).read_text(encoding="utf-8"))
        if raw["format"] != FORMAT or raw["version"] != q.VERSION:
            raise ValueError
        return Key(raw["page"], {name: Truth(**task) for name, task in raw["tasks"].items()})
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: is no study key of version {q.VERSION}; see deid study make") from None


def load(key: Key, paths: Sequence[str | Path]) -> Answers:
    """Answers of all files; participants who failed the attention checks are left out and named.

    Raises:
        InputError: a file cannot be read, or is not of this page, or has a participant who was there before, an unknown
            task or an unknown answer.
    """
    given: dict[str, dict[str, Given]] = {}
    came_from: dict[str, str] = {}
    for path in map(str, paths):
        for line, row in enumerate(_rows(path), 2):
            who = row["participant"]
            if came_from.setdefault(who, path) != path:
                raise InputError(f"{path}: participant {who} is in {came_from[who]} already")
            _add(given.setdefault(who, {}), key, row, f"{path}: line {line}")
    if not given:
        raise InputError("no answers in the files given")
    kept = {who: answers for who, answers in given.items() if wrong_checks(key, answers) <= q.WRONG_CHECKS}
    return Answers(key, kept, [who for who in given if who not in kept])


def wrong_checks(key: Key, answers: dict[str, Given]) -> int:
    """Attention checks that were answered wrongly, or not at all."""
    checks = {name: task.truth for name, task in key.tasks.items() if task.check}
    return sum(name not in answers or answers[name].answer != truth for name, truth in checks.items())


def _rows(path: str) -> list[dict[str, str]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in q.COLUMNS if name not in (reader.fieldnames or [])]
            if missing:
                raise InputError(f"{path}: no answers of a study page: it lacks {_columns(missing)}")
            return [{name: row[name] or "" for name in q.COLUMNS} for row in reader]
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"{path}: is no CSV in UTF-8") from None


def _columns(names: Sequence[str]) -> str:
    return f"the column{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _add(own: dict[str, Given], key: Key, row: dict[str, str], where: str) -> None:
    name, answer = row["task"], row["answer"]
    if row["page"] != key.page:
        raise InputError(f"{where}: answers of page {row['page']!r}, but the key is of page {key.page!r}")
    if name not in key.tasks:
        raise InputError(f"{where}: task {name!r} is unknown to the key")
    if row["kind"] != key.tasks[name].kind or answer not in q.QUESTIONS[row["kind"]].options:
        raise InputError(f"{where}: {answer!r} is no answer to a question of kind {row['kind']!r}")
    if name in own:
        raise InputError(f"{where}: task {name} is answered twice by participant {row['participant']}")
    if not row["milliseconds"].isdecimal():
        raise InputError(f"{where}: milliseconds are not a number")
    own[name] = Given(answer, int(row["milliseconds"]), row["language"])
