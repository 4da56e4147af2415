"""CMC and ROC of the forward attack."""

from collections.abc import Callable

import numpy as np

from deid.evaluation import plots
from deid.evaluation.reid import Result
from deid.evaluation.sections import Plot, slug
from deid.evaluation.settings import Evaluation
from deid.evaluation.table import CLEAR, RANDOM_PAIRS
from deid.evaluation.verification import tar_at

RANKS = 20
Rows = dict[str, Result]


def forward(recognizer: str, rows: Rows, evaluation: Evaluation, valid: bool) -> list[Plot]:
    """CMC and ROC of the controls, the chosen treatment and the baselines."""
    wanted = (evaluation.favourite, CLEAR, RANDOM_PAIRS, *evaluation.chosen_baselines)
    shown = {name: rows[name] for name in dict.fromkeys(wanted) if name in rows}
    said = "" if valid else "The controls failed: this attack says nothing. "
    given = slug(recognizer), recognizer, shown, evaluation, said
    return [_cmc(*given), _roc(*given)]


def _cmc(id: str, recognizer: str, rows: Rows, evaluation: Evaluation, said: str) -> Plot:
    people = next(iter(rows.values())).subjects
    ranks = np.arange(1, min(RANKS, people) + 1)
    alt = said + _words(
        rows,
        evaluation,
        "finds the person at rank 1 in",
        lambda r: r.rank1.value,
        f"a guess in {1 / people:.3f}",
    )
    return plots.lines(
        f"privacy-cmc-{id}",
        f"CMC, enrolled clear, probed de-identified: {recognizer}",
        alt,
        {name: (ranks.tolist(), result.cmc[: len(ranks)].tolist()) for name, result in rows.items()},
        "rank (people on the attacker's list)",
        "share of probes with the person on the list",
        chance=[ranks.tolist(), (ranks / people).tolist()],
        limits=(-0.02, 1.02),
    )


def _roc(id: str, recognizer: str, rows: Rows, evaluation: Evaluation, said: str) -> Plot:
    pairs = max(1, max(r.impostors for n, r in rows.items() if n != RANDOM_PAIRS or len(rows) == 1))
    along = np.geomspace(min(1 / pairs, 0.1), 1, 80)
    series = {}
    for name, result in rows.items():
        if np.isfinite(result.far + result.tpr).all():
            up = [tar_at(result.far, result.tpr, far) for far in along]
            series[name] = (along.tolist(), up)
    alt = said + _words(rows, evaluation, "has an AUC of", lambda r: r.auc.value, "a guess .500")
    return plots.lines(
        f"privacy-roc-{id}",
        f"ROC, enrolled clear, probed de-identified: {recognizer}",
        alt,
        series,
        "FAR: share of other people's pairs accepted",
        "TAR: share of own pairs accepted",
        chance=[along.tolist(), along.tolist()],
        log_x=True,
        limits=(-0.02, 1.02),
    )


def _words(
    rows: Rows, evaluation: Evaluation, verb: str, figure: Callable[[Result], float], chance: str
) -> str:
    """The finding in a sentence or two."""
    own = rows.get(evaluation.favourite)
    parts = []
    if own is not None:
        parts.append(f"Of {evaluation.favourite}, the attack {verb} {_figure(figure(own))}")
    if CLEAR in rows:
        parts.append(f"of clear faces {_figure(figure(rows[CLEAR]))}")
    rest = [(figure(r), name) for name, r in rows.items() if name in evaluation.chosen_baselines]
    rest = [(value, name) for value, name in rest if np.isfinite(value) and name != evaluation.favourite]
    if rest:
        (low, best), (high, worst) = min(rest), max(rest)
        parts.append(f"of the baselines between {_figure(low)} ({best}) and {_figure(high)} ({worst})")
    return f"{'; '.join([*parts, chance])}."


def _figure(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "no figure"
