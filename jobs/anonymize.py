"""The main job for `ray job submit -- python jobs/anonymize.py CONFIG`: parse, call, exit with a documented code."""

import argparse
import json
import logging
import sys

from deid import config as configuration
from deid.errors import DeidError
from deid.pipeline import run


def main() -> int:
    parser = argparse.ArgumentParser(description="De-identify the shards that a configuration names.")
    parser.add_argument("config", help="YAML configuration; see configs/")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        result = run.run(configuration.load(arguments.config))
    except DeidError as error:
        print(f"deid: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps({"run": result.run, "output": result.output, **result.manifest["counts"]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
