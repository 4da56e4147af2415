import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from deid import config, records
from deid.interfaces import Face
from deid.pipeline import publish, rows
from deid.pipeline.rows import Row
from deid.pipeline.shield import StageFailure
from deid.pipeline.write import WriteUnit
from deid.privacy import keys, manifest, shred
from deid.privacy.vault import Vault

SETTINGS = config.parse({"input": {"uri": "raw"}, "output": {"uri": "out"}, "state": "state"})


def face(status: str, anonymizer: str, failure: str = "") -> Face:
    box, points = np.array([0, 0, 30, 40], np.float32), np.zeros((5, 2), np.float32)
    gate = "passed" if status == "replaced" else "unchecked"
    return Face(box, 0.9, points, anonymizer=anonymizer, failure=failure, k=5, status=status, gate=gate)


def row(position: int, *faces: Face) -> Row:
    made = Row(0, position, 0, b"", "jpg", position, faces=list(faces))
    made.result, made.result_extension = b"encoded", "jpg"
    return made


def writer(folder: Path, turn: int = 0) -> WriteUnit:
    state = Vault(str(folder / "state"), b"k" * 32)
    return WriteUnit(str(folder / "out"), state, b"s" * 32, SETTINGS, 1, turn)


def whole(*items: Row) -> pa.Table:
    """All pictures of a unit."""
    for row in items:
        row.planned = len(items)
    return rows.to_table(list(items))


def test_rungs_are_counted_from_the_rows_to_the_manifest(tmp_path: Path) -> None:
    items = [
        row(0, face("replaced", "surrogate"), face("replaced", "simple", "too_small")),
        row(1, face("replaced", "ksame-pixel", "mesh_failed"), face("covered", "solid", "generate_failed")),
        row(2, face("replaced", "surrogate")),
    ]
    stage = writer(tmp_path)
    commits = stage(whole(*items))
    assert commits.schema == records.COMMIT
    sums = manifest.counts(commits, 3, 0)
    assert (sums["faces"], sums["replaced"], sums["covered"]) == (5, 4, 1)
    made = manifest.build(SETTINGS, "run", commits, [], sums, {}, {}, {}, {})
    assert made["anonymizers"] == {"surrogate": 2, "simple": 1, "ksame-pixel": 1, "solid": 1}
    audit = publish.Commits(stage.vault).audit(0)
    assert audit.schema.equals(records.AUDIT_RAW, check_metadata=True)
    assert Counter(audit["anonymizer"].to_pylist()) == made["anonymizers"]
    assert not list((tmp_path / "out").rglob("*.parquet")), "the audit of a unit is not for the output"


def names(commits: pa.Table) -> list[str]:
    return [entry["name"] for entries in commits["objects"].to_pylist() for entry in entries]


def test_pictures_of_one_sample_go_out_under_one_key(tmp_path: Path) -> None:
    items = [row(0, face("replaced", "surrogate")), row(1), row(2), row(3)]
    for item, sample, name in zip(items, (0, 0, 1, 1), ("", "1", "", "1"), strict=True):
        item.sample, item.name = sample, name
    items[0].sidecar = items[1].sidecar = '{"label": 3, "cls": 2}'
    items[3].fail("gate_failed")
    stage = writer(tmp_path)
    (name,) = names(stage(whole(*items)))
    with tarfile.open(tmp_path / "out" / name) as archive:
        members = sorted(info.name.partition(".") for info in archive)
    ids = [keys.output_id(b"s" * 32, 0, sample) for sample in (0, 1)]
    expected = [(ids[0], end) for end in ("1.jpg", "cls", "jpg", "json")] + [(ids[1], "jpg")]
    assert [(key, end) for key, _, end in members] == sorted(expected)
    audit = {
        (entry["status"], entry["output_id"]) for entry in publish.Commits(stage.vault).audit(0).to_pylist()
    }
    assert ("replaced", ids[0]) in audit
    assert {key for status, key in audit if status == "dropped"}.isdisjoint(ids), (
        "its sample went out without it"
    )


def test_a_unit_that_arrives_in_part_is_not_written(tmp_path: Path) -> None:
    table = whole(row(0), row(1)).slice(0, 1)
    with pytest.raises(StageFailure, match="RuntimeError"):
        writer(tmp_path)(table)
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("anonymizer", ["", "hope"])
def test_a_face_that_nothing_stands_for_is_not_written(tmp_path: Path, anonymizer: str) -> None:
    with pytest.raises(StageFailure, match="RuntimeError"):
        writer(tmp_path)(whole(row(0, face("replaced", anonymizer))))
    assert not list(tmp_path.rglob("*.tar"))


def test_what_was_dropped_is_told_from_bad_input(tmp_path: Path) -> None:
    items = [row(0), row(1), row(2)]
    items[1].fail("gate_failed")
    items[2].fail("empty")
    for number, item in enumerate(items):
        item.dropped = f'{{"other": {number}, "label": 1}}'
    stage = writer(tmp_path)
    commits = stage(whole(*items))
    sums = manifest.counts(commits, 3, 2)
    assert [sums[f"pictures_{name}"] for name in ("in", "out", "quarantined", "dropped")] == [5, 1, 3, 1]
    assert publish.fields_dropped(commits) == {"label": 3, "other": 3}
    audit = publish.Commits(stage.vault).audit(0).to_pylist()
    assert [(entry["status"], entry["shard"]) for entry in audit] == [("dropped", "")]


def test_of_two_attempts_the_first_to_commit_counts(tmp_path: Path) -> None:
    first, second = row(0, face("replaced", "surrogate")), row(0, face("replaced", "surrogate"))
    second.result = b"encoded otherwise"
    stage = writer(tmp_path)
    committed = stage(whole(first))
    assert stage(whole(second)).equals(committed)
    shards = {path.name for path in (tmp_path / "out" / "shards").iterdir()}
    assert len(shards) == 2, "the other attempt's shard lies there, and no commit names it"
    shred.everything(str(tmp_path / "out"), but=set(names(committed)))
    assert [path.name for path in (tmp_path / "out" / "shards").iterdir()] == [Path(names(committed)[0]).name]
    renewed = writer(tmp_path, turn=1)(whole(second))
    assert names(renewed) != names(committed)
    assert publish.Commits(stage.vault)(0).select(records.COMMIT.names).equals(committed)
    assert publish.Commits(stage.vault, {0: 1})(0).select(records.COMMIT.names).equals(renewed)
    assert publish.renewed(committed, renewed).equals(renewed)
