"""Lives of a process, each a real one, that a picture ends."""

import ast
import multiprocessing
import os
from pathlib import Path

import pyarrow as pa

from deid.pipeline import rows
from deid.pipeline.careful import CALM, TRIES, careful, journal_name
from deid.pipeline.rows import Row
from deid.privacy.vault import Vault


class Stage:
    """Marks the pictures that it has done; ends the process on `deadly` ones. Rows that failed are not touched."""

    def __init__(self, deadly: bytes, calls: Path) -> None:
        self.deadly, self.calls = deadly, calls

    def __call__(self, table: pa.Table) -> pa.Table:
        with self.calls.open("a") as log:
            log.write(f"{len(table)} ")
        items = rows.from_table(table)
        for row in items:
            if row.image == self.deadly:
                os._exit(9)
            if not row.reason:
                row.result = b"done"
        return rows.to_table(items)


def pictures(*units: int) -> pa.Table:
    """Two units' worth of pictures "unit-position"; position 3 of each has failed before."""
    made = [Row(u, p, 10 * u + p, b"%d-%d" % (u, p), "jpg") for u in units for p in range(5)]
    for row in made:
        if row.position == 3:
            row.fail("not_an_image")
    return rows.to_table(made)


def life(number: int, deadly: bytes, folder: Path, table: pa.Table, sink: Path) -> int:
    """How one process ends that takes `table`; its result is in `sink` when it ends well."""

    def work() -> None:
        stage = careful(Stage)(Vault(str(folder / "state"), b"k" * 32), deadly, folder / "calls")
        stage.watched = 0 if number == 0 else CALM
        sink.write_bytes(rows_of(stage(table)))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


def rows_of(table: pa.Table) -> bytes:
    return repr([(r.unit, r.position, r.reason, r.result, r.image) for r in rows.from_table(table)]).encode()


def test_a_picture_that_ends_lives_is_found_and_the_others_are_kept(tmp_path: Path) -> None:
    table, sink = pictures(0, 1), tmp_path / "result"
    ends = [life(n, b"1-2", tmp_path, table, sink) for n in range(TRIES + 2)]
    assert ends == [9] * (TRIES + 1) + [0]
    found = {(u, p): (reason, result) for u, p, reason, result, _ in ast.literal_eval(sink.read_text())}
    assert len(found) == 10
    assert found.pop((1, 2)) == ("crashed", b"")
    assert {found.pop((0, 3)), found.pop((1, 3))} == {("not_an_image", b"")}
    assert set(found.values()) == {("", b"done")}
    assert b"1-2" not in sink.read_bytes(), "nothing of the picture goes any further"


def test_a_crash_is_remembered_after_the_unit(tmp_path: Path) -> None:
    table, sink = pictures(1), tmp_path / "result"
    for number in range(TRIES + 2):
        life(number, b"1-0", tmp_path, table, sink)
    assert life(1, b"1-0", tmp_path, table, sink) == 0, "known from before, so it is not tried"


def test_lives_that_end_elsewhere_cost_no_picture(tmp_path: Path) -> None:
    sink = tmp_path / "result"
    vault = Vault(str(tmp_path / "state"), b"k" * 32)
    for deadly in (
        b"1-0",
        b"1-1",
        b"1-2",
        b"1-4",
    ):  # another one each time, as when somebody ends the process
        assert life(1, deadly, tmp_path, pictures(1), sink) == 9
    assert life(1, b"none", tmp_path, pictures(1), sink) == 0
    assert "crashed" not in sink.read_text()
    assert vault.get(journal_name("stage", 1)) == b"{}"


def test_batches_come_back_after_a_while(tmp_path: Path) -> None:
    stage = careful(Stage)(Vault(str(tmp_path / "state"), b"k" * 32), b"none", tmp_path / "calls")
    assert stage.watched == 0, "outside of Ray nothing was started again"
    stage.watched = CALM
    for unit in range(CALM + 1):
        assert len(stage(pictures(unit))) == 5
    assert (tmp_path / "calls").read_text().split() == ["1"] * 4 * CALM + ["5"]
    (tmp_path / "calls").unlink()
    stage(pictures(20, 21))
    assert (tmp_path / "calls").read_text().split() == ["10"], "no journal and no slices in a first life"
    assert Vault(str(tmp_path / "state"), b"k" * 32).names("journal/stage/0000002") == []
