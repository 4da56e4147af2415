"""Ends of a run that are cut at every step: what the next run finds, and does."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from deid import config as configuration
from deid.config import Config
from deid.errors import ConfigError, InputError
from deid.pipeline import lease, ledger, opened, run
from deid.pipeline.plan import quarantined
from deid.privacy import seal, shred, wrapping
from deid.shards import storage

TAKEN = pa.table({"uri": ["raw/0.tar"], "version": ["v1"], "size": pa.array([7], pa.int64())})


class Cut(BaseException):
    """In the place of SIGKILL."""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    wrapping.new_key_file(tmp_path / "state.key")
    settings = {
        "input": {"uri": str(tmp_path / "raw")},
        "output": {"uri": str(tmp_path / "out")},
        "state": str(tmp_path / "state"),
        "state_key": str(tmp_path / "state.key"),
    }
    return configuration.parse(settings)


@pytest.fixture
def ours(config: Config) -> opened.Opened:
    """A run that has written a shard, and noted what it took."""
    ours = opened.begin(config, b"s" * 32)
    storage.write_bytes(storage.join(ours.output, "shards/a.tar"), b"a")
    ledger.open(config.state, config.state_key).record(ours.run, TAKEN)
    return ours


def closing(config: Config, ours: opened.Opened) -> None:
    counts = {"pictures_in": 1}
    manifest = {"run": ours.run, "day": "2026-11-29", "merkle_root": "00", "counts": counts, "config": {}}
    manifest["code"] = {"deid": "1"}
    closed = {"manifest": manifest, "output": ours.output, "quarantine": None, "seconds": 1.0}
    closed["config"] = opened.digest(config)
    storage.write_bytes(storage.join(config.state, opened.CLOSING), json.dumps(closed).encode())


@contextlib.contextmanager
def cut_at(number: int) -> Iterator[list[str]]:
    """Cut before the operation of this number that changes something; yields what was done before."""
    done: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((storage, "write_bytes"), (storage, "delete"), (shred, "everything")):
            original = getattr(module, name)

            def counted(*args: Any, name: str = name, original: Any = original, **kwargs: Any) -> Any:
                if len(done) == number:
                    raise Cut
                done.append(name)
                return original(*args, **kwargs)

            patch.setattr(module, name, counted)
        yield done


def goes_on(config: Config, held: lease.Held) -> run.RunResult | None:
    """As `run.run` begins."""
    closed = run._closing(config)
    if closed is not None:
        return run._close(config, closed, seal.new_key(), held)
    assert opened.resume(config) is None
    return None


@pytest.mark.parametrize("number", range(7))
def test_an_end_that_is_cut_anywhere_is_ended_by_the_next_run(
    config: Config, ours: opened.Opened, number: int
) -> None:
    closing(config, ours)
    manifest = storage.join(ours.output, "manifest.json")
    with lease.hold(config.state, "run") as held:
        with cut_at(number) as done, contextlib.suppress(Cut):
            goes_on(config, held)
        assert len(done) == min(number, 6), "destroy, note it, manifest, catalogue, open.json, closing.json"
        before = storage.read_bytes(manifest) if number > 2 else None
        result = goes_on(config, held)
    assert (result is None) == (number == 6)
    assert storage.read_bytes(storage.join(ours.output, "shards/a.tar")) == b"a"
    assert before in (None, storage.read_bytes(manifest)), "a manifest that is out stays as it is"
    signed = json.loads(storage.read_bytes(manifest))
    assert signed["run"] == ours.run
    assert seal.signed_by(signed, seal.load_public(signed["signature"]["public_key"]))
    assert number == 1 or signed["destruction"]["objects"] > 0
    assert result is None or result.public_key == signed["signature"]["public_key"]
    assert ledger.open(config.state, config.state_key).runs() == [ours.run]
    left = {file.uri.rpartition("/")[2] for file in storage.list_files(config.state)}
    assert not left & {opened.NAME, opened.CLOSING, "secret"}


def test_a_manifest_of_others_is_not_taken_for_the_runs_own(config: Config, ours: opened.Opened) -> None:
    closing(config, ours)
    manifest = storage.join(ours.output, "manifest.json")
    foreign = seal.sign({"run": ours.run, "counts": {"pictures_in": 9}}, seal.new_key())
    storage.write_bytes(manifest, json.dumps(foreign).encode())
    with lease.hold(config.state, "run") as held:
        assert goes_on(config, held) is not None
    signed = json.loads(storage.read_bytes(manifest))
    assert signed["counts"] == {"pictures_in": 1}
    assert signed["destruction"]["objects"] > 0
    assert storage.list_files(storage.join(config.state, ours.run)) == []


@pytest.mark.parametrize("what", ["gallery", "part"])
def test_a_run_goes_on_with_what_it_was_begun_with(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A file that has changed under the same name is another."""
    gallery, part = tmp_path / "gallery.parquet", tmp_path / f"ours_{what}.py"
    gallery.write_bytes(b"one")
    part.write_text("class Detector: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    detector = config.detector.model_copy(update={"name": f"ours_{what}:Detector"})
    config = config.model_copy(update={"gallery": str(gallery), "detector": detector})
    begun = opened.begin(config, b"s" * 32)
    found = opened.resume(config)
    assert found is not None
    assert found.run == begun.run
    {"gallery": gallery, "part": part}[what].write_bytes(b"another")
    with pytest.raises(ConfigError, match="another gallery or part under the same name"):
        opened.resume(config)


def test_what_a_dropped_run_has_noted_is_new_again(config: Config, ours: opened.Opened) -> None:
    assert opened.abandon(config) == ours.run
    assert ledger.open(config.state, config.state_key).runs() == []
    assert not storage.list_files(config.output.uri)
    assert opened.find(config) is None


def test_a_release_that_is_written_is_not_dropped_nor_ended_by_another_configuration(
    config: Config, ours: opened.Opened
) -> None:
    closing(config, ours)
    with pytest.raises(InputError, match="the same command ends it"):
        opened.abandon(config)
    other = config.model_copy(update={"unit_size": 7})
    with pytest.raises(ConfigError, match="begun with other settings"):
        run._closing(other)
    assert storage.exists(storage.join(ours.output, "shards/a.tar"))


def test_a_run_that_was_killed_after_its_quarantine_list_writes_it_anew(config: Config) -> None:
    lost = pa.table({"shard": ["0.tar"], "key": ["a"], "reason": ["empty"]})
    assert run._keep(config, "0a", lost) is not None
    again = pa.concat_tables([lost, lost])
    uri = run._keep(config, "0a", again)
    assert uri is not None
    assert quarantined(uri, config.state_key).equals(again)


def test_a_run_whose_lease_is_gone_leaves_what_is_open_now(config: Config, ours: opened.Opened) -> None:
    with lease.hold(config.state, "first", ttl_s=0.5, skew_s=0.1) as held:
        held.lost.set()
        run._clean(config, ours, held)
    assert opened.find(config) is not None
