"""How wide the intervals of a human study are, by participants and tasks: made-up answers, scored as real ones are.

Participants and pictures differ as in face studies of this kind: the chance of a right answer varies by 0.1 (standard
deviation) between participants and by 0.15 between tasks around 0.6.

    python -m benchmarks.study
"""

import numpy as np
from rich.console import Console
from rich.table import Table

from deid.evaluation.study import questions as q
from deid.evaluation.study import rates

RATE, OF_PEOPLE, OF_TASKS = 0.6, 0.1, 0.15
PARTICIPANTS, TASKS, STUDIES = (5, 10, 20, 40, 80), (30, 60, 120), 40


def widths(participants: int, tasks: int, rng: np.random.Generator) -> tuple[float, float]:
    """Half of the 95 % interval of a share over so many tasks, its mean over studies; and how often it holds RATE."""
    half, holds = [], 0
    for _ in range(STUDIES):
        chance = RATE + rng.normal(0, OF_PEOPLE, (participants, 1)) + rng.normal(0, OF_TASKS, (1, tasks))
        hits = (rng.random((participants, tasks)) < chance) * 1.0
        found = rates.Resampler(participants, rng).share(hits)
        half.append((found.high - found.low) / 2)
        holds += found.low <= RATE <= found.high
    return float(np.mean(half)), holds / STUDIES


def main() -> None:
    rng, console = np.random.default_rng(0), Console(width=120)
    names = {
        "real or generated?": q.ASKED["real"].share,
        "one condition of same person?": q.ASKED["same"].share / 4,
    }
    for name, share in names.items():
        table = Table("participants", *(f"{n} tasks on the page" for n in TASKS), title=name)
        for participants in PARTICIPANTS:
            found = [widths(participants, round(share * n), rng) for n in TASKS]
            table.add_row(str(participants), *(f"± {half:.3f} (holds {held:.2f})" for half, held in found))
        console.print(table)


if __name__ == "__main__":
    main()
