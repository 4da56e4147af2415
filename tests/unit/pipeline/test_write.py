from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from deid import config, records
from deid.interfaces import Face
from deid.pipeline import publish, rows
from deid.pipeline.rows import Row
from deid.pipeline.shield import StageFailure
from deid.pipeline.write import WriteUnit
from deid.privacy import manifest, shred
from deid.privacy.vault import Vault

SETTINGS = config.parse({"input": {"uri": "raw"}, "output": {"uri": "out"}, "state": "state"})


def face(status: str, anonymizer: str, failure: str = "") -> Face:
    box, points = np.array([0, 0, 30, 40], np.float32), np.zeros((5, 2), np.float32)
    gate = "passed" if status == "replaced" else "unchecked"
    return Face(box, 0.9, points, anonymizer=anonymizer, failure=failure, k=5, status=status, gate=gate)


def row(position: int, *faces: Face) -> Row:
    made = Row(0, position, position, b"", "jpg", faces=list(faces))
    made.result, made.result_extension = b"encoded", "jpg"
    return made


def writer(folder: Path, total: int, **options: object) -> WriteUnit:
    state = Vault(str(folder / "state"), b"k" * 32)
    return WriteUnit(str(folder / "out"), state, b"s" * 32, total, 8, config.Assignment(), **options)  # type: ignore[arg-type]


def test_rungs_are_counted_from_the_rows_to_the_manifest(tmp_path: Path) -> None:
    items = [
        row(0, face("replaced", "surrogate"), face("replaced", "simple", "too_small")),
        row(1, face("replaced", "ksame-pixel", "mesh_failed"), face("covered", "solid", "generate_failed")),
        row(2, face("replaced", "surrogate")),
    ]
    stage = writer(tmp_path, 3)
    commits = stage(rows.to_table(items))
    assert commits.schema == records.COMMIT
    sums = manifest.counts(commits, 3, 0)
    assert (sums["faces"], sums["replaced"], sums["covered"]) == (5, 4, 1)
    made = manifest.build(SETTINGS, "run", commits, [], sums, {}, {}, {}, {}, {})
    assert made["anonymizers"] == {"surrogate": 2, "simple": 1, "ksame-pixel": 1, "solid": 1}
    audit = publish.raw_audit(stage.vault, 0)
    assert audit.schema.equals(records.AUDIT_RAW, check_metadata=True)
    assert Counter(audit["anonymizer"].to_pylist()) == made["anonymizers"]
    assert not list((tmp_path / "out").rglob("*.parquet")), "the audit of a unit is not for the output"


@pytest.mark.parametrize("anonymizer", ["", "hope"])
def test_a_face_that_nothing_stands_for_is_not_written(tmp_path: Path, anonymizer: str) -> None:
    with pytest.raises(StageFailure, match="RuntimeError"):
        writer(tmp_path, 1)(rows.to_table([row(0, face("replaced", anonymizer))]))
    assert not list(tmp_path.rglob("*.tar"))


def test_what_was_dropped_is_told_from_bad_input(tmp_path: Path) -> None:
    items = [row(0), row(1), row(2)]
    items[1].fail("gate_failed")
    items[2].fail("empty")
    for number, item in enumerate(items):
        item.dropped = f'{{"other": {number}, "label": 1}}'
    stage = writer(tmp_path, 3)
    commits = stage(rows.to_table(items))
    sums = manifest.counts(commits, 3, 2)
    assert [sums[f"pictures_{name}"] for name in ("in", "out", "quarantined", "dropped")] == [5, 1, 3, 1]
    assert publish.fields_dropped(commits) == {"label": 3, "other": 3}
    audit = publish.raw_audit(stage.vault, 0).to_pylist()
    assert [(entry["status"], entry["shard"]) for entry in audit] == [("dropped", "")]


def test_of_two_attempts_the_first_to_commit_counts(tmp_path: Path) -> None:
    first, second = row(0, face("replaced", "surrogate")), row(0, face("replaced", "surrogate"))
    second.result = b"encoded otherwise"
    stage = writer(tmp_path, 1)
    committed = stage(rows.to_table([first]))
    assert stage(rows.to_table([second])).equals(committed)
    shards = {path.name for path in (tmp_path / "out" / "shards").iterdir()}
    assert len(shards) == 2, "the other attempt's shard lies there, and no commit names it"
    shred.everything(str(tmp_path / "out"), but=committed["shard"].to_pylist())
    assert [path.name for path in (tmp_path / "out" / "shards").iterdir()] == [
        Path(committed["shard"][0].as_py()).name
    ]
    renewed = writer(tmp_path, 1, again=True)(rows.to_table([second]))
    assert renewed["shard"] != committed["shard"]
    assert publish.renewed(committed, renewed).equals(renewed)
