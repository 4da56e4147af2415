"""What the driver does as units are done: keep the lease, say how far it is, and stop a run that goes wrong."""

import collections
import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deid.config import Config
from deid.errors import PromiseError
from deid.pipeline.lease import Held
from deid.pipeline.plan import Plan, by_name
from deid.pipeline.progress import Writer
from deid.shards.readers import FORMATS

FEW = 500  # pictures; of fewer, nothing is concluded for the rest
REPAIR = "repair"  # the phase in which units are made once more, which are no random draw
SURE = 4.0  # standard errors


class Watch:
    """Gets what each pass has done.

    Raises (at each call):
        PromiseError: more is lost than `limits.max_quarantine_fraction` allows, or will be: what was seen tells of what
            was not, as far as it was drawn at random. Windows are random draws of shards, and units of the pictures
            of a window, or where groups of them are read at once, groups are. Of video nothing is concluded: its
            units follow one another.
        lease.Lost: this run may no longer write.
    """

    def __init__(self, config: Config, plan: Plan, held: Held, progress: Writer) -> None:
        self.most, self.plan, self.held, self.progress = config.limits, plan, held, progress
        self.ranged, self.drawn = FORMATS[config.input.format].RANGED, not config.video
        self.shards = plan.windows["shards"].to_numpy()
        self.reasons = collections.Counter(plan.reasons())

    def begin(self, phase: str, units: int) -> None:
        """A pass over so many units begins."""
        self.sums: collections.Counter[str] = collections.Counter()
        self.windows, self.groups = np.zeros(len(self.shards), bool), np.zeros(self.plan.count, bool)
        self.progress.phase(phase, units)
        if phase != REPAIR:
            self.reasons, refused = collections.Counter(self.plan.reasons()), self.plan.refused
            self.progress.add(0, pictures_in=refused, quarantined=refused, reasons=self.reasons, fresh=False)

    def __call__(self, table: pa.Table, phase: str, fresh: bool = True) -> None:
        self.held.check()
        names = [field.name for field in table.schema if pa.types.is_int64(field.type)]
        new = {name: int(pc.sum(table[name]).as_py() or 0) for name in names}
        self.sums.update(new)
        windows, groups = self.plan.places(table["unit"])
        self.windows[windows], self.groups[groups] = True, True
        if phase != "index":
            reasons = by_name(table["reasons"], "pictures")
            self.progress.add(
                len(table),
                pictures_in=new["pictures_in"],
                pictures_out=new["pictures_out"],
                quarantined=new["pictures_quarantined"],
                dropped=new["pictures_dropped"],
                faces=new["faces"],
                reasons=reasons,
                fresh=fresh,
            )
            if phase == REPAIR:  # its pictures were counted before; the counts are checked at the end
                return
            self.reasons.update(reasons)
            seen = self.sums["pictures_in"]
            self.check(seen, seen - self.sums["pictures_out"])
        else:
            self.progress.add(len(table), pictures_in=new["pictures"], faces=new["faces"], fresh=fresh)
            self.check(self.sums["pictures"], self.sums["pictures"] - self.sums["sound"])

    def draws(self, seen: int) -> int:
        """As how many random draws from the whole source the pictures seen count at least."""
        shards = seen if len(self.shards) == 1 else int(self.shards[self.windows].sum())
        return min(seen, shards, seen if self.ranged else int(self.groups.sum()))

    def check(self, seen: int, lost: int) -> None:
        """Of `seen` pictures of units, so many are `lost`."""
        plan, allowed = self.plan, self.most.max_quarantine_fraction
        damaged, most = self.reasons["shard_damaged"], self.most.max_damaged_shards
        if most is not None and damaged > most:
            raise PromiseError(f"{damaged} shards are damaged, limits.max_damaged_shards allows {most}")
        total = plan.pictures + plan.refused
        surely = plan.refused + lost
        if seen >= FEW and self.drawn:
            share, draws = lost / seen, self.draws(seen)
            low = share - SURE * math.sqrt(max(share * (1 - share), 1 / draws) / draws)
            surely = max(surely, plan.refused + int(low * plan.pictures))
        if surely > allowed * total:
            named = ", ".join(f"{reason} {times}" for reason, times in sorted(self.reasons.items()))
            raise PromiseError(
                f"stopped: {lost} of {seen} pictures seen and {plan.refused} entries of the shards are in quarantine "
                f"or were dropped ({named or 'while looking for faces'}), more than limits.max_quarantine_fraction "
                f"allows for all {total}"
            )
