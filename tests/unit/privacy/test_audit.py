import io

import numpy as np
import pyarrow.parquet as pq
import pytest

from deid import records
from deid.interfaces import Face
from deid.privacy import audit, keys

SECRET = b"s" * 32


def face(status: str, anonymizer: str, failure: str = "", height: float = 50) -> Face:
    box = np.array([10, 10, 40, 10 + height], np.float32)
    return Face(
        box,
        0.9,
        np.zeros((5, 2), np.float32),
        anonymizer=anonymizer,
        failure=failure,
        k=5,
        gate="passed" if status == "replaced" else "unchecked",
        status=status,
    )


def test_rows_say_what_happened_and_join_by_random_ids_only() -> None:
    pictures = [
        (0, [face("replaced", "surrogate"), face("covered", "solid", "mesh_failed", 12)]),
        (3, []),
        (7, [face("replaced", "ksame-pixel", "turned"), face("covered", "blur", "policy")]),
    ]
    table = pq.read_table(io.BytesIO(audit.to_bytes(audit.table(SECRET, 2, "shards/a.tar", pictures))))
    assert table.schema.equals(records.AUDIT, check_metadata=True)
    rows = table.to_pylist()
    assert [row["face_id"] for row in rows] == sorted(row["face_id"] for row in rows)
    assert {row["output_id"] for row in rows} == {keys.output_id(SECRET, 2, 0), keys.output_id(SECRET, 2, 7)}
    assert {(row["status"], row["anonymizer"], row["reason"], row["k"]) for row in rows} == {
        ("replaced", "surrogate", "", 5),
        ("replaced", "ksame-pixel", "turned", 5),
        ("covered", "solid", "mesh_failed", 0),
        ("covered", "blur", "policy", 0),
    }
    assert {(row["status"], row["gate"]) for row in rows} == {
        ("replaced", "passed"),
        ("covered", "unchecked"),
    }
    assert {row["anonymizer"]: row["face_height_band"] for row in rows}["solid"] == "<20"


def test_another_secret_gives_unrelated_ids() -> None:
    pictures = [(0, [face("replaced", "surrogate")])]
    one = audit.table(SECRET, 0, "shards/a.tar", pictures)["face_id"][0].as_py()
    other = audit.table(b"t" * 32, 0, "shards/a.tar", pictures)["face_id"][0].as_py()
    assert one != other
    assert len(one) == 32


@pytest.mark.parametrize(
    ("height", "band"),
    [(0, "<20"), (19.9, "<20"), (20, "20-39"), (79, "40-79"), (159, "80-159"), (160, ">=160")],
)
def test_bands(height: float, band: str) -> None:
    assert records.face_height_band(height) == band
