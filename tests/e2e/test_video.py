"""Whole runs over video: faces are replaced in each frame, also where the detector misses them, by one surrogate."""

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
from numpy.typing import NDArray
from PIL import Image

from deid import config as configuration
from deid.config import Stage
from deid.errors import ConfigError
from deid.interfaces import Face
from deid.pipeline import parts
from deid.pipeline import plan as planning
from deid.pipeline import run as pipeline
from deid.privacy import seal, verify, wrapping
from deid.shards import storage
from tests.e2e import cast, corpus
from tests.unit.video import clips

FRAMES, WIDTH, HEIGHT, SIDE = 24, 400, 240, 150
MISSED = (9, 10)  # frames in which the detector sees nothing
RATE = Fraction(30000, 1001)
CLIPS = {"a.mp4": (0, 1), "b.mkv": (2, 3)}  # people in each


@pytest.fixture(scope="module", autouse=True)
def one_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=300 * 2**20)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def portraits() -> list[NDArray[np.uint8]]:
    people = cast.strangers(4)
    made = cast.photograph(people, 1, side=SIDE + 106)
    return [
        np.asarray(Image.open(io.BytesIO(made[person, 0])).resize((SIDE, SIDE)), np.uint8)
        for person in people
    ]


def place(number: int, frame: int) -> tuple[int, int]:
    """Left and top of the portrait of the clip's first or second person."""
    return (20 + 2 * frame, 30) if number == 0 else (230 - frame, 60)


def middle(number: int, frame: int) -> float:
    return place(number, frame)[0] + SIDE / 2


def drawn(faces: list[NDArray[np.uint8]], frame: int) -> NDArray[np.uint8]:
    picture = np.full((HEIGHT, WIDTH, 3), (60, 80, 90), np.uint8)
    picture[:, :, 0] += np.linspace(0, 60, WIDTH).astype(np.uint8)
    for number, face in enumerate(faces):
        left, top = place(number, frame)
        picture[top : top + SIDE, left : left + SIDE] = face
    if frame in MISSED:
        picture[:12, :12] = 255
    return picture


def encoded(faces: list[NDArray[np.uint8]], kind: str) -> bytes:
    sink = io.BytesIO()
    with av.open(sink, "w", format=kind) as out:
        stream = out.add_stream("libx264", rate=RATE, options={"crf": "12", "g": "10"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = 1 / RATE
        track = out.add_stream("aac", rate=48000)
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(drawn(faces, number), format="rgb24")
            frame.pts, frame.time_base = number, 1 / RATE
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        clips._hum(out, track, FRAMES / float(RATE))
    return sink.getvalue()


def frames_of(data: bytes) -> tuple[list[NDArray[np.uint8]], Fraction | None, list[str]]:
    """Frames, rate, kinds of tracks."""
    with av.open(io.BytesIO(data)) as file:
        kinds = [stream.type for stream in file.streams]
        rate = file.streams.video[0].average_rate
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)], rate, kinds


def job(folder: Path, **changes: Any) -> configuration.Config:
    if not (folder / "state.key").exists():
        wrapping.new_key_file(folder / "state.key")
    base = {
        "input": {"uri": str(folder / "raw"), "format": "video"},
        "output": {"uri": str(folder / "out")},
        "state": str(folder / "state"),
        "state_key": str(folder / "state.key"),
        "models": {"accept": ["clean", "permissive", "restricted"]},
        "unit_size": 10,
        "assignment": {"k": 2},
        "match": {"corrections": 0},
        "region": {"kind": "face"},
        "detector": {"name": "tests.faults.parts:DetectorThatBlinks"},
        "limits": {"max_quarantine_fraction": 0.6},
    }
    return configuration.parse(base | changes)


@pytest.fixture(scope="module")
def done(
    portraits: list[NDArray[np.uint8]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[configuration.Config, pipeline.RunResult]:
    folder = tmp_path_factory.mktemp("video")
    (folder / "raw").mkdir()
    for name, people in CLIPS.items():
        kind = {"mp4": "mp4", "mkv": "matroska"}[name[-3:]]
        (folder / "raw" / name).write_bytes(encoded([portraits[n] for n in people], kind))
    whole = (folder / "raw" / "a.mp4").read_bytes()
    (folder / "raw" / f"{corpus.CANARY}.mp4").write_bytes(whole[: len(whole) // 3])
    (folder / "raw" / "sound.mp4").write_bytes(clips.hum(0.5))
    config = job(folder)
    return config, pipeline.run(config)


def results(result: pipeline.RunResult) -> dict[str, bytes]:
    names = [entry["name"] for entry in result.manifest["objects"] if entry["name"].startswith("videos/")]
    return {name: storage.read_bytes(storage.join(result.output, name)) for name in names}


def test_frames_sizes_and_rate_stay_and_the_sound_goes(
    done: tuple[configuration.Config, pipeline.RunResult],
) -> None:
    config, result = done
    made = results(result)
    assert len(made) == 2
    for data in made.values():
        frames, rate, kinds = frames_of(data)
        assert (len(frames), kinds) == (FRAMES, ["video"])
        assert rate == pytest.approx(RATE, abs=0.05), "Matroska has whole milliseconds"
        assert frames[0].shape == (HEIGHT, WIDTH, 3)
        assert corpus.CANARY.encode() not in data
    counts = result.manifest["counts"]
    assert (counts["pictures_in"], counts["pictures_out"]) == (2 * FRAMES + 2, 2 * FRAMES)
    assert result.manifest["quarantine"] == {"no_image": 1, "shard_damaged": 1}
    assert result.quarantine is not None
    lost = planning.quarantined(result.quarantine, config.state_key)["shard"].to_pylist()
    assert sorted(uri.rpartition("/")[2] for uri in lost) == sorted([f"{corpus.CANARY}.mp4", "sound.mp4"])


def test_no_frame_shows_a_face_as_it_was_and_a_track_has_one_surrogate(
    done: tuple[configuration.Config, pipeline.RunResult], portraits: list[NDArray[np.uint8]]
) -> None:
    config, result = done
    counts = result.manifest["counts"]
    assert counts["faces"] == counts["replaced"] + counts["covered"]
    assert counts["faces"] >= 4 * FRAMES, "the frames that the detector missed are filled in"
    assert result.manifest["people"]["min"] >= 2
    clear = configuration.parse(config.model_dump() | {"detector": "centerface"})
    detector, mesher, embedder = (
        parts.build(clear, kind, Stage()) for kind in ("detector", "mesher", "embedder")
    )

    def embedded(picture: NDArray[np.uint8]) -> list[tuple[float, NDArray[np.float32]]]:
        """Middle and embedding of each face."""
        seen = detector.detect([picture])[0]
        meshes, scores = mesher.mesh(picture, seen)
        faces = [
            Face(box, float(score), points, mesh=mesh if sure > 0.5 else None, mesh_score=sure)
            for box, score, points, mesh, sure in zip(
                seen.boxes, seen.scores, seen.points, meshes, scores, strict=True
            )
        ]
        vectors = embedder.embed([picture], [faces])[0]
        return [
            (float(face.box[0] + face.box[2]) / 2, vector)
            for face, vector in zip(faces, vectors, strict=True)
        ]

    for frames in (frames_of(data)[0] for data in results(result).values()):
        distances = {  # which clip it is, by what stays the same: the parts of the picture away from the faces
            people: np.abs(frames[0][:20].astype(int) - drawn([portraits[n] for n in people], 0)[:20]).mean()
            for people in CLIPS.values()
        }
        assert max(distances.values()) < 6
        sources = []
        for people in CLIPS.values():
            before = embedded(drawn([portraits[n] for n in people], 0))
            sources.append(
                {n: min(before, key=lambda f, n=n: abs(f[0] - place(n, 0)[0] - SIDE / 2))[1] for n in (0, 1)}
            )  # type: ignore[misc]
        tracks: dict[int, list[NDArray[np.float32]]] = {0: [], 1: []}
        for number, frame in enumerate(frames):
            for x, vector in embedded(frame):
                own = int(abs(x - middle(1, number)) < abs(x - middle(0, number)))
                tracks[own].append(vector)
                for clip in sources:
                    assert np.linalg.norm(vector - clip[own]) > 0.5, f"frame {number} shows who it was"
        for vectors in tracks.values():
            assert len(vectors) >= FRAMES - 4
            spread = np.linalg.norm(np.array(vectors) - np.mean(vectors, 0), axis=1)
            assert np.median(spread) < 0.35, "one surrogate"


def test_the_release_is_as_it_was_signed_and_its_audit_names_videos(
    done: tuple[configuration.Config, pipeline.RunResult],
) -> None:
    _, result = done
    found = verify.verify(result.output, seal.load_public(result.public_key))
    assert [str(finding) for finding in found] == []
    audit = pq.read_table(Path(result.output) / "audit" / "part-00000.parquet")
    assert set(audit["shard"].to_pylist()) == set(results(result))
    assert {f"videos/{key}.mp4" for key in audit["output_id"].to_pylist()} == set(results(result))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"output": {"uri": "out", "format": "webdataset"}},
            r"output\.format: video cannot become webdataset",
        ),
        ({"assignment": {"mode": "per-face"}}, r"assignment\.mode: per-face draws anew"),
        ({"assignment": {"subject": "name"}}, r"assignment\.subject: a video has no"),
        (
            {"input": {"uri": "raw", "format": "folder"}, "output": {"uri": "out", "format": "video"}},
            "cannot become video",
        ),
    ],
)
def test_what_does_not_go_with_video_is_said(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        job(tmp_path, **changes)


def test_grey_faces_are_tracked_too_and_sound_stays_where_it_is_asked_for(
    portraits: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.mp4").write_bytes(encoded(portraits[:2], "mp4"))
    output = {"uri": str(tmp_path / "out"), "audio": "copy"}
    result = pipeline.run(job(tmp_path, anonymizer="solid", gate={"enabled": False}, output=output))
    (data,) = results(result).values()
    frames, _, kinds = frames_of(data)
    assert (len(frames), sorted(kinds)) == (FRAMES, ["audio", "video"])
    assert result.manifest["counts"]["covered"] >= 2 * FRAMES, "also in the frames in which nothing was seen"
    for number, pixels in enumerate(frames):
        for who in (0, 1):
            left, top = place(who, number)
            core = pixels[top + 60 : top + 90, left + 60 : left + 90].astype(int)
            source = drawn(portraits[:2], number)[top + 60 : top + 90, left + 60 : left + 90]
            assert core.std() < 5 < np.abs(core - source).mean(), (number, who)
    found = verify.verify(result.output, seal.load_public(result.public_key))
    assert [str(finding) for finding in found] == []
