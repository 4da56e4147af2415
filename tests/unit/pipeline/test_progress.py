"""Progress on a local folder: what is counted, how often it is written, what ends nothing, and what is said of it."""

import itertools
import logging
import shutil
import threading
import time
from pathlib import Path

import pytest

from deid.errors import InputError
from deid.pipeline import progress
from deid.shards import retry
from tests.writing import writing

CANARY = "canary-77ab"


def at(state: Path) -> progress.Progress:
    return progress.read(progress.place(str(state), "5f0c"))


def test_what_is_counted_is_read_back(tmp_path: Path) -> None:
    with writing(str(tmp_path), "5f0c", 60) as writer:
        writer.phase("replace", 4)
        writer.add(pictures_in=9, pictures_out=6, quarantined=2, dropped=1, faces=7, reasons={"empty": 2})
        writer.add(pictures_in=1, quarantined=1, reasons={"empty": 1})
        writer.add(units=0, failed=1)
    found = at(tmp_path)
    assert (found.run, found.state, found.phase, found.units_total) == ("5f0c", "done", "replace", 4)
    assert found.counts.model_dump() == {
        "units_done": 2,
        "units_failed": 1,
        "pictures_in": 10,
        "pictures_out": 6,
        "pictures_quarantined": 3,
        "pictures_dropped": 1,
        "faces": 7,
    }
    assert found.quarantine == {"empty": 3}
    assert found.eta is None
    assert [path.name for path in tmp_path.iterdir()] == ["5f0c.progress.json"]


def test_a_reason_that_is_no_code_is_not_written(tmp_path: Path) -> None:
    with writing(str(tmp_path), "5f0c") as writer:
        writer.add(reasons={CANARY: 2})
    assert at(tmp_path).quarantine == {"other": 2}
    assert CANARY not in Path(progress.place(str(tmp_path), "5f0c")).read_text()


def test_a_phase_begins_at_nought(tmp_path: Path) -> None:
    with writing(str(tmp_path), "5f0c") as writer:
        writer.phase("index", 2)
        writer.add(pictures_in=5, reasons={"empty": 1})
        writer.phase("replace", 3)
        found = writer.now()
    assert (found.counts.units_done, found.counts.pictures_in, found.quarantine) == (0, 0, {})
    assert (found.rate, found.eta) == (None, None)


def test_a_run_that_raises_has_failed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), writing(str(tmp_path), "5f0c"):
        raise ZeroDivisionError
    assert at(tmp_path).state == "failed"


def test_it_is_written_without_news_and_no_more_often_than_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes, write = list[float](), progress.storage.write_bytes

    def counted(uri: str, data: bytes, overwrite: bool = False) -> None:
        writes.append(time.monotonic())
        write(uri, data, overwrite)

    monkeypatch.setattr(progress.storage, "write_bytes", counted)
    begun = time.monotonic()
    with writing(str(tmp_path), "5f0c", 0.3) as writer:
        while time.monotonic() - begun < 1.4:
            writer.add()
            time.sleep(0.001)
    assert 3 <= len(writes) <= 6
    assert all(later - earlier >= 0.29 for earlier, later in itertools.pairwise(writes[:-1]))


def test_threads_lose_no_count(tmp_path: Path) -> None:
    with writing(str(tmp_path), "5f0c", 0.01) as writer:
        threads = [
            threading.Thread(target=lambda: [writer.add(faces=1) for _ in range(500)]) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (at(tmp_path).counts.units_done, at(tmp_path).counts.faces) == (4000, 4000)


def test_storage_that_fails_ends_nothing_and_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.01)
    state = tmp_path / "state"
    with caplog.at_level(logging.WARNING), writing(str(state), "5f0c", 0.4) as writer:
        time.sleep(0.2)  # between two writes
        shutil.rmtree(state)
        state.write_bytes(b"a file where the folder was")
        writer.add(faces=1)
        time.sleep(1.2)
        assert [record.message for record in caplog.records].count(
            "progress cannot be written (StorageError); the run goes on"
        ) == 1
        state.unlink()
    assert at(state).counts.faces == 1


def test_rate_and_end_are_of_the_last_minutes_and_not_of_what_was_done_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writing(str(tmp_path), "5f0c", 60) as writer:
        time.sleep(0.2)  # its first write
        clock = [1000.0]
        with monkeypatch.context() as times:
            times.setattr(time, "monotonic", lambda: clock[0])
            writer.phase("replace", 100)
            writer.add(units=40, pictures_in=4000, fresh=False)
            assert writer.now().rate is None
            clock[0] += 20
            writer.add(pictures_in=100)
            assert writer.now().rate == pytest.approx(5)
            assert (writer.now().eta or 0) - time.time() == pytest.approx(59 * 20, abs=1)
            clock[0] += 1000
            for _ in range(10):
                clock[0] += 30
                writer.add(pictures_in=90)
            found = writer.now()
            assert found.rate == pytest.approx(3)
            assert (found.eta or 0) - time.time() == pytest.approx(49 * 30, abs=1)
            clock[0] += 10_000  # nothing for long: the mean of the phase
            assert writer.now().rate == pytest.approx(1000 / 11_320)


def test_what_is_said(tmp_path: Path) -> None:
    with writing(str(tmp_path), "5f0c", 10) as writer:
        writer.phase("replace", 9)
        writer.add(units=5, pictures_in=9, pictures_out=8, quarantined=1, faces=7, reasons={"empty": 1})
        running = writer.now()
    said = progress.describe(running)
    assert said["state"] == "running"
    assert said["units"] == "5 of 9 done, 4 open, 0 failed"
    assert said["pictures"] == "9 in, 8 out, 1 quarantined, 0 dropped"
    assert said["quarantine"] == "empty 1"
    assert {"rate", "expected end"} <= said.keys()
    assert progress.describe(running, running.updated + 29)["state"] == "running"
    silent = progress.describe(running, running.updated + 31)
    assert silent["state"] == f"no sign of life since {silent['updated']}"
    assert "expected end" not in silent
    assert progress.describe(at(tmp_path), running.updated + 10_000)["state"] == "done"


def test_no_file_and_a_damaged_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="check the run's id"):
        at(tmp_path)
    for damaged in ("", "[]", '{"run": "5f0c"}'):
        Path(progress.place(str(tmp_path), "5f0c")).write_text(damaged)
        with pytest.raises(InputError, match="damaged"):
            at(tmp_path)
