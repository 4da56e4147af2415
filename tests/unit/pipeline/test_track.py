"""Tracks between the passes, and segments and videos behind them, without Ray."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from deid import config
from deid.errors import ConfigError
from deid.interfaces import Face
from deid.pipeline import film, plan, rows, track
from deid.pipeline.index import faces_name, index_name
from deid.pipeline.plan import Plan
from deid.pipeline.publish import Commits
from deid.pipeline.rows import Row
from deid.pipeline.track import Film
from deid.privacy import keys, verify_video
from deid.privacy.vault import Vault
from deid.shards import storage, tables
from deid.video import container, encode, frames, settle
from tests.unit.video import clips, walks

SECRET = b"s" * 32
FRAMES = 30


def settings(folder: Path, **changes: object) -> config.Config:
    given = {"input": {"uri": str(folder / "raw"), "format": "video"}, "state": str(folder / "state")}
    return config.parse(given | {"output": {"uri": str(folder / "out")}, "unit_size": 12} | changes)


@pytest.fixture
def made(tmp_path: Path) -> tuple[config.Config, Plan]:
    """Two files of three units each, planned without Ray."""
    for n in range(2):
        storage.write_bytes(str(tmp_path / "raw" / f"{n}.mp4"), clips.clip(FRAMES))
    options, state = settings(tmp_path), Vault(str(tmp_path / "state"), b"k" * 32)
    listed = plan.shards(options)
    units = list(plan.again(options, SECRET))
    window = {"shards": 2, "groups": [1] * len(units), "files": [3, 3], "pictures": 2 * FRAMES}
    table = pa.Table.from_pylist([window], schema=plan.WINDOWS)
    planned = Plan(state, table, "0")
    assert len(listed) == 2
    for unit, records in units:
        state.put(planned.name(unit), tables.to_bytes(records))
    return options, planned


def test_units_are_runs_of_frames_of_one_file(made: tuple[config.Config, Plan]) -> None:
    _, planned = made
    assert planned.files() == [range(3), range(3, 6)]
    uris = []
    for units in planned.files():
        found = pa.concat_tables([planned.unit(unit) for unit in units])
        assert found["offset"].to_pylist() == list(range(FRAMES))
        assert {len(planned.unit(unit)) for unit in units} == {10}
        uris += found["uri"].unique().to_pylist()
    assert len(set(uris)) == 2
    assert planned.groups(range(6)) == [[n] for n in range(6)], "each is read by itself"


def seen(made: tuple[config.Config, Plan]) -> list[int]:
    """What pass 1 saw of the first file: a person who walks, missed in some frames; the missed ones."""
    options, planned = made
    path = walks.line((20, 30), (60, 30), 40, FRAMES)
    walked = walks.walk({0: path}, np.random.default_rng(1))
    missed = [8, 9, 10, 11, 12, 20]
    writer = track.WriteSeen(options, planned.vault)
    still = frames.encoded(clips.picture(0))
    for unit in range(3):
        items = []
        for number in range(10):  # the clip's own pictures jump like cuts
            row = Row(unit, number, 10, still, "bmp", number, width=96, height=64)
            frame = 10 * unit + number
            row.faces = [] if frame in missed else [walks.faces(walked, frame)]
            items.append(row)
        items[3].fail("detector_failed") if unit == 2 else None
        writer(rows.to_table(items[::-1]))
    return missed


def test_gaps_are_filled_a_track_has_one_embedding_and_it_can_be_done_again(
    made: tuple[config.Config, Plan],
) -> None:
    options, planned = made
    missed = seen(made)
    track.track(range(3), options, planned)
    names = [name for unit in range(3) for name in (index_name(unit), faces_name(unit))]
    before = [planned.vault.get(name) for name in names]
    found = [
        (10 * unit + row.position, row.reason, row.faces)
        for unit in range(3)
        for row in rows.from_table(tables.from_bytes(planned.vault.get(index_name(unit))))
    ]
    assert [frame for frame, *_ in found] == list(range(FRAMES))
    assert [frame for frame, _, faces in found if len(faces) != 1] == [23]
    assert found[23][1] == "detector_failed"
    faces = {frame: faces[0] for frame, _, faces in found if faces}
    vectors = np.array([face.embedding for face in faces.values()])
    assert (vectors == vectors[0]).all()
    assert {frame for frame, face in faces.items() if face.score == 0} == set(missed)
    for frame in missed:
        middle = (faces[frame].box[:2] + faces[frame].box[2:]) / 2
        assert np.abs(middle - [20 + 40 * frame / (FRAMES - 1), 30]).max() < 4
    table = pa.concat_tables([tables.from_bytes(planned.vault.get(faces_name(unit))) for unit in range(3)])
    assert len(table) == FRAMES - 1
    assert len(set(table["counts"].to_pylist())) == 1, "all of a track count, or none"
    assert planned.vault.has("tracked/00000000")
    track.track(range(3), options, planned)
    assert [planned.vault.get(name) for name in names] == before


def test_frames_that_do_not_go_out_are_grey_and_units_become_one_video(
    made: tuple[config.Config, Plan], tmp_path: Path
) -> None:
    options, planned = made
    seen(made)
    track.track(range(3), options, planned)
    assert Film.load(planned.vault, 2).first == 0
    writer = film.WriteVideo(str(tmp_path / "out"), planned.vault, SECRET, options, 0)
    face = Face(np.array([0, 0, 30, 40], np.float32), 0.9, np.zeros((5, 2), np.float32))
    face.anonymizer, face.status, face.gate = "solid", "covered", "unchecked"
    for unit in range(3):
        items = []
        for number, image, *_ in frames.read(planned.unit(unit)):
            row = Row(unit, number, 10, b"", "bmp", number, result=image, result_extension="bmp")
            row.faces = [face]
            items.append(row)
        items[4].fail("gate_failed")
        (commit,) = writer(rows.to_table(items)).to_pylist()
        assert (commit["pictures_out"], commit["pictures_dropped"], commit["objects"]) == (9, 1, [])
    entry = film.join(range(3), options, planned, SECRET, str(tmp_path / "out"), Commits(planned.vault))
    assert entry is not None
    video = keys.video_id(SECRET, 0)
    assert entry["name"] == f"videos/{video}.mp4"
    data = storage.read_bytes(str(tmp_path / "out" / entry["name"]))
    shown = dict(container.decode(data, container.probe(data)))
    assert len(shown) == FRAMES
    for number, pixels in shown.items():
        grey = number % 10 == 4
        assert bool(np.abs(pixels.astype(int) - film.GREY).max() <= 3) == grey
        if not grey:
            assert np.abs(pixels.astype(int) - clips.picture(number)).mean() < 8
    audit = Commits(planned.vault).audit(1)
    out = [row for row in audit.to_pylist() if row["status"] == "covered"]
    assert {(row["output_id"], row["shard"]) for row in out} == {(video, entry["name"])}
    (dropped,) = [row for row in audit.to_pylist() if row["status"] == "dropped"]
    assert (dropped["output_id"] != video, dropped["shard"]) == (True, "")
    checked = verify_video.read(entry["name"], data, sound=False)
    assert (checked.keys, checked.pictures, checked.faults) == ([video], FRAMES, [])


def test_a_file_of_which_no_video_can_be_made_is_quarantined(
    made: tuple[config.Config, Plan], tmp_path: Path
) -> None:
    options, planned = made
    seen(made)
    for unit in range(3):  # a month before the last frame
        records = planned.unit(unit)
        _, key, size = records["key"][-1].as_py().split()
        late = [f"{10**11} {key} {size}"] if unit == 2 else records["key"][-1:].to_pylist()
        keys_ = pa.array(records["key"].to_pylist()[:-1] + late)
        changed = records.set_column(records.schema.get_field_index("key"), "key", keys_)
        planned.vault.put(planned.name(unit), tables.to_bytes(changed), overwrite=True)
    track.track(range(3), options, planned)
    writer = film.WriteVideo(str(tmp_path / "out"), planned.vault, SECRET, options, 0)
    for unit in range(3):
        items = [Row(unit, n, 10, b"", "bmp", n, result=b"BM", result_extension="bmp") for n in range(10)]
        (commit,) = writer(rows.to_table(items)).to_pylist()
        counts = [commit[f"pictures_{name}"] for name in ("in", "out", "quarantined", "dropped")]
        assert (counts, commit["reasons"]) == ([10, 0, 0, 10], [{"name": "encode_failed", "pictures": 10}])
    assert (
        film.join(range(3), options, planned, SECRET, str(tmp_path / "out"), Commits(planned.vault)) is None
    )


@pytest.mark.parametrize("rate", [1000, 90_000])
def test_a_rate_without_a_bound_is_not_followed(tmp_path: Path, rate: int) -> None:
    options = settings(tmp_path)
    assert settle.margin(track.settings_of(options, rate)) == settle.margin(track.settings_of(options, 240))
    assert track.settings_of(options, 240).gap == 240


def test_what_the_job_does_not_write_is_a_fault_of_a_video(tmp_path: Path) -> None:
    source = clips.clip(20, sound="aac")
    video = container.probe(source)
    shape = encode.Shape.of(video)
    part = encode.segment([(int(time), clips.picture(n)) for n, time in enumerate(video.pts)], shape)
    plain, sounding = encode.join([part], shape), encode.join([part], shape, sound=source)
    name = f"videos/{'0' * 32}.mp4"

    def faults(data: bytes, sound: bool = False) -> list[str]:
        return verify_video.read(name, data, sound).faults

    assert faults(plain) == faults(sounding, sound=True) == []
    assert faults(sounding) == ["has other tracks than one of pictures"]
    assert "has messages beside its pictures" in faults(clips.clip(20))
    assert faults(plain + b"\0\0\0\x0cuuidname") == ["has a box uuid, which the job does not write"]
    at = plain.index(b"mvhd") + 8
    assert faults(plain[:at] + b"\1" + plain[at + 1 :]) == ["says in mvhd when it was made"]
    assert faults(plain.replace(b"VideoHandler", b"VideoHandles")) == ["names what wrote it"]
    size = len(plain) - plain.index(b"mdat") + 4
    longer = plain.replace(size.to_bytes(4) + b"mdat", (size + 4).to_bytes(4) + b"mdat") + b"name"
    assert faults(longer) == ["has bytes beside its samples"]
    assert faults(plain[:-1]) == ["cannot be read as the MP4 that the job writes"]
    assert faults(b"") != []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"output": {"uri": "out", "format": "parquet"}}, "output.format"),
        ({"input": {"uri": "raw"}, "output": {"uri": "out", "format": "video"}}, "output.format"),
        ({"assignment": {"mode": "per-face"}}, "flicker"),
        ({"assignment": {"subject": "who"}}, "assignment.subject"),
    ],
)
def test_what_cannot_go_with_video_is_refused(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        settings(tmp_path, **changes)
