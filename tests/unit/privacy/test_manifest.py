import json

import pyarrow as pa
import pytest

from deid import config, records
from deid.errors import PromiseError
from deid.privacy import manifest

CONFIG = config.parse(
    {
        "input": {"uri": "s3://secret-source/x"},
        "output": {"uri": "s3://out"},
        "state": "s3://secret-state",
        "gallery": "secret-gallery.parquet",
        "models": {"cache": "secret-cache"},
        "seed": 7,
    }
)


def commit(unit: int, **changes: object) -> dict[str, object]:
    values: dict[str, object] = {
        "unit": unit, "shard": f"shards/{unit}.tar", "shard_bytes": 1, "shard_sha256": "a", "audit": f"audit/{unit}",
        "audit_bytes": 2, "audit_sha256": "b", "pictures_in": 3, "pictures_out": 2, "pictures_quarantined": 1,
        "faces": 4, "replaced": 3, "covered": 1,
        "anonymizers": [{"name": "surrogate", "faces": 3}, {"name": "solid", "faces": 1}],
        "gate": [{"name": "passed", "faces": 3}, {"name": "unchecked", "faces": 1}],
        "quarantine": [{"record": 1, "reason": "empty"}],
    }  # fmt: skip
    return values | changes


def commits(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=records.COMMIT)


def test_counts_balance() -> None:
    sums = manifest.counts(commits(commit(0), commit(1)), planned=6, refused=2)
    assert sums == {
        "pictures_in": 8, "pictures_out": 4, "pictures_quarantined": 4, "faces": 8, "replaced": 6, "covered": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("table", "planned"),
    [
        (commits(commit(0)), 6),  # a unit is missing
        (commits(commit(0), commit(0), commit(1)), 6),  # a unit twice
        (commits(commit(0), commit(0)), 6),  # a unit twice and another never
        (commits(commit(0, pictures_out=3)), 3),  # a picture too many
        (commits(commit(0, pictures_out=1)), 3),  # a picture lost
        (commits(commit(0, covered=0)), 3),  # a face neither replaced nor covered
        (commits(commit(0, anonymizers=[{"name": "solid", "faces": 3}])), 3),  # a face by nothing
        (commits(commit(0, anonymizers=[{"name": "hope", "faces": 4}])), 3),  # by no known anonymizer
        (commits(commit(0, gate=[{"name": "passed", "faces": 3}])), 3),  # a face without a word of the gate
        (commits(commit(0, gate=[{"name": "maybe", "faces": 4}])), 3),  # with an unknown one
    ],
)
def test_counts_that_do_not_balance_are_refused(table: pa.Table, planned: int) -> None:
    with pytest.raises(PromiseError):
        manifest.counts(table, planned, 0)


def test_the_manifest_names_every_object_and_nothing_of_the_source() -> None:
    table = commits(commit(1), commit(0))
    sums = manifest.counts(table, 6, 0)
    made = json.loads(manifest.to_bytes(manifest.build(CONFIG, "run", table, sums, {"empty": 2}, {"m": {}})))
    assert [entry["name"] for entry in made["objects"]] == [
        "audit/0",
        "audit/1",
        "shards/0.tar",
        "shards/1.tar",
    ]
    assert made["counts"] == sums
    assert made["anonymizers"] == {"surrogate": 6, "solid": 2}
    assert made["gate"] == {"passed": 6, "unchecked": 2}
    assert made["config"]["anonymizer"] == "surrogate"
    assert made["config"]["match"]["k"] == 5
    assert made["config"]["repeatable"] is True
    assert "secret" not in json.dumps(made)
    assert '"seed"' not in json.dumps(made)
