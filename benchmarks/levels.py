"""The generator's time by the side of its pictures: python -m benchmarks.levels

One face at a time, as the job draws them on a CPU; the sides take turns, so that other load meets all of them alike.
Seconds of the clock and of the processor, medians over the rounds: on a busy machine compare the latter.
"""

import argparse
import time
from typing import Any

import numpy as np

from benchmarks import common
from deid.gallery import store as gallery_store
from deid.models.image_heads import LEVELS
from deid.models.store import default_store
from deid.surrogates.generator import MobileStyleGANGenerator

ROUNDS = 15


def measure(threads: int, rounds: int = ROUNDS) -> dict[str, dict[str, float]]:
    """By level (px, as text): milliseconds a face of the clock and of the processor, and the share of 1024 px."""
    generator = MobileStyleGANGenerator(default_store().files("mobilestylegan"), threads=threads)
    styles = gallery_store.load(None).styles
    seconds: dict[int, list[tuple[float, float]]] = {level: [] for level in LEVELS}
    for number in range(rounds + 2):
        for level, taken in seconds.items():
            begun = time.perf_counter(), time.process_time()
            generator.generate(styles[number : number + 1], level)
            taken.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
    medians = {level: 1000 * np.median(taken[2:], axis=0) for level, taken in seconds.items()}
    last = medians[LEVELS[-1]]
    return {
        str(level): {"ms": float(ms[0]), "processor_ms": float(ms[1]), "of_last": float(ms[1] / last[1])}
        for level, ms in medians.items()
    }


def markdown(figures: dict[str, dict[str, float]], threads: int) -> str:
    lines = [
        f"| generator, side in px ({threads} threads) | ms a face | processor ms a face | of {LEVELS[-1]} px |",
        "|---|---|---|---|",
    ]
    for level, of in figures.items():
        lines.append(f"| {level} | {of['ms']:.0f} | {of['processor_ms']:.0f} | {of['of_last']:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    machine: dict[str, Any] = common.machine()
    print(f"{machine['cores']} cores, load average before: {machine['load_average_before']}", end="\n\n")
    print(markdown(measure(options.threads, options.rounds), options.threads))


if __name__ == "__main__":
    main()
