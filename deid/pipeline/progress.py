"""How far a run is, for `deid status`: `<run>.progress.json` below `state`, in the clear, with counts and codes alone.

A thread writes it every `interval_s` while the run goes on, so that a file that grows old means a run that is gone,
and storage that does not answer delays and ends nothing.
"""

import collections
import datetime
import threading
import time
from collections.abc import Mapping
from typing import Literal

import pydantic
from pydantic import BaseModel, ConfigDict

from deid import log as logs
from deid import records
from deid.errors import DeidError, InputError
from deid.shards import storage

INTERVAL_S = 10.0
WINDOW_S = 300.0  # over which the rate is taken, seconds
LAST_WRITE_S = 30.0  # how long the end of a run waits for the last write
OTHER = "other"  # in the place of a reason that is no code of `records.QUARANTINE`

State = Literal["running", "done", "failed", "open"]  # open: it was stopped, and the same command goes on

log = logs.logger(__name__)


class Counts(BaseModel):
    """What has been counted in the phase; each number only grows."""

    model_config = ConfigDict(extra="ignore")

    units_done: int = 0
    units_failed: int = 0
    pictures_in: int = 0
    pictures_out: int = 0
    pictures_quarantined: int = 0
    pictures_dropped: int = 0
    faces: int = 0


class Progress(BaseModel):
    """What the file says. Times are unix seconds of the driver's clock."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    run: str
    state: State
    phase: str  # a name from the code; "" before the first
    units_total: int  # of the phase
    counts: Counts  # of the phase
    quarantine: dict[str, int]  # pictures by code of `records.QUARANTINE`, of the phase
    started: float
    updated: float
    interval_s: float  # seconds between two writes
    rate: float | None  # pictures a second, over the last `WINDOW_S`; None: not known yet
    eta: float | None  # when the phase ends if it goes on like this; None: not known


def place(state: str, run: str) -> str:
    """Where a run's file is, below the state folder."""
    return storage.join(state, f"{run}.progress.json")


class Writer:
    """Counts, and a thread that writes them; every method may be called from any thread, and none raises or waits for
    storage, but for `finish`, which waits `LAST_WRITE_S` at most."""

    def __init__(self, state: str, run: str, interval_s: float = INTERVAL_S) -> None:
        self._place, self._run, self._interval_s = place(state, run), run, interval_s
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._started, self._state = time.time(), "running"
        self._failing = False
        self.phase("", 0)
        self._thread = threading.Thread(target=self._write_on, name="progress", daemon=True)
        self._thread.start()

    def phase(self, name: str, units: int) -> None:
        """A phase of so many units begins; counts begin at nought."""
        with self._lock:
            self._phase, self._total, self._counts = name, units, Counts()
            self._reasons: collections.Counter[str] = collections.Counter()
            self._begun = time.monotonic()
            self._steps: collections.deque[tuple[float, int, int]] = collections.deque()
            self._fresh = [0, 0]  # units and pictures of this process

    def add(
        self,
        units: int = 1,
        failed: int = 0,
        pictures_in: int = 0,
        pictures_out: int = 0,
        quarantined: int = 0,
        dropped: int = 0,
        faces: int = 0,
        reasons: Mapping[str, int] | None = None,
        fresh: bool = True,
    ) -> None:
        """Units that ended, with what was in them.

        Args:
            units: that are done.
            failed: units that failed and are not done.
            reasons: pictures by code of `records.QUARANTINE`.
            fresh: done now; False: found done by an earlier process, which says nothing of the rate.
        """
        with self._lock:
            counts = self._counts
            counts.units_done += units
            counts.units_failed += failed
            counts.pictures_in += pictures_in
            counts.pictures_out += pictures_out
            counts.pictures_quarantined += quarantined
            counts.pictures_dropped += dropped
            counts.faces += faces
            for reason, pictures in (reasons or {}).items():
                self._reasons[reason if reason in records.QUARANTINE else OTHER] += pictures
            if fresh:
                self._fresh = [self._fresh[0] + units, self._fresh[1] + pictures_in]
                self._steps.append((time.monotonic(), units, pictures_in))

    def publish(self, units: int, sums: Mapping[str, int], reasons: Mapping[str, int]) -> None:
        """The last phase, in which the counts of the whole run are known, as its manifest has them."""
        self.phase("publish", units)
        self.add(
            units,
            pictures_in=sums["pictures_in"],
            pictures_out=sums["pictures_out"],
            quarantined=sums["pictures_quarantined"],
            dropped=sums["pictures_dropped"],
            faces=sums["faces"],
            reasons=reasons,
            fresh=False,
        )

    def finish(self, state: State) -> None:
        """The run has ended; written before this returns, if storage answers in time."""
        with self._lock:
            self._state = state
        self._stop.set()
        self._thread.join(LAST_WRITE_S)
        if self._thread.is_alive():
            log.warning("the end of the run could not be noted for deid status: storage does not answer")

    def now(self) -> Progress:
        """What would be written at this moment."""
        with self._lock:
            units, pictures, seconds = self._pace()
            left = self._total - self._counts.units_done - self._counts.units_failed
            known, running = units > 0 and seconds > 0, self._state == "running"
            return Progress(
                run=self._run,
                state=self._state,
                phase=self._phase,
                units_total=self._total,
                counts=self._counts.model_copy(),
                quarantine=dict(sorted(self._reasons.items())),
                started=self._started,
                updated=time.time(),
                interval_s=self._interval_s,
                rate=pictures / seconds if known else None,
                eta=time.time() + max(0, left) * seconds / units if known and running else None,
            )

    def _pace(self) -> tuple[int, int, float]:
        """Units, pictures and seconds of the window, or of the whole phase while fewer than two units ended in it."""
        now = time.monotonic()
        while self._steps and self._steps[0][0] < now - WINDOW_S:
            self._steps.popleft()
        units = sum(step[1] for step in self._steps)
        if units < 2:
            return self._fresh[0], self._fresh[1], now - self._begun
        return units, sum(step[2] for step in self._steps), min(WINDOW_S, now - self._begun)

    def _write_on(self) -> None:
        ended = False
        while not ended:
            ended = self._stop.is_set()  # before the write, so that one comes after it is set
            self._write()
            self._stop.wait(0 if ended else self._interval_s)

    def _write(self) -> None:
        try:
            storage.write_bytes(self._place, self.now().model_dump_json(indent=2).encode(), overwrite=True)
            self._failing = False
        except DeidError as error:
            if not self._failing:
                log.warning("progress cannot be written (%s); the run goes on", type(error).__name__)
            self._failing = True


def runs(state: str) -> list[Progress]:
    """What every run has left below the state folder."""
    return [read(file.uri) for file in storage.list_files(state, "*.progress.json")]


def read(uri: str) -> Progress:
    """What the file at `uri` (see `place`) says.

    Raises:
        InputError: there is none, or it is damaged.
    """
    if not storage.exists(uri):
        raise InputError("no progress of such a run below state; check the run's id and the state folder")
    try:
        return Progress.model_validate_json(storage.read_bytes(uri))
    except pydantic.ValidationError:
        raise InputError("the run's progress file is damaged; a run that goes on writes it again") from None


def describe(progress: Progress, now: float | None = None) -> dict[str, str]:
    """What to print, label by label.

    Args:
        now: unix seconds; None: this moment.
    """
    now, counts = time.time() if now is None else now, progress.counts
    left = progress.units_total - counts.units_done - counts.units_failed
    silent = progress.state == "running" and now - progress.updated > 3 * progress.interval_s
    said = {
        "run": progress.run,
        "state": f"no sign of life since {_time(progress.updated)}" if silent else progress.state,
        "phase": progress.phase or "planning",
        "units": f"{counts.units_done} of {progress.units_total} done, {max(0, left)} open, "
        f"{counts.units_failed} failed",
        "pictures": f"{counts.pictures_in} in, {counts.pictures_out} out, {counts.pictures_quarantined} quarantined, "
        f"{counts.pictures_dropped} dropped",
        "faces": f"{counts.faces}",
        "quarantine": ", ".join(f"{reason} {n}" for reason, n in progress.quarantine.items()) or "nothing",
        "started": _time(progress.started),
        "updated": _time(progress.updated),
    }
    if progress.rate is not None:
        said["rate"] = f"{progress.rate:.2f} pictures a second"
    if progress.eta is not None and not silent:
        said["expected end"] = f"{_time(progress.eta)} (of this phase)"
    return said


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
