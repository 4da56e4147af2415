"""Whole runs with something broken in them: what goes out, is covered, is quarantined, and what the user is told."""

import io
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image

from deid import config as configuration
from deid.errors import InputError, ModelError, PromiseError
from deid.pipeline import plan as planning
from deid.pipeline import run as pipeline
from deid.pipeline import trace
from deid.privacy import wrapping
from deid.shards import storage
from deid.surrogates.cover import COLOUR
from tests.e2e import corpus


@pytest.fixture(scope="module", autouse=True)
def one_ray() -> Any:
    """One Ray for all runs of this file; the runs use what is there."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=300 * 2**20)
    yield
    ray.shutdown()


def job(tmp_path: Path, shards: dict[str, bytes], **changes: Any) -> configuration.Config:
    for name, data in shards.items():
        storage.write_bytes(str(tmp_path / "raw" / name), data)
    base = {
        "input": {"uri": str(tmp_path / "raw")},
        "output": {"uri": str(tmp_path / "out")},
        "state": str(tmp_path / "state"),
        "models": {"accept": ["clean", "permissive", "restricted"]},
        "limits": {"max_pixels": 20_000_000},
        "unit_size": 8,
        "assignment": {"mode": "per-face"},
        "state_key": str(tmp_path / "state.key"),
        "seed": 1,
    }
    if not (tmp_path / "state.key").exists():
        wrapping.new_key_file(tmp_path / "state.key")
    return configuration.parse(base | changes)


def two_faces() -> dict[str, bytes]:
    members = [
        ("a.jpg", corpus.encoded(corpus.portrait(300))),
        ("b.jpg", corpus.encoded(corpus.portrait(240))),
    ]
    return {"0.tar": corpus.tar([*members, ("c.jpg", corpus.encoded(corpus.landscape()))])}


def counted(result: pipeline.RunResult, name: str) -> dict[str, int]:
    """Faces by the values of a column, from the run's summary table."""
    rows = pq.read_table(Path(result.output) / "summary.parquet").to_pylist()
    return {row["value"]: row["faces"] for row in rows if row["name"] == name}


def quarantine(config: configuration.Config, result: pipeline.RunResult) -> dict[str, str]:
    if result.quarantine is None:
        return {}
    table = planning.quarantined(result.quarantine, config.state_key)
    return dict(zip(table["key"].to_pylist(), table["reason"].to_pylist(), strict=True))


def balanced(result: pipeline.RunResult) -> dict[str, int]:
    counts: dict[str, int] = result.manifest["counts"]
    gone = counts["pictures_quarantined"] + counts["pictures_dropped"]
    assert counts["pictures_in"] == counts["pictures_out"] + gone
    assert counts["faces"] == counts["replaced"] + counts["covered"] == sum(result.manifest["gate"].values())
    assert result.manifest["gate"] == counted(result, "gate")
    return counts


def test_every_odd_file_has_its_stated_outcome(tmp_path: Path) -> None:
    odd = corpus.odd_members()
    config = job(tmp_path, {"odd.tar": corpus.tar([(name, data) for name, (data, _) in odd.items()])})
    result = pipeline.run(config)
    expected = {name.partition(".")[0]: outcome for name, (_, outcome) in odd.items()}
    assert quarantine(config, result) == {
        key: outcome for key, outcome in expected.items() if outcome != "out"
    }
    assert balanced(result)["pictures_in"] == len(odd)
    assert result.manifest["quarantine"] == Counter(v for v in expected.values() if v != "out")
    results = {pair.key: pair.after for pair in trace.pairs(config, result)}
    assert {key for key, data in results.items() if data} == {k for k, v in expected.items() if v == "out"}
    for key, data in results.items():
        if data:
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                assert image.mode == ("L" if key in ("grey", "deep") else "RGB")


@pytest.mark.parametrize(
    ("part", "name", "reason"),
    [
        ("generator", "RaisingGenerator", "generate_failed"),
        ("generator", "NoiseGenerator", "generate_failed"),
        ("mesher", "UnsureMesher", "mesh_failed"),
    ],
)
def test_a_part_that_fails_covers_the_face(tmp_path: Path, part: str, name: str, reason: str) -> None:
    config = job(tmp_path, two_faces(), **{part: {"name": f"tests.faults.parts:{name}"}})
    result = pipeline.run(config)
    assert balanced(result) == {
        "pictures_in": 3, "pictures_out": 3, "pictures_quarantined": 0, "pictures_dropped": 0,
        "faces": 2, "replaced": 0, "covered": 2,
    }  # fmt: skip
    assert counted(result, "reason") == {reason: 2}
    assert counted(result, "status") == {"covered": 2}
    assert result.manifest["anonymizers"] == {"solid": 2}
    for pair in trace.pairs(config, result):
        if pair.key != "c":
            assert covered_share(pair) > 0.02
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    logs = [path for path in (session / "logs").rglob("*") if path.is_file()]
    assert any(b"stage=" in path.read_bytes() for path in logs), (
        "the workers' warnings are not where they were"
    )
    assert not any(corpus.CANARY.encode() in path.read_bytes() for path in logs)


def covered_share(pair: trace.Pair) -> float:
    """Share of the picture that has the cover's colour, up to JPEG's rounding."""
    return float((np.abs(pair.result().astype(int) - np.array(COLOUR)).max(2) <= 3).mean())


def test_without_embeddings_faces_go_one_rung_down(tmp_path: Path) -> None:
    config = job(tmp_path, two_faces(), embedder={"name": "tests.faults.parts:RaisingEmbedder"})
    result = pipeline.run(config)
    assert balanced(result)["replaced"] == 2
    assert counted(result, "reason") == {"embed_failed": 2}
    rungs = counted(result, "anonymizer")
    assert rungs.keys() <= {"simple", "ksame-pixel"}
    assert result.manifest["anonymizers"] == rungs


@pytest.mark.parametrize("anonymizer", ["solid", "blur"])
def test_cover_is_a_policy(tmp_path: Path, anonymizer: str) -> None:
    result = pipeline.run(job(tmp_path, two_faces(), anonymizer=anonymizer))
    assert balanced(result)["covered"] == 2
    assert counted(result, "reason") == {"policy": 2}
    assert result.manifest["anonymizers"] == {anonymizer: 2}


def test_a_detector_that_raises_on_one_picture_costs_that_picture(tmp_path: Path) -> None:
    shards = two_faces()
    shards["1.tar"] = corpus.tar([("grey.jpg", corpus.encoded(corpus.portrait(256).convert("L")))])
    config = job(tmp_path, shards, detector={"name": "tests.faults.parts:DetectorThatHatesGrey"})
    result = pipeline.run(config)
    assert quarantine(config, result) == {"grey": "detector_failed"}
    assert balanced(result)["replaced"] == 2


def test_a_result_that_cannot_be_searched_stays_in_quarantine(tmp_path: Path) -> None:
    config = job(
        tmp_path,
        two_faces(),
        anonymizer="solid",
        detector={"name": "tests.faults.parts:DetectorThatHatesResults"},
        limits={"max_quarantine_fraction": 1.0},
    )
    result = pipeline.run(config)
    assert quarantine(config, result) == {"a": "gate_failed", "b": "gate_failed"}
    assert balanced(result)["pictures_out"] == 1


def test_a_face_that_the_first_look_missed_is_covered_and_counted(tmp_path: Path) -> None:
    shards = {"0.tar": corpus.tar([("group.png", corpus.encoded(corpus.group(), "PNG"))])}
    config = job(
        tmp_path,
        shards,
        anonymizer="solid",
        detector={"name": "tests.faults.parts:DetectorOfOneAtFirst"},
    )
    result = pipeline.run(config)
    assert balanced(result)["covered"] == 2
    assert result.manifest["gate"] == {"missed": 1, "unchecked": 1}
    assert counted(result, "reason") == {"missed": 1, "policy": 1}


def test_a_truncated_shard_gives_what_stands_before_the_cut(tmp_path: Path) -> None:
    whole = two_faces()["0.tar"]
    cut = whole[: len(whole) // 2 + 700]
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        sound = [m.name for m in archive if m.offset_data + m.size <= len(cut)]
    assert 0 < len(sound) < 3
    result = pipeline.run(job(tmp_path, {"cut.tar": cut, **{f"good-{n}": d for n, d in two_faces().items()}}))
    assert result.manifest["quarantine"] == {"shard_damaged": 1}
    assert balanced(result)["pictures_out"] == 3 + len(sound)


def test_more_quarantine_than_allowed_is_a_broken_promise(tmp_path: Path) -> None:
    shards = {"0.tar": corpus.tar([("a.jpg", b"no picture"), ("b.jpg", corpus.encoded(corpus.landscape()))])}
    limits = {"max_quarantine_fraction": 0.4}
    with pytest.raises(PromiseError, match=r"1 of 2 pictures .*max_quarantine_fraction"):
        pipeline.run(job(tmp_path, shards, limits=limits))
    assert not list((tmp_path / "out").rglob("manifest.json")), (
        "without a manifest there is nothing to release"
    )


def test_shards_without_a_picture_make_an_empty_release(tmp_path: Path) -> None:
    shards = {"0.tar": corpus.tar([]), "1.tar": corpus.tar([("a.json", b"{}")])}
    config = job(tmp_path, shards, limits={"max_quarantine_fraction": 1.0})
    result = pipeline.run(config)
    assert quarantine(config, result) == {"a": "no_image"}
    assert balanced(result)["pictures_in"] == 1
    assert not [entry for entry in result.manifest["objects"] if entry["name"].endswith(".tar")]


def test_nothing_to_do_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    with pytest.raises(InputError, match=r"no \*\.tar below"):
        pipeline.run(job(tmp_path, {}))


def test_a_licence_that_is_not_accepted_stops_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"mobilestylegan.*restricted.*models\.accept"):
        pipeline.run(job(tmp_path, two_faces(), models={"accept": ["clean", "permissive"]}))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("what", ["changed", "deleted"])
def test_a_shard_that_changes_or_goes_during_the_run_is_quarantined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    config, make = job(tmp_path, two_faces(), limits={"max_quarantine_fraction": 1.0}), planning.make

    def change(*arguments: Any) -> planning.Plan:
        made = make(*arguments)
        path = tmp_path / "raw" / "0.tar"
        if what == "deleted":
            path.unlink()
            return made
        data = bytearray(path.read_bytes())
        data[1024] ^= 0xFF
        path.write_bytes(bytes(data))
        return made

    monkeypatch.setattr(planning, "make", change)
    result = pipeline.run(config)
    assert result.manifest["quarantine"] == {"record_changed": 3}
    assert balanced(result)["pictures_out"] == 0
