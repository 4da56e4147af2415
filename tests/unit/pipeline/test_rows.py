import numpy as np
import pytest

from deid import records
from deid.faces.appearance import LOOKS
from deid.faces.segment import PARTS, SIDE
from deid.interfaces import Face
from deid.pipeline import rows
from deid.pipeline.rows import Row


def full_face() -> Face:
    rng = np.random.default_rng(0)
    return Face(
        box=rng.random(4, np.float32),
        score=0.5,
        points=rng.random((5, 2), np.float32),
        mesh=rng.random((468, 3), np.float32),
        mesh_score=0.75,
        embedding=rng.random(128, np.float32),
        segments=rng.integers(0, 255, (SIDE, SIDE, len(PARTS)), np.uint8),
        looks=np.where(np.arange(len(LOOKS)) == 3, np.nan, rng.random(len(LOOKS))).astype(np.float32),
        surrogate=rng.integers(0, 255, (64, 64, 3), np.uint8),
        surrogate_mesh=rng.random((468, 3), np.float32),
        spare=rng.integers(0, 255, (32, 32, 3), np.uint8),
        spare_mesh=rng.random((468, 3), np.float32),
        surrogate_segments=rng.integers(0, 255, (SIDE, SIDE, len(PARTS)), np.uint8),
        k=5,
        surrogate_id=3,
        identities=np.arange(5, dtype=np.int32),
        wanted=rng.random(5, np.float32),
        sex=1,
        age=33.5,
        expression="smiling",
        gate="passed",
        anonymizer="surrogate",
        status="replaced",
    )


def test_a_row_survives_the_table() -> None:
    bare = Face(np.zeros(4, np.float32), 0.25, np.zeros((5, 2), np.float32), failure="mesh_failed")
    row = Row(
        1,
        2,
        3,
        b"image",
        "jpg",
        0,
        "",
        '{"label": 1}',
        masks={"mask.png": b"m"},
        width=4,
        height=5,
        faces=[full_face(), bare],
    )
    table = rows.to_table([row, Row(1, 3, 4, b"", "png", reason="empty")])
    assert table.schema == records.PICTURE
    first, second = rows.from_table(table)
    for name, value in vars(full_face()).items():
        np.testing.assert_array_equal(getattr(first.faces[0], name), value, err_msg=name)
    for name in (
        "mesh",
        "embedding",
        "segments",
        "looks",
        "surrogate",
        "surrogate_mesh",
        "surrogate_segments",
    ):
        assert getattr(first.faces[1], name) is None, name
    assert first.masks == {"mask.png": b"m"}
    assert (first.image, first.sidecar, second.reason, second.faces) == (
        b"image",
        '{"label": 1}',
        "empty",
        [],
    )


def test_a_failed_row_carries_nothing_of_the_picture() -> None:
    row = Row(0, 0, 0, b"image", "jpg", faces=[full_face()], result=b"result")
    row.fail("detector_failed")
    assert (row.image, row.result, row.faces, row.reason) == (b"", b"", [], "detector_failed")
    with pytest.raises(ValueError, match="quarantine code"):
        row.fail("made up")
