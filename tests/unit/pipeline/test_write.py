from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from deid import config, records
from deid.interfaces import Face
from deid.pipeline import rows
from deid.pipeline.rows import Row
from deid.pipeline.write import WriteUnit
from deid.privacy import manifest

SETTINGS = config.parse({"input": {"uri": "raw"}, "output": {"uri": "out"}, "state": "state"})


def face(status: str, anonymizer: str, failure: str = "") -> Face:
    box, points = np.array([0, 0, 30, 40], np.float32), np.zeros((5, 2), np.float32)
    gate = "passed" if status == "replaced" else "unchecked"
    return Face(box, 0.9, points, anonymizer=anonymizer, failure=failure, k=5, status=status, gate=gate)


def row(position: int, *faces: Face) -> Row:
    made = Row(0, position, position, b"", "jpg", faces=list(faces))
    made.result, made.result_extension = b"encoded", "jpg"
    return made


def test_rungs_are_counted_from_the_rows_to_the_manifest(tmp_path: Path) -> None:
    items = [
        row(0, face("replaced", "surrogate"), face("replaced", "simple", "too_small")),
        row(1, face("replaced", "ksame-pixel", "mesh_failed"), face("covered", "solid", "generate_failed")),
        row(2, face("replaced", "surrogate")),
    ]
    commits = WriteUnit(str(tmp_path), b"s" * 32, 3, 8)(rows.to_table(items))
    assert commits.schema == records.COMMIT
    sums = manifest.counts(commits, 3, 0)
    assert (sums["faces"], sums["replaced"], sums["covered"]) == (5, 4, 1)
    made = manifest.build(SETTINGS, "run", commits, sums, {}, {})
    assert made["anonymizers"] == {"surrogate": 2, "simple": 1, "ksame-pixel": 1, "solid": 1}
    audit = pq.read_table(tmp_path / commits["audit"][0].as_py())
    assert audit.schema.metadata[b"deid.audit.version"] == records.AUDIT_VERSION.encode()
    assert sorted(audit["anonymizer"].to_pylist()) == [
        "ksame-pixel",
        "simple",
        "solid",
        "surrogate",
        "surrogate",
    ]


@pytest.mark.parametrize("anonymizer", ["", "hope"])
def test_a_face_that_nothing_stands_for_is_not_written(tmp_path: Path, anonymizer: str) -> None:
    writer = WriteUnit(str(tmp_path), b"s" * 32, 1, 8)
    with pytest.raises(RuntimeError, match="without a result"):
        writer(rows.to_table([row(0, face("replaced", anonymizer))]))
    assert not list(tmp_path.rglob("*.tar"))
