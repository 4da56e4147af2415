import io

import numpy as np
import pyarrow.parquet as pq
import pytest

from deid import records
from deid.interfaces import Face
from deid.privacy import audit, keys

SECRET = b"s" * 32


def face(status: str, failure: str = "", height: float = 50) -> Face:
    box = np.array([10, 10, 40, 10 + height], np.float32)
    return Face(box, 0.9, np.zeros((5, 2), np.float32), failure=failure, k=5, status=status)


def test_rows_say_what_happened_and_join_by_random_ids_only() -> None:
    pictures = [(0, [face("replaced"), face("covered", "mesh_failed", 12)]), (3, []), (7, [face("replaced")])]
    table = pq.read_table(io.BytesIO(audit.to_bytes(audit.table(SECRET, 2, "shards/a.tar", pictures))))
    assert table.schema.equals(records.AUDIT, check_metadata=True)
    rows = table.to_pylist()
    assert [row["face_id"] for row in rows] == sorted(row["face_id"] for row in rows)
    assert {row["output_id"] for row in rows} == {keys.output_id(SECRET, 2, 0), keys.output_id(SECRET, 2, 7)}
    covered = next(row for row in rows if row["status"] == "covered")
    assert (covered["anonymizer"], covered["reason"], covered["k"]) == ("solid", "mesh_failed", 0)
    assert covered["face_height_band"] == "<20"
    assert {(row["anonymizer"], row["reason"], row["k"]) for row in rows} == {
        ("surrogate", "", 5),
        ("solid", "mesh_failed", 0),
    }


def test_another_secret_gives_unrelated_ids() -> None:
    pictures = [(0, [face("replaced")])]
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
