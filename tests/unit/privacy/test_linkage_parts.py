"""The parts of the linkage attack: limits, blocks of pictures, pieces of names."""

import base64
import io

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from deid.privacy.linkage import columns, containers, line, names, pairs, reading
from deid.privacy.linkage.line import Finding, binomial_limit, correlation, lines, permuted, ranks, spearman
from deid.privacy.linkage.names import Texts, Written
from deid.shards import pictures

PIXELS = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)


def kinds(data: bytes) -> list[str]:
    return sorted({block.kind for block in containers.blocks(data)})


def saved(name: str, **options: object) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(PIXELS).save(sink, name, **options)
    return sink.getvalue()


def test_the_level_is_shared_out_and_what_chance_cannot_do_has_no_limit_but_itself() -> None:
    seen = []
    made = [Finding(name, 1, 0, lambda level: seen.append(level) or 2.0, "") for name in "ab"]
    found = lines([*made, Finding("c", 1, 0, None, "")])
    assert seen == [line.LEVEL / 2] * 2
    assert [entry.above for entry in found] == [False, False, True]


def test_ranks_and_rank_correlation() -> None:
    assert ranks(np.array([5, 1, 5, 9])).tolist() == [1.5, 0, 1.5, 3]
    values = np.random.default_rng(0).permutation(50)
    assert spearman(values, values**3) == pytest.approx(1)
    assert spearman(values, -values) == pytest.approx(-1)
    assert spearman(values, np.ones(50, int)) == spearman(values[:1], values[:1]) == 0


@pytest.mark.parametrize("n", [30, 300])
def test_the_limit_of_a_correlation_holds(n: int) -> None:
    rng, own = np.random.default_rng(n), np.arange(n)
    limit = correlation("", 0, n - 1, "").limit
    assert limit is not None
    passed = np.mean([abs(spearman(own, rng.permutation(n))) > limit(0.01) for _ in range(4000)])
    assert passed < 0.015


@pytest.mark.parametrize(("n", "values"), [(60, 6), (400, 3), (2000, 16)])
def test_the_limit_of_shared_information_holds(n: int, values: int) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.integers(0, values, n), rng.integers(0, 8, n)
    draws = np.array([columns.information(a, rng.permutation(b)) for _ in range(4500)])
    limit = permuted("", 0, draws[:500], "").limit
    assert limit is not None
    assert np.mean(draws[500:] > limit(0.01)) < 0.018
    assert draws[500:].max() < limit(1e-6)


def test_the_limit_of_a_count_is_the_binomial_one() -> None:
    limit = binomial_limit(20_000, 1 / 33)
    drawn = np.random.default_rng(0).binomial(20_000, 1 / 33, 100_000)
    assert 0.005 < np.mean(drawn > limit(0.01)) <= 0.0105
    assert binomial_limit(0, 0.1)(0.01) == 0
    assert binomial_limit(3, 1.0)(0.01) == 3


def test_shared_information_in_bits() -> None:
    a = np.arange(64) % 4
    assert columns.information(a, a) == pytest.approx(2)
    assert columns.information(a, np.arange(64) // 4 % 4) == pytest.approx(0)


def test_words_of_a_sound_audit() -> None:
    assert columns.closed("sex", ["male", "*", "unknown"])
    assert columns.closed("age_band", ["<18", "18-29", ">=60"])
    assert not columns.closed("age_band", ["17", "18"])
    assert not columns.closed("k_class", [f"{n}-{n + 1}" for n in range(17)])
    assert not columns.closed("notes", ["male"])


@pytest.mark.parametrize("extension", pictures.ENCODABLE)
def test_pictures_of_the_job_hold_pixels_alone(extension: str) -> None:
    data = pictures.encode(PIXELS, extension, 95)
    assert kinds(data) == ["pixels", "plain"] if extension != "webp" else ["pixels"]
    assert reading.fresh(data, extension, 95) == (extension == "png")  # the others change when encoded again


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_what_else_a_picture_holds_is_found(name: str) -> None:
    exif = Image.Exif()
    exif[0x013B] = "Alexandra Abendroth"
    found = containers.blocks(saved(name, exif=exif))
    texts = [text for block in found if block.kind == "extra" for text in containers.texts(block.data)]
    assert any("Alexandra Abendroth" in text for text in texts)
    assert "extra" in kinds(saved(name) + b"more")
    assert "extra" not in kinds(saved(name))


def test_comments_text_and_thumbnails() -> None:
    assert "extra" in kinds(saved("JPEG", comment="by Alexandra"))
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "Alexandra")
    assert "extra" in kinds(saved("PNG", pnginfo=text))
    jpeg = saved("JPEG")
    assert jpeg[6:11] == b"JFIF\0"
    assert "extra" in kinds(jpeg[:18] + b"\1\1" + jpeg[20:])
    assert "Alexandra" in containers.texts("Alexandra".encode("utf-16-le"))
    assert kinds(b"GIF89a") == ["other"]
    assert kinds(jpeg[:21]) == ["other"]


def test_standard_profiles_are_no_link() -> None:
    standard = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    other = standard.replace("sRGB".encode("utf-16-be"), "mine".encode("utf-16-be")).replace(b"sRGB", b"mine")
    for name in ("JPEG", "PNG", "WEBP"):
        found = [
            [b for b in containers.blocks(saved(name, icc_profile=icc * 1)) if b.kind == "icc"]
            for icc in (standard, other)
        ]
        assert [containers.standard_profile(blocks[0].data) for blocks in found] == [True, False]


@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
def test_pieces_of_base64_are_found_wherever_they_begin(before: str) -> None:
    written = names.squeeze(base64.b64encode(f"{before}charlotte-bergmann!".encode()).decode())
    found = {p for form, least in names.forms("charlotte-bergmann") for p in names.pieces(form, least)}
    assert not found.isdisjoint(names.pieces(written, 8))


def test_texts_by_what_they_look_like() -> None:
    written = Written()
    written.add(f"shards/{'0a' * 16}.tar", "object name")
    written.add("audit/part-00000.parquet 2026-11-24 2.13.0", "manifest")
    code = "Ab1/" * 20 + "=="
    written.add(code, "manifest")
    written.add("Alexandra Abendroth", "sidecar")
    assert list(written.ids.kept) == ["0a" * 16]
    assert list(written.codes.kept) == [names.squeeze(code)]
    assert set(written.readable.kept) == {"shards", "alexandraabendroth"}


def test_texts_beyond_the_most_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "MOST", 2)
    texts = Texts()
    for text in ("first text", "second text", "third text", "first text", "short"):
        texts.add(text)
    assert (len(texts.kept), texts.lost) == (2, 1)
    note = names.compare(Written(), texts, reading.Hashes())[0].note
    assert "1 further texts were not looked at" in note


def test_what_the_program_itself_writes_is_no_name_of_the_source() -> None:
    source, written = Texts(), Written()
    for word in ("surrogate", "sidecar_fields", "pictures_quarantined", "mobilestylegan", "manifest.json"):
        source.add(word)
        written.add(word, "manifest")
    assert names.compare(written, source, reading.Hashes())[0].value == 0
    source.add("a surrogate wedding")
    written.add("wedding", "manifest")
    assert names.compare(written, source, reading.Hashes())[0].value > 0


def test_shards_mirrored() -> None:
    assert pairs.mirrored([5, 9, 7], [9, 7, 5], 8).value == 1
    assert pairs.mirrored([5, 9, 7], [8, 8, 5], 8).value == 0
    same = pairs.mirrored([8, 8, 5], [8, 8, 5], 8)
    assert same.value == 0
    assert "nothing can be said" in same.note


def test_times_of_compressed_files() -> None:
    assert reading.times(b"\x1f\x8b\x08\0\1\0\0\0") == 1
    assert reading.times(b"\x1f\x8b\x08\0\0\0\0\0") == 0
    assert reading.times(b"PK\3\4\0\0\0\0\0\0\0\0\x21\0") == 0
    assert reading.times(b"PK\3\4\0\0\0\0\0\0\1\0\x21\0") == 1
