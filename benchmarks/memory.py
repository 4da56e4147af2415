"""Peak memory of a process and all its descendants, as the sum of their proportional set sizes (PSS).

PSS counts a page that n processes share as 1/n in each (proc(5), smaps_rollup), so shared memory such as Ray's
object store is counted once; a sum of resident set sizes would count it in every process.
"""

import threading
import time
from dataclasses import dataclass, field
from types import TracebackType

import psutil


def pss(pid: int) -> int:
    """Bytes; 0 when the process is gone or cannot be read."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return 0


def tree(pid: int) -> list[int]:
    """The process and all its descendants that are alive."""
    try:
        root = psutil.Process(pid)
        return [root.pid, *(child.pid for child in root.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


@dataclass
class Peak:
    """Samples the tree below `pid` every `interval` seconds for the time of a block."""

    pid: int
    interval: float = 0.5
    bytes: int = 0
    processes: int = 0
    samples: int = 0
    cost: float = 0.0  # seconds spent sampling
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Peak":
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            begun = time.perf_counter()
            pids = tree(self.pid)
            total = sum(map(pss, pids))
            if total > self.bytes:
                self.bytes, self.processes = total, len(pids)
            self.samples += 1
            self.cost += time.perf_counter() - begun
            self._stop.wait(self.interval)
