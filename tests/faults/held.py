"""Holds the lease of a configuration's state until it is killed, and says `held` once it does."""

import sys
import time

from deid import config
from deid.pipeline import lease

with lease.hold(config.load(sys.argv[1]).state, "another"):
    sys.stdout.write("held\n")
    sys.stdout.flush()
    time.sleep(600)
