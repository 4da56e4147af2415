"""A lease on a state folder, local or S3: one run at a time works there, and a run that is gone holds it no longer.

The lease is a row of generations, `lease/<generation>.json`. Each is created by a conditional write and never changed,
and the highest counts. To take, to renew and to release the lease is to create the next generation, which exactly one
of several contenders can; so a request that arrives late, when its sender has long given up, changes nothing.

Two never hold it at once as long as the clocks of the machines differ by at most `skew_s` at any moment, and a read
or a listing sees every write that was answered before (S3 and local disks do that): a holder stops when its own
clock reaches the end that it wrote, and another takes the lease when its own is `skew_s` later. What a holder began
before that end may still arrive: commits are conditional for that reason.
"""

import contextlib
import datetime
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from deid import log as logs
from deid.errors import DeidError, InputError, StorageError
from deid.shards import storage

FOLDER = "lease"
TTL_S = 60.0
SKEW_S = 5.0
_ROUNDS = 20  # tries to read or take a lease that others take and release meanwhile

log = logs.logger(__name__)


class Taken(StorageError):
    """Another run holds the lease."""


class Lost(StorageError):
    """The lease ran out, or another run has it."""


@dataclass(frozen=True)
class Entry:
    """One generation."""

    owner: str  # random, hex: one holding of the lease
    run: str  # id of the run
    expires: float  # unix seconds of the holder's clock; 0: released


class Held:
    """The lease while it is held. `lost` is set at its end if it could not be renewed, or when another has it."""

    def __init__(
        self, uri: str, run: str, ttl_s: float, skew_s: float, on_lost: Callable[[], None] | None
    ) -> None:
        self.lost = threading.Event()
        self._folder, self._run, self._owner = storage.join(uri, FOLDER), run, secrets.token_hex(16)
        self._ttl_s, self._skew_s, self._on_lost = ttl_s, skew_s, on_lost
        self._generation, self._expires = 0, 0.0
        self._stop, self._losing = threading.Event(), threading.Lock()
        self._renewing = threading.Thread(target=self._renew, name="lease-renew", daemon=True)
        self._watching = threading.Thread(target=self._watch, name="lease-watch", daemon=True)

    @property
    def valid(self) -> bool:
        """Whether this run may write."""
        return not self.lost.is_set() and time.time() < self._expires

    def check(self) -> None:
        """Raises Lost when this run may no longer write."""
        if not self.valid:
            raise Lost(
                "the lease on the state is lost: it was not renewed in time (storage did not answer, or this machine "
                "stood still), or another run has it; run the same command again"
            )

    def _take(self) -> None:
        """Take the lease and begin to renew it."""
        for _ in range(_ROUNDS):
            self._generation, entry = _highest(self._folder)
            if entry is not None and time.time() < entry.expires + self._skew_s:
                raise Taken(
                    f"another run holds the state until {_clock(entry.expires + self._skew_s)} UTC, and longer while "
                    "it goes on; wait for its end or, if it is gone, for that time"
                )
            # a listing that ran while others created and deleted may have missed what is higher
            if self._advance(time.time() + self._ttl_s) and not self._higher():
                self._renewing.start()
                self._watching.start()
                return
        raise Taken("several runs ask for the lease on the state at once; try again")

    def _advance(self, expires: float) -> bool:
        """Create the next generation; False: another has."""
        data = json.dumps(asdict(Entry(self._owner, self._run, expires))).encode()
        while True:
            following = self._generation + 1
            try:
                storage.write_bytes(_place(self._folder, following), data)
            except storage.AlreadyThere:
                entry = _read(self._folder, following)
                if entry is None or entry.owner != self._owner:
                    return False
                self._generation = following  # written by an attempt that seemed to have failed
            else:
                self._generation, self._expires = following, expires
                return True

    def _higher(self) -> bool:
        return any(found > self._generation for found in _generations(self._folder))

    def _sweep(self) -> None:
        """Delete generations that no longer count, but the last: no listing in progress is to find nothing."""
        for found in _generations(self._folder):
            if found < self._generation - 1:
                storage.delete(_place(self._folder, found))

    def _renew(self) -> None:
        pause = self._ttl_s / 3
        while not self._stop.wait(pause) and not self.lost.is_set():
            pause = self._ttl_s / 3
            try:
                if not self._advance(time.time() + self._ttl_s) or self._higher():
                    self._lose()
                    return
                self._sweep()
            except DeidError as error:
                pause = min(1.0, self._ttl_s / 10)
                log.warning("the lease was not renewed (%s); it is tried again", type(error).__name__)

    def _watch(self) -> None:
        """Notice the end in time, also while a renewal waits for storage."""
        while (left := self._expires - time.time()) > 0:
            if self._stop.wait(min(left, 1.0)):
                return
        self._lose()

    def _lose(self) -> None:
        with self._losing:
            if self.lost.is_set() or self._stop.is_set():
                return
            self.lost.set()
        log.error("the lease on the state is lost")
        if self._on_lost is not None:
            self._on_lost()

    def _release(self) -> None:
        """Let others have it at once; if that fails, they have it when it runs out."""
        self._stop.set()
        self._renewing.join(max(0.0, self._expires - time.time()))
        if self.lost.is_set() or self._renewing.is_alive():
            return
        try:
            if self._advance(0.0):
                self._sweep()
        except DeidError as error:
            log.warning("the lease was not released (%s); it runs out by itself", type(error).__name__)


@contextlib.contextmanager
def hold(
    uri: str,
    run: str,
    ttl_s: float = TTL_S,
    skew_s: float = SKEW_S,
    on_lost: Callable[[], None] | None = None,
) -> Iterator[Held]:
    """Hold the lease on the state folder `uri` for the time of the block.

    Args:
        run: id of the run, for whoever looks at the lease.
        ttl_s: seconds after which others may have it once it is not renewed; it is renewed every third of that.
        skew_s: how far clocks may differ, seconds.
        on_lost: called once, from a thread, when it is lost.

    Raises:
        Taken: another holds it.
        InputError: the lease's object is damaged, or the folder cannot be used.
        StorageError: storage did not answer.
    """
    held = Held(uri, run, ttl_s, skew_s, on_lost)
    held._take()
    try:
        yield held
    finally:
        held._release()


def holder(uri: str) -> Entry | None:
    """Who holds the lease on the state folder `uri`, or let it run out; None: nobody, or it was released."""
    entry = _highest(storage.join(uri, FOLDER))[1]
    return entry if entry is not None and entry.expires else None


def _place(folder: str, generation: int) -> str:
    return storage.join(folder, f"{generation:012d}.json")


def _generations(folder: str) -> list[int]:
    names = [file.uri.rpartition("/")[2] for file in storage.list_files(folder, "*.json")]
    return sorted(int(name.removesuffix(".json")) for name in names if name.removesuffix(".json").isdecimal())


def _highest(folder: str) -> tuple[int, Entry | None]:
    """The generation that counts and what it says; 0 and None where there is none."""
    for _ in range(_ROUNDS):
        found = _generations(folder)
        if not found:
            return 0, None
        entry = _read(folder, found[-1])
        if entry is not None:
            return found[-1], entry
    raise StorageError("the lease on the state changes faster than it can be read; try again")


def _read(folder: str, generation: int) -> Entry | None:
    """A generation; None: it is deleted."""
    place = _place(folder, generation)
    try:
        data = storage.read_bytes(place)
    except InputError:
        if storage.exists(place):
            raise
        return None
    try:
        value = json.loads(data)
        return Entry(str(value["owner"]), str(value["run"]), float(value["expires"]))
    except (ValueError, KeyError, TypeError):
        raise InputError(
            "the state's lease is damaged; when no run is going, delete the folder lease below state"
        ) from None


def _clock(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%H:%M:%S")
