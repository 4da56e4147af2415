"""Whole runs in two passes: who shares a surrogate, what the run says of it, and what it leaves behind."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray

from deid import config as configuration
from deid import records
from deid.errors import PromiseError
from deid.pipeline import publish, trace
from deid.pipeline import run as pipeline
from deid.privacy import linkage, seal, verify, wrapping
from deid.privacy.check import Count
from deid.shards import pictures, storage
from tests.e2e import cast, corpus

PEOPLE, TAKES = cast.strangers(9), 2


@pytest.fixture(scope="module", autouse=True)
def one_ray() -> Any:
    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=300 * 2**20)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def photographs() -> cast.Pictures:
    return cast.photograph(PEOPLE, TAKES)


def job(folder: Path, photographs: cast.Pictures, **changes: Any) -> configuration.Config:
    for name, data in cast.shards(photographs).items():
        storage.write_bytes(str(folder / "raw" / name), data, overwrite=True)
    base = {
        "input": {"uri": str(folder / "raw")},
        "output": {"uri": str(folder / "out")},
        "state": str(folder / "state"),
        "models": {"accept": ["clean", "permissive", "restricted"]},
        "unit_size": 8,
        "assignment": {"k": 3},
        "match": {"corrections": 0},
        "seed": 5,
    }
    return configuration.parse(base | changes)


@pytest.fixture(scope="module")
def done(
    photographs: cast.Pictures, tmp_path_factory: pytest.TempPathFactory
) -> tuple[configuration.Config, pipeline.RunResult]:
    config = job(tmp_path_factory.mktemp("k-same"), photographs)
    return config, pipeline.run(config)


def test_every_surrogate_is_shared_by_k_people(done: tuple[configuration.Config, pipeline.RunResult]) -> None:
    _, result = done
    people = result.manifest["people"]
    assert people["mode"] == "k-same"
    assert people["min"] >= people["k"] == 3
    assert sum(int(n) * times for n, times in people["histogram"].items()) <= len(PEOPLE)
    assert people["surrogates"] >= 1
    assert json.loads(storage.read_bytes(storage.join(result.output, "people.json"))) == people
    counts = result.manifest["counts"]
    assert counts["pictures_in"] == counts["pictures_out"] == len(PEOPLE) * TAKES
    assert counts["replaced"] >= len(PEOPLE) * TAKES
    assert counts["faces"] == counts["replaced"] + counts["covered"]


def test_the_manifest_is_signed_and_the_state_destroyed(
    done: tuple[configuration.Config, pipeline.RunResult],
) -> None:
    config, result = done
    assert seal.signed_by(result.manifest, seal.load_public(result.public_key))
    left = {file.uri.removeprefix(config.state) for file in storage.list_files(config.state)}
    assert {name for name in left if not name.startswith("/lease/")} == {f"/{result.run}.progress.json"}
    assert result.manifest["destruction"]["left"] == 0
    assert result.manifest["destruction"]["objects"] > 0
    stored = json.loads(storage.read_bytes(storage.join(result.output, "manifest.json")))
    assert stored == json.loads(json.dumps(result.manifest))


def test_the_audit_is_one_sorted_table(done: tuple[configuration.Config, pipeline.RunResult]) -> None:
    _, result = done
    names = [e["name"] for e in result.manifest["objects"] if e["name"].startswith("audit/")]
    table = pq.read_table(io.BytesIO(storage.read_bytes(storage.join(result.output, names[0]))))
    assert table.schema.equals(records.AUDIT, check_metadata=True)
    assert len(names) == 1
    assert len(table) == result.manifest["counts"]["faces"]
    assert table["output_id"].to_pylist() == sorted(table["output_id"].to_pylist())


def besides(result: pipeline.RunResult) -> int:
    """Faces that the detector saw in the pictures beside the one that each has."""
    counts: dict[str, int] = result.manifest["counts"]
    return counts["faces"] - len(PEOPLE) * TAKES


def looks_of(config: configuration.Config, result: pipeline.RunResult) -> dict[str, np.ndarray]:
    found = {}
    for pair in trace.pairs(config, result):
        if pair.after:
            found[pair.key] = pictures.decode(pair.after, 1 << 30).pixels
    return found


@pytest.mark.slow
def test_another_secret_gives_another_release(
    photographs: cast.Pictures, tmp_path: Path, done: tuple[configuration.Config, pipeline.RunResult]
) -> None:
    config = job(tmp_path, photographs, seed=6)
    result = pipeline.run(config)
    before, after = looks_of(*done), looks_of(config, result)
    assert before.keys() == after.keys()
    assert len(before) == len(PEOPLE) * TAKES
    differ = [np.abs(before[key].astype(int) - after[key].astype(int)).mean() for key in before]
    assert min(differ) > 1
    names = [
        {e["name"] for e in r.manifest["objects"] if e["name"].endswith(".tar")} for r in (done[1], result)
    ]
    assert not names[0] & names[1]


def test_fewer_people_than_k_are_refused_and_nothing_is_left(
    photographs: cast.Pictures, tmp_path: Path
) -> None:
    """Nine people in 18 pictures are no ten."""
    config = job(tmp_path, photographs, assignment={"k": 10})
    with pytest.raises(PromiseError, match=r"assignment\.k: 9 distinct people were found, and 10 must"):
        pipeline.run(config)
    assert storage.list_files(config.output.uri) == []
    left = {file.uri.removeprefix(config.state) for file in storage.list_files(config.state)}
    assert all(name.startswith("/lease/") or name.endswith(".progress.json") for name in left)


def test_one_person_in_many_pictures_is_one(photographs: cast.Pictures, tmp_path: Path) -> None:
    one = {(person, take): data for (person, take), data in photographs.items() if person == PEOPLE[0]}
    copies = {(n, take): data for n in range(4) for (_, take), data in one.items()}
    with pytest.raises(PromiseError, match="1 distinct people"):
        pipeline.run(job(tmp_path, copies, assignment={"k": 2}))


def test_people_are_counted_by_subject_where_the_data_names_them(
    photographs: cast.Pictures, tmp_path: Path
) -> None:
    config = job(tmp_path, photographs, assignment={"k": 3, "subject": "person"})
    result = pipeline.run(config)
    people = result.manifest["people"]
    assert people["people_by"] == "subject"
    assert len(PEOPLE) <= people["pseudo_identities"] <= len(PEOPLE) + besides(result)
    assert people["min"] >= 3
    assert "person" not in json.dumps(result.manifest["config"])
    assert sum(result.manifest["dropped_fields"].values()) >= len(PEOPLE) * TAKES


@pytest.mark.slow
def test_surrogates_that_too_few_people_ended_up_with_are_taken_back(
    photographs: cast.Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first count is told that one surrogate lacks people; the second count is the real one."""
    real, calls = publish.recount, []

    def recount(*arguments: Any) -> Count:
        count = real(*arguments)
        calls.append(count)
        if len(calls) > 1:
            return count
        short = min(count.people)
        return Count(count.k, count.people | {short: 1})

    monkeypatch.setattr(publish, "recount", recount)
    config = job(tmp_path, photographs)
    result = pipeline.run(config)
    taken = min(calls[0].people)
    assert taken not in calls[1].people
    assert result.manifest["people"]["withheld"] == 1
    counts = result.manifest["counts"]
    assert counts["covered"] >= 3 * TAKES
    assert counts["faces"] == counts["replaced"] + counts["covered"] >= len(PEOPLE) * TAKES
    listed = {obj.uri for obj in storage.list_files(result.output)}
    named = {storage.join(result.output, e["name"]) for e in result.manifest["objects"]}
    assert listed == named | {storage.join(result.output, "manifest.json")}, (
        "the first attempts' shards are swept"
    )


def test_keyed_random_gives_a_person_one_surrogate(photographs: cast.Pictures, tmp_path: Path) -> None:
    key = tmp_path / "state.key"
    wrapping.new_key_file(key)
    config = job(tmp_path, photographs, assignment={"mode": "keyed-random"}, state_key=str(key))
    result = pipeline.run(config)
    people = result.manifest["people"]
    assert (people["mode"], people["people_by"]) == ("keyed-random", "face")
    assert len(PEOPLE) <= people["pseudo_identities"] <= len(PEOPLE) + besides(result)
    assert result.manifest["counts"]["replaced"] >= len(PEOPLE) * TAKES


def test_nothing_of_the_source_is_named_in_what_stays(
    done: tuple[configuration.Config, pipeline.RunResult],
) -> None:
    _, result = done
    for obj in storage.list_files(result.output):
        assert corpus.CANARY.encode() not in storage.read_bytes(obj.uri) + obj.uri.encode()


def test_the_release_verifies_offline_and_does_not_lead_back(
    done: tuple[configuration.Config, pipeline.RunResult],
) -> None:
    config, result = done
    public = seal.load_public(result.public_key)
    assert verify.verify(result.output, public, allow_repeatable=True) == []
    above = [line.name for line in linkage.attack(config.input.uri, result.output) if line.above]
    assert above == []
    other = seal.new_key().public_key()
    assert [finding.name for finding in verify.verify(result.output, other, allow_repeatable=True)] == [
        "manifest.json"
    ]
