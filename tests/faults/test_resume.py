"""A run that is killed, again and again, ends with each picture once; and the runs after it take what is new."""

import json
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from deid.pipeline.plan import quarantined
from deid.shards import storage
from deid.video import container, encode
from tests.conftest import S3
from tests.e2e import cast, corpus
from tests.faults.jobs import Job

ONE_PASS = {"assignment": {"mode": "per-face"}}


def landscapes(first: int, count: int) -> bytes:
    picture = corpus.encoded(corpus.landscape())
    return corpus.tar([(f"{corpus.CANARY}{first + n}.jpg", picture) for n in range(count)])


@pytest.fixture
def job(s3: S3, tmp_path: Path) -> Job:
    """Two shards of five pictures: four units."""
    return Job(
        tmp_path, f"s3://{s3.bucket()}", {"0.tar": landscapes(0, 5), "1.tar": landscapes(5, 5)}, ONE_PASS
    )


def shards(job: Job) -> set[str]:
    return {name for name in job.names("out") if "/shards/" in name}


def test_a_driver_that_is_killed_anywhere_goes_on_and_loses_nothing(job: Job) -> None:
    storage.write_bytes(f"{job.bucket}/raw/2.tar", corpus.tar([("odd.jpg", b"no picture")]))
    steps = [
        ("deid.pipeline.opened", "begin"),
        ("deid.pipeline.plan", "windows"),
        ("deid.pipeline.plan", "make"),
        ("deid.pipeline.watch", "Watch.__call__", 3),  # the first call is for what stood before
    ]
    for step in steps:
        job.killed(*step)
    written = shards(job)
    assert len(written) >= 2, "two units were committed when it was killed"
    commits = {name for name in job.names("state") if "/commits/" in name}
    assert len(commits) >= 2
    versions = {file.uri: file.version for file in storage.list_files(f"{job.bucket}/out")}
    steps = [
        ("deid.pipeline.run", "_keep"),
        ("deid.pipeline.publish", "publish"),
        ("deid.pipeline.ledger", "Ledger.record"),
        ("deid.privacy.vault", "destroy"),
        ("deid.privacy.seal", "sign"),
        ("deid.pipeline.catalogue", "add"),
        ("deid.shards.storage", "delete", 2),  # of open.json, before closing.json's; the first is the probe's
    ]
    for step in steps:
        job.killed(*step)
    ended = job.run()
    assert ended.code == 0, ended.err[-3000:]
    manifest = job.manifest()
    named = {f"{manifest['run']}/{e['name']}" for e in manifest["objects"]}
    assert written <= named, "what was committed before is what goes out"
    now = {file.uri: file.version for file in storage.list_files(f"{job.bucket}/out")}
    assert all(now[uri] == version for uri, version in versions.items()), "and was not written again"
    counts = manifest["counts"]
    assert (counts["pictures_in"], counts["pictures_out"], counts["pictures_quarantined"]) == (11, 10, 1)
    found = job.keys(manifest)
    assert len(found) == 10
    assert set(found.values()) == {1}
    left = {name for name in job.names("state") if not name.startswith(("lease/", "ledger/"))}
    run = manifest["run"]
    assert left == {f"{run}.progress.json"} | {
        f"{run}-quarantine/{name}" for name in ("key.json", "quarantine")
    }
    lost = quarantined(f"{job.bucket}/state/{run}-quarantine", str(job.folder / "state.key"))
    assert lost.select(["key", "reason"]).to_pylist() == [{"key": "odd", "reason": "not_an_image"}]
    again = job.run()
    assert again.told()[:17] == "deid: nothing new", "and all of it is noted"


def test_each_run_takes_what_is_new_and_says_what_has_changed(job: Job) -> None:
    first = job.run()
    assert first.code == 0, first.err[-3000:]
    again = job.run()
    assert (again.code, again.told()[:17]) == (0, "deid: nothing new")
    storage.write_bytes(f"{job.bucket}/raw/2.tar", landscapes(10, 4))
    storage.write_bytes(f"{job.bucket}/raw/1.tar", landscapes(5, 3), overwrite=True)
    second = job.run()
    assert second.code == 0, second.err[-3000:]
    assert second.counts()["pictures_in"] == 4
    assert "1 shards have changed" in second.err
    runs = [ended.counts()["run"] for ended in (first, second)]
    listed = json.loads(storage.read_bytes(f"{job.bucket}/out/catalogue.json"))
    assert {entry["run"] for entry in listed["releases"]} == set(runs)
    assert not any(
        b"0.tar" in storage.read_bytes(file.uri) for file in storage.list_files(f"{job.bucket}/state")
    )
    text = job.config.read_text().replace("input:\n", "input:\n  changed: take\n")
    job.config.write_text(text)
    third = job.run()
    assert third.code == 0, third.err[-3000:]
    assert third.counts()["pictures_in"] == 3
    assert (job.run().code, len(job.names("out"))) == (0, len(job.names("out")))


def test_two_runs_at_once_are_refused_and_settings_stay_those_of_the_open_run(job: Job) -> None:
    job.killed("deid.pipeline.plan", "make")
    text = job.config.read_text()
    job.config.write_text(text.replace("unit_size: 3", "unit_size: 4"))
    other = job.run()
    assert (other.code, "begun with other settings" in other.told()) == (2, True)
    job.config.write_text(text)
    going = job.start("-m", "tests.faults.held", str(job.config))
    try:
        while going.out() != "held\n":
            assert going.going(), going.end().err
            time.sleep(0.2)
        refused = job.run()
        assert refused.code == 5
        assert "another run holds the state until" in refused.told()
    finally:
        going.process.kill()
        going.end()
    job.expire()
    dropped = job.run("-m", "deid.cli", "abandon", str(job.config))
    assert dropped.code == 0, dropped.err
    assert "is dropped" in dropped.out
    assert job.names("out") == set()
    assert {name for name in job.names("state") if "/plan/" in name or name == "open.json"} == set()


def test_sigterm_ends_a_run_in_order_and_the_same_command_goes_on_at_once(job: Job) -> None:
    running = job.start()
    while not [name for name in job.names("state") if "/plan/" in name]:
        assert running.going(), running.end().err[-3000:]
        time.sleep(0.2)
    time.sleep(2)
    running.process.terminate()
    ended = running.end()
    assert ended.code == 143, ended.err[-3000:]
    assert "is open: the same command goes on with it" in ended.err
    again = job.run()
    assert again.code == 0, again.err[-3000:]
    assert set(job.keys(job.manifest()).values()) == {1}


@pytest.mark.slow
def test_without_a_state_key_what_a_killed_run_left_is_deleted_and_all_is_done_anew(
    s3: S3, tmp_path: Path
) -> None:
    job = Job(tmp_path, f"s3://{s3.bucket()}", {"0.tar": landscapes(0, 5)}, ONE_PASS | {"state_key": None})
    job.killed("deid.pipeline.watch", "Watch.__call__", 2)
    assert shards(job)
    ended = job.run()
    assert ended.code == 0, ended.err[-3000:]
    assert "is deleted, and all is done anew" in ended.err
    manifest = job.manifest()
    assert {name.partition("/")[0] for name in shards(job)} == {manifest["run"]}
    assert set(job.keys(manifest).values()) == {1}
    assert ended.counts()["pictures_out"] == 5


@pytest.mark.slow
def test_two_passes_go_on_between_and_in_them(s3: S3, tmp_path: Path) -> None:
    people = cast.photograph(cast.strangers(9), 2)
    changes = {"anonymizer": "surrogate", "assignment": {"k": 3}, "match": {"corrections": 0}, "unit_size": 6}
    job = Job(tmp_path, f"s3://{s3.bucket()}", cast.shards(people), changes)
    job.killed("deid.pipeline.watch", "Watch.__call__", 2)
    indexed = {
        file.uri: file.version for file in storage.list_files(f"{job.bucket}/state") if "/index/" in file.uri
    }
    assert indexed
    job.killed("deid.pipeline.passes", "Passes.assign")
    now = {file.uri: file.version for file in storage.list_files(f"{job.bucket}/state")}
    assert all(now[uri] == version for uri, version in indexed.items()), "looked at once"
    job.killed("deid.pipeline.watch", "Watch.__call__", 2)
    written = shards(job)
    assert written
    ended = job.run()
    assert ended.code == 0, ended.err[-3000:]
    manifest = job.manifest()
    assert manifest["people"]["min"] >= 3
    assert manifest["counts"]["pictures_out"] == 18
    assert set(job.keys(manifest).values()) == {1}
    if not manifest["people"]["withheld"]:
        assert written <= {f"{manifest['run']}/{entry['name']}" for entry in manifest["objects"]}


@pytest.mark.slow
def test_video_goes_on_between_and_in_its_passes(s3: S3, tmp_path: Path) -> None:
    face, shape = np.asarray(corpus.portrait(160)), encode.Shape(240, 200, Fraction(12), Fraction(1, 12))
    frames = [np.full((200, 240, 3), 90, np.uint8) for _ in range(12)]
    for number, pixels in enumerate(frames):
        pixels[20:180, 10 + 4 * number : 170 + 4 * number] = face
    clip = encode.join([encode.segment(enumerate(frames), shape, 12)], shape)
    bucket = f"s3://{s3.bucket()}"
    changes = {"input": {"uri": f"{bucket}/raw", "format": "video"}, "unit_size": 4}
    job = Job(tmp_path, bucket, {"0.mp4": clip, "1.mp4": clip}, changes)
    steps = [
        ("deid.pipeline.watch", "Watch.__call__", 2),
        ("deid.pipeline.passes", "Passes.index"),
        ("deid.pipeline.passes", "Passes.track"),
    ]
    for step in steps:
        job.killed(*step)
    tracked = {
        file.uri: file.version for file in storage.list_files(f"{bucket}/state") if "/faces/" in file.uri
    }
    assert len(tracked) == 6
    job.killed("deid.pipeline.watch", "Watch.__call__", 2)
    now = {file.uri: file.version for file in storage.list_files(f"{bucket}/state")}
    assert all(now[uri] == version for uri, version in tracked.items()), "tracked once"
    assert not job.names("out"), "segments lie in the state"
    job.killed("deid.pipeline.film", "joined")
    before = {name for name in job.names("out") if "/videos/" in name}
    assert len(before) == 2
    ended = job.run()
    assert ended.code == 0, ended.err[-3000:]
    manifest = job.manifest()
    assert manifest["counts"]["pictures_out"] == manifest["counts"]["covered"] == 24
    videos = [entry["name"] for entry in manifest["objects"] if entry["name"].startswith("videos/")]
    assert {f"{manifest['run']}/{name}" for name in videos} == before
    for name in videos:
        data = storage.read_bytes(f"{bucket}/out/{manifest['run']}/{name}")
        assert len(list(container.decode(data, container.probe(data)))) == 12
