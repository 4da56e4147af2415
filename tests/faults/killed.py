"""The job, killed (SIGKILL) at a call of a function: `python -m tests.faults.killed CONFIG MODULE FUNCTION N after`.

FUNCTION may be a method (`Class.method`). The process ends at the N-th call, before it or after it.
"""

import functools
import importlib
import os
import signal
import sys
from typing import Any

from jobs import anonymize


def main() -> int:
    config, module, name, number, when = sys.argv[1:]
    owner: Any = importlib.import_module(module)
    *classes, function = name.split(".")
    for each in classes:
        owner = getattr(owner, each)
    original, calls = getattr(owner, function), iter(range(1, 1 << 30))

    @functools.wraps(original)
    def fatal(*args: Any, **kwargs: Any) -> Any:
        last = next(calls) == int(number)
        if last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        made = original(*args, **kwargs)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return made

    setattr(owner, function, fatal)
    sys.argv = [sys.argv[0], config]
    return anonymize.main()


if __name__ == "__main__":
    sys.exit(main())
