import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from deid import config, records
from deid.errors import PromiseError
from deid.privacy import manifest, seal

CONFIG = config.parse(
    {
        "input": {"uri": "s3://secret-source/x"},
        "output": {"uri": "s3://out"},
        "state": "s3://secret-state",
        "gallery": "secret-gallery.parquet",
        "models": {"cache": "secret-cache"},
        "state_key": "secret-key-file",
        "signing": {"key": "secret-signing-file"},
        "assignment": {"subject": "secret-field"},
        "seed": 7,
    }
)
OBJECTS = [
    {"name": name, "bytes": 1, "sha256": "a" * 64} for name in ("shards/0.tar", "audit/0", "people.json")
]


def commit(unit: int, **changes: object) -> dict[str, object]:
    values: dict[str, object] = {
        "unit": unit, "objects": [{"name": f"shards/{unit}.tar", "bytes": 1, "sha256": "a"}],
        "pictures_in": 4, "pictures_out": 2, "pictures_quarantined": 1, "pictures_dropped": 1,
        "faces": 4, "replaced": 3, "covered": 1,
        "anonymizers": [{"name": "surrogate", "faces": 3}, {"name": "solid", "faces": 1}],
        "gate": [{"name": "passed", "faces": 3}, {"name": "unchecked", "faces": 1}],
        "reasons": [{"name": "empty", "pictures": 1}],
    }  # fmt: skip
    return values | changes


def commits(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=records.COMMIT)


def test_counts_balance() -> None:
    sums = manifest.counts(commits(commit(0), commit(1)), planned=8, refused=2)
    assert sums == {
        "pictures_in": 10, "pictures_out": 4, "pictures_quarantined": 4, "pictures_dropped": 2,
        "faces": 8, "replaced": 6, "covered": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("table", "planned"),
    [
        (commits(commit(0)), 8),  # a unit is missing
        (commits(commit(0), commit(0), commit(1)), 8),  # a unit twice
        (commits(commit(0), commit(0)), 8),  # a unit twice and another never
        (commits(commit(0, pictures_out=3)), 4),  # a picture too many
        (commits(commit(0, pictures_out=1)), 4),  # a picture lost
        (commits(commit(0, pictures_dropped=0)), 4),  # dropped, and not counted
        (commits(commit(0, covered=0)), 4),  # a face neither replaced nor covered
        (commits(commit(0, anonymizers=[{"name": "solid", "faces": 3}])), 4),  # a face by nothing
        (commits(commit(0, anonymizers=[{"name": "hope", "faces": 4}])), 4),  # by no known anonymizer
        (commits(commit(0, gate=[{"name": "passed", "faces": 3}])), 4),  # a face without a word of the gate
        (commits(commit(0, gate=[{"name": "maybe", "faces": 4}])), 4),  # with an unknown one
    ],
)
def test_counts_that_do_not_balance_are_refused(table: pa.Table, planned: int) -> None:
    with pytest.raises(PromiseError):
        manifest.counts(table, planned, 0)


def built(**changes: object) -> dict[str, Any]:
    table = commits(commit(1), commit(0))
    values: dict[str, Any] = {
        "config": CONFIG, "run": "run", "commits": table, "objects": OBJECTS, "sums": manifest.counts(table, 8, 0),
        "reasons": {"empty": 2}, "models": {"m": {}}, "people": {"k": 5, "min": 5},
        "dropped_fields": {"caption": 3},
    }  # fmt: skip
    made: dict[str, Any] = json.loads(manifest.to_bytes(manifest.build(**(values | changes))))
    return made


def test_the_manifest_names_every_object_and_nothing_of_the_source() -> None:
    made = built()
    assert made["manifest_version"] == 2
    assert [entry["name"] for entry in made["objects"]] == ["audit/0", "people.json", "shards/0.tar"]
    assert made["merkle_root"] == seal.merkle_root(OBJECTS)
    assert made["counts"]["faces"] == 8
    assert made["anonymizers"] == {"surrogate": 6, "solid": 2}
    assert made["gate"] == {"passed": 6, "unchecked": 2}
    assert made["people"] == {"k": 5, "min": 5}
    assert made["dropped_fields"] == {"caption": 3}
    assert made["config"]["anonymizer"] == "surrogate"
    assert made["config"]["match"]["k"] == 5
    assert made["config"]["repeatable"] is True
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", made["day"])
    assert "secret" not in json.dumps(made)
    assert not {"seed", "state", "state_key", "signing", "gallery", "cluster"} & made["config"].keys()


def test_people_are_told_apart_by_subject_or_by_face_and_the_field_is_not_named() -> None:
    assert made_assignment(CONFIG) == {"people_by": "subject", "k": 5}
    without = CONFIG.model_copy(update={"assignment": config.Assignment()})
    assert made_assignment(without) == {"people_by": "face", "k": 5}


def made_assignment(settings: config.Config) -> dict[str, Any]:
    assignment: dict[str, Any] = built(config=settings)["config"]["assignment"]
    assert "subject" not in assignment
    return {name: assignment[name] for name in ("people_by", "k")}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("sha256:" + "0f" * 32, True),
        (None, False),
        ("", False),
        ("sha256:0f", False),
        ("0f" * 32, False),
        ("sha256:" + "0F" * 32, False),
        ("sha256:" + "0f" * 32 + "\n", False),
    ],
)
def test_the_image_is_named_by_its_digest_alone(
    given: str | None, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(manifest.IMAGE_DIGEST, raising=False)
    if given is not None:
        monkeypatch.setenv(manifest.IMAGE_DIGEST, given)
    assert built()["container"] == (given if kept else None)


def test_the_code_is_hashed_as_other_programs_would(tmp_path: Path) -> None:
    root = Path(manifest.__file__).parents[1]
    command = (
        "find . -type f -not -path '*/__pycache__/*' | sed 's,^./,,' | LC_ALL=C sort | xargs -d '\\n' sha256sum"
        " | sha256sum"
    )
    done = subprocess.run(["bash", "-c", command], cwd=root, capture_output=True, text=True, check=True)
    assert built()["code"]["sha256"] == done.stdout.split()[0]
