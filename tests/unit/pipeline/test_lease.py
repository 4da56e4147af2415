"""The lease on a local folder: who gets it, how long, and how its loss is noticed."""

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deid.errors import InputError
from deid.pipeline import lease
from deid.shards import retry


def generations(state: Path) -> list[int]:
    """Numbers of the entries that are whole; one that is being written bears another name."""
    return sorted(int(path.stem) for path in (state / "lease").glob("[0-9]*.json"))


def abandoned(state: Path, seconds_ago: float, generation: int = 1) -> None:
    """What a run leaves whose process is gone."""
    (state / "lease").mkdir(parents=True, exist_ok=True)
    entry = {"owner": "ab" * 16, "run": "gone", "expires": time.time() - seconds_ago}
    (state / "lease" / f"{generation:012d}.json").write_text(json.dumps(entry))


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def test_a_second_run_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    with lease.hold(str(tmp_path), "first") as held:
        held.check()
        found = lease.holder(str(tmp_path))
        assert found is not None
        assert found.run == "first"
        assert 50 < found.expires - time.time() <= lease.TTL_S
        refusal = pytest.raises(lease.Taken, match=r"until \d\d:\d\d:\d\d UTC.*wait")
        with refusal as caught, lease.hold(str(tmp_path), "second"):
            pytest.fail("two hold it")
        assert caught.value.exit_code == 5
    assert lease.holder(str(tmp_path)) is None
    with lease.hold(str(tmp_path), "second") as held:
        held.check()


def test_it_is_released_when_the_block_raises(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lease.hold(str(tmp_path), "first"):
        raise ZeroDivisionError
    with lease.hold(str(tmp_path), "second") as held:
        held.check()


def test_it_is_renewed_far_beyond_its_time_and_leaves_few_objects(tmp_path: Path) -> None:
    with lease.hold(str(tmp_path), "first", ttl_s=0.6, skew_s=0) as held:
        end = time.monotonic() + 2
        while time.monotonic() < end:
            held.check()
            with pytest.raises(lease.Taken), lease.hold(str(tmp_path), "second", ttl_s=0.6, skew_s=0):
                pytest.fail("two hold it")
        assert generations(tmp_path)[-1] >= 5
        assert len(generations(tmp_path)) <= 3
    before = generations(tmp_path)
    with lease.hold(str(tmp_path), "second"):
        assert generations(tmp_path)[-1] == before[-1] + 1


@pytest.mark.parametrize(("ago", "taken"), [(-60, True), (1, True), (4, True), (6, False)])
def test_others_wait_for_the_end_and_for_what_clocks_may_differ(
    tmp_path: Path, ago: float, taken: bool
) -> None:
    abandoned(tmp_path, ago)
    if taken:
        with pytest.raises(lease.Taken), lease.hold(str(tmp_path), "next"):
            pytest.fail("taken too early")
    else:
        with lease.hold(str(tmp_path), "next") as held:
            held.check()


def test_of_many_that_want_an_abandoned_lease_one_gets_it(tmp_path: Path) -> None:
    for turn in range(5):
        state = tmp_path / str(turn)
        abandoned(state, 60)
        barrier, done, outcomes = threading.Barrier(8), threading.Event(), list[str]()

        def want(state: Path = state, b: threading.Barrier = barrier, done: threading.Event = done) -> None:
            b.wait()
            try:
                with lease.hold(str(state), "next"):
                    outcomes.append("held")  # noqa: B023 - joined below
                    done.wait(10)
            except lease.Taken:
                outcomes.append("taken")  # noqa: B023

        threads = [threading.Thread(target=want) for _ in range(8)]
        for thread in threads:
            thread.start()
        wait_for(lambda outcomes=outcomes: len(outcomes) == 8)  # type: ignore[misc]
        done.set()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["held"] + ["taken"] * 7


def test_no_two_are_inside_at_once_while_many_take_and_release(tmp_path: Path) -> None:
    inside, most, count = [0], [0], [0]
    lock = threading.Lock()

    def want() -> None:
        for _ in range(6):
            while True:
                try:
                    with lease.hold(str(tmp_path), "x"):
                        with lock:
                            inside[0] += 1
                            most[0] = max(most[0], inside[0])
                            count[0] += 1
                        time.sleep(0.005)
                        with lock:
                            inside[0] -= 1
                    break
                except lease.Taken:
                    time.sleep(0.002)

    threads = [threading.Thread(target=want) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most[0], count[0]) == (1, 30)


def test_a_higher_generation_of_another_is_noticed(tmp_path: Path) -> None:
    calls = list[int]()
    with lease.hold(str(tmp_path), "first", ttl_s=1.5, on_lost=lambda: calls.append(1)) as held:
        abandoned(tmp_path, -100, generation=generations(tmp_path)[-1] + 1)
        assert held.lost.wait(1.0)
        wait_for(lambda: bool(calls))
        with pytest.raises(lease.Lost, match="run the same command again") as caught:
            held.check()
        assert caught.value.exit_code == 5
    found = lease.holder(str(tmp_path))  # what another holds is not released
    assert found is not None
    assert found.run == "gone"
    assert calls == [1]


def test_it_is_lost_at_its_end_when_the_folder_is_gone_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.01)
    state = tmp_path / "state"
    begun = time.time()
    with lease.hold(str(state), "first", ttl_s=1.5, skew_s=0) as held:
        shutil.rmtree(state)
        state.write_bytes(b"a file where the folder was")
        assert held.lost.wait(5)
        assert 1.5 <= time.time() - begun < 3
        with pytest.raises(lease.Lost):
            held.check()


def test_a_short_failure_is_outlived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.01)
    state = tmp_path / "state"
    with lease.hold(str(state), "first", ttl_s=2.4, skew_s=0) as held:
        state.rename(tmp_path / "away")
        state.write_bytes(b"a file where the folder was")
        time.sleep(1.4)  # at least one renewal fails
        state.unlink()
        (tmp_path / "away").rename(state)
        time.sleep(1.8)
        held.check()
        assert generations(state)[-1] >= 2


def test_check_sees_the_end_without_any_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with lease.hold(str(tmp_path), "first") as held:
        held.check()
        later = time.time() + 61
        with monkeypatch.context() as clock:
            clock.setattr(time, "time", lambda: later)
            with pytest.raises(lease.Lost):
                held.check()


def test_a_damaged_lease_is_no_free_lease(tmp_path: Path) -> None:
    abandoned(tmp_path, 60)
    for damaged in ("", "[]", "{}", '{"owner": "a", "run": "b", "expires": "soon"}'):
        (tmp_path / "lease" / f"{1:012d}.json").write_text(damaged)
        with pytest.raises(InputError, match="delete the folder lease"), lease.hold(str(tmp_path), "next"):
            pytest.fail("taken")


def test_other_files_there_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "lease").mkdir()
    (tmp_path / "lease" / "note.json").write_text("")
    with lease.hold(str(tmp_path), "first") as held:
        held.check()
