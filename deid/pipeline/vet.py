"""Between the passes: the surrogates of the assignment are looked at before anybody gets them."""

import functools

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deid.config import Config
from deid.faces.align import EXPRESSION
from deid.faces.segment import HAIR
from deid.interfaces import Face
from deid.pipeline.guard import attempt
from deid.pipeline.shield import shielded
from deid.pipeline.stages import TRIAL_SIDE, Generate
from deid.surrogates import mimic
from deid.surrogates.steering import HIDDEN, Style

ASKED = pa.schema(
    [
        ("number", pa.int64()),
        ("draws", pa.list_(pa.list_(pa.int32()))),  # gallery identities
        ("sex", pa.int8()),
        ("age", pa.float32()),
        ("looks", pa.list_(pa.float32())),
    ]
)
VETTED = pa.schema([("number", pa.int64()), ("draw", pa.int32())])
CUT = 0.02  # share of the upper border that may be hair: a head that ends there does not look like one elsewhere
SMILE = {"smile": 0.0352, "mouth_width": 0.43}  # of a smiling face


class Vet:
    """Takes the draws of surrogates (`ASKED`), and says of each which is fit to be seen: the first whose face nothing
    covers and whose head ends in the picture, neutral and smiling; else the one that comes nearest to it."""

    @shielded("vet")
    def __init__(self, config: Config, run: str = "") -> None:
        self.run, self.generate = run, Generate(config, b"nothing is drawn here", run)
        if self.generate.segmenter is None:
            raise ValueError("without the head segmenter there is nothing to look at")
        self.segmenter = self.generate.segmenter
        middle = np.array([centre for centre, _ in mimic.LEVELS.values()], np.float32)
        smiling = np.array([SMILE.get(name, value) for name, value in zip(EXPRESSION, middle, strict=True)])
        self.expressions = (middle, smiling.astype(np.float32))

    @shielded("vet")
    def __call__(self, table: pa.Table) -> pa.Table:
        chosen = [self.best(**row) for row in table.drop_columns(["number"]).to_pylist()]
        return pa.table([table["number"], pa.array(chosen, pa.int32())], schema=VETTED)

    def best(self, draws: list[list[int]], sex: int, age: float, looks: list[float]) -> int:
        faults = []
        if self.generate.direct is not None:
            return 0  # its identities were looked at when the gallery was built
        for identities in draws:
            if not identities:
                return 0  # nothing lies beyond the margin, in no draw
            faults.append(self.fault(np.array(identities, np.int64), sex, age, np.array(looks, np.float32)))
            if faults[-1] == 0:
                break
        return int(np.argmin(faults))

    def fault(self, identities: NDArray[np.int64], sex: int, age: float, looks: NDArray[np.float32]) -> float:
        """How much of the face is covered, and how much of the head cut off, beyond what may be; infinite without
        a face."""
        generate, worst = self.generate, 0.0
        blended = generate.blended(identities)
        for expression in self.expressions:
            mesh = (generate.mean_mesh * TRIAL_SIDE).astype(np.float32)
            face = Face(np.zeros(4, np.float32), 1.0, np.zeros((5, 2), np.float32), mesh, 1.0, looks=looks)
            face.wanted = expression
            male = float("nan") if sex < 0 else float(sex)
            style, _ = generate.steering.follow(blended, face, generate.seen, male, age)
            found = attempt("trial", functools.partial(self.seen, style))
            worst = max(worst, np.inf if found is None else found)
        return worst

    def seen(self, style: Style) -> float:
        """The fault of one trial rendering.

        Raises:
            FaceError: it shows no face.
        """
        hidden = self.generate.trial(style).hidden
        picture = self.generate.generator.generate(style[None], side=TRIAL_SIDE)[0]
        cut = float(self.segmenter.parts([picture])[0][:2, :, HAIR].mean()) / 255
        return max(0.0, hidden - HIDDEN) + max(0.0, cut - CUT)
