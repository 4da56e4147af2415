"""The main job for `ray job submit -- python jobs/anonymize.py CONFIG`: parse, call, exit with a documented code."""

import argparse
import json
import sys

from deid import config as configuration
from deid import log
from deid.errors import DeidError
from deid.pipeline import run


def main() -> int:
    parser = argparse.ArgumentParser(description="De-identify the shards that a configuration names.")
    parser.add_argument("config", help="YAML configuration; see configs/")
    arguments = parser.parse_args()
    log.setup()
    try:
        config = configuration.load(arguments.config)
        log.set_debug(config, False)
        result = run.run(config)
    except DeidError as error:
        print(f"deid: {error}", file=sys.stderr)
        return error.exit_code
    told = {name: getattr(result, name) for name in ("run", "output", "public_key", "quarantine")}
    print(json.dumps(told | result.manifest["counts"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
