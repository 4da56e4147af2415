"""The tasks of a study, drawn at random from heads so that no two kinds of question show the same person.

Were a picture asked about as "real or generated?" and again in a task that only shows de-identified pictures, the page
would tell its readers what it is.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from deid.errors import InputError
from deid.evaluation.study import questions as q
from deid.evaluation.study.heads import Head
from deid.interfaces import Picture

Side = Literal["source", "result", "upside"]  # upside: the result, upside down


@dataclass(frozen=True)
class Shot:
    """A picture of a task: which head, and which side of it."""

    head: int
    side: Side


@dataclass(frozen=True)
class Task:
    kind: str  # of `questions.QUESTIONS`
    shots: tuple[Shot, ...]
    truth: str  # an option; "" where it is not known
    condition: str = ""  # of "same": see `questions.CONDITIONS`
    alike: bool = True  # of two people: same sex and age band
    check: bool = False
    word: str = ""  # that a participant shall press


@dataclass
class Pools:
    """Heads by the questions that show them; of `same` by person, at least two pictures each."""

    real: list[int] = field(default_factory=list)
    same: list[list[int]] = field(default_factory=list)
    faces: list[int] = field(default_factory=list)


def draw(heads: Sequence[Head], number: int, synthetic_only: bool, rng: np.random.Generator) -> list[Task]:
    """At most `number` tasks beside the checks; fewer of a kind where there are not enough people.

    Raises:
        InputError: too few people for any study.
    """
    pools = share_out(heads, synthetic_only, rng)
    kinds = [kind for kind in q.ASKED if (pools.faces if kind in q.ABOUT_FACES else getattr(pools, kind))]
    wanted = portions(kinds, number)
    made: list[Task] = []
    for kind in kinds:
        if kind == "real":
            made += _real(pools.real, wanted[kind])
        elif kind == "same":
            made += list(_same(pools.same, heads, rng))[: wanted[kind]]
        else:
            drawn = rng.permutation(pools.faces).tolist()
            chosen = sorted(drawn, key=lambda n: not heads[n].known[kind])[: wanted[kind]]  # labelled first
            made += [Task(kind, (Shot(n, "result"),), heads[n].known[kind]) for n in chosen]
    return made + checks(pools.faces, rng)


def portions(kinds: Sequence[str], number: int) -> dict[str, int]:
    """Tasks of each kind by its share, at least one; together `number`, or one each."""
    whole = sum(q.ASKED[kind].share for kind in kinds)
    wanted = dict.fromkeys(kinds, 1)
    for _ in range(number - len(kinds)):
        wanted[max(kinds, key=lambda kind: number * q.ASKED[kind].share / whole - wanted[kind])] += 1
    return wanted


def share_out(heads: Sequence[Head], synthetic_only: bool, rng: np.random.Generator) -> Pools:
    """Every person to one pool, in proportion to the tasks."""
    people: dict[str, list[int]] = {}
    for number, head in enumerate(heads):
        people.setdefault(head.label.person, []).append(number)
    shuffled = [list(people.values())[n] for n in rng.permutation(len(people))]
    if synthetic_only and shuffled:
        return Pools(faces=_flat(shuffled))
    if len(shuffled) < 3:
        raise InputError(f"{len(shuffled)} people with a face that can be shown: a study needs 3 or more")
    twice = [n for n, some in enumerate(shuffled) if len({heads[h].number for h in some}) > 1]
    chosen = twice[: max(1, round(q.ASKED["same"].share * len(shuffled)))]
    rest = [some for n, some in enumerate(shuffled) if n not in chosen]
    if len(rest) < 2:
        chosen, rest = [], shuffled
    about = sum(q.ASKED[kind].share for kind in q.ABOUT_FACES)
    cut = round(len(rest) * q.ASKED["real"].share / (q.ASKED["real"].share + about))
    cut = min(max(cut, 1), len(rest) - 1)
    return Pools(_flat(rest[:cut]), [shuffled[n] for n in chosen], _flat(rest[cut:]))


def _flat(lists: Sequence[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(lists))


def _real(pool: Sequence[int], number: int) -> list[Task]:
    """Half of them sources, each of another photograph."""
    sides: tuple[tuple[Side, str], ...] = (("source", "real"), ("result", "generated"))
    turns = [(head, *sides[place % 2]) for place, head in enumerate(pool[:number])]
    return [Task("real", (Shot(head, side),), truth) for head, side, truth in turns]


def _same(people: Sequence[list[int]], heads: Sequence[Head], rng: np.random.Generator) -> Iterator[Task]:
    """Each person first in one condition, then round by round in the others."""
    conditions = list(q.CONDITIONS) if len(people) > 1 else [q.CONTROL, q.HIDDEN]
    for turn in range(len(conditions)):
        for number, own in enumerate(people):
            condition = conditions[(number + turn) % len(conditions)]
            first = int(rng.choice(own))
            mates = [head for head in own if heads[head].number != heads[first].number]
            second, alike = int(rng.choice(mates)), True
            if condition in (q.DIFFERENT, q.STRANGER):
                others = [head for other in people if other is not own for head in other]
                second, alike = _double(first, others, heads, rng)
            side: Side = "source" if condition in (q.CONTROL, q.DIFFERENT) else "result"
            truth = "same" if condition in (q.CONTROL, q.HIDDEN) else "different"
            yield Task("same", (Shot(first, "source"), Shot(second, side)), truth, condition, alike)


def _double(
    first: int, others: Sequence[int], heads: Sequence[Head], rng: np.random.Generator
) -> tuple[int, bool]:
    """A head of somebody else, of the same sex and age band if there is one, and whether there was."""
    own = heads[first].known

    def alike(number: int) -> int:
        known = heads[number].known
        sex, age = (own[kind] != "" and known[kind] == own[kind] for kind in ("sex", "age"))
        return 2 * sex + age

    best = max(alike(number) for number in others)
    return int(rng.choice([number for number in others if alike(number) == best])), best == 3


def checks(pool: Sequence[int], rng: np.random.Generator) -> list[Task]:
    """Attention checks, of each kind two; their pictures are de-identified ones."""
    words = rng.permutation(q.CHECKS["press"].options)[: q.CHECKS_OF_EACH]
    chosen = [int(head) for head in rng.choice(pool, 2 * q.CHECKS_OF_EACH)]
    turned, twins = chosen[: q.CHECKS_OF_EACH], chosen[q.CHECKS_OF_EACH :]
    made = [Task("press", (), str(word), check=True, word=str(word)) for word in words]
    for place, head in enumerate(turned):
        side: Side = ("upside", "result")[place % 2]  # type: ignore[assignment]
        made.append(Task("upright", (Shot(head, side),), ("upside", "upright")[place % 2], check=True))
    return made + [Task("same", (Shot(h, "result"),) * 2, "same", check=True) for h in twins]


def picture(heads: Sequence[Head], shot: Shot) -> Picture:
    """Its pixels."""
    head = heads[shot.head]
    if shot.side == "source":
        return head.source
    return head.result if shot.side == "result" else np.ascontiguousarray(head.result[::-1, ::-1])
