"""An evaluation for `ray job submit -- python jobs/evaluate.py CONFIG`; exits with a documented code."""

import argparse
import json
import sys

from deid import log
from deid.errors import DeidError
from deid.evaluation import run, settings


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what an evaluation's configuration names.")
    parser.add_argument("config", help="YAML of an evaluation; see configs/evaluate.yaml")
    arguments = parser.parse_args()
    log.setup()
    try:
        made = run.run(settings.load(arguments.config))
    except DeidError as error:
        print(f"deid: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps({"output": made.output, "met": made.verdict.holds, "seconds": round(made.seconds)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
