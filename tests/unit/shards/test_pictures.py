"""Every odd kind of picture, and that nothing but pixels goes out."""

import io
import struct
import time
from typing import Any

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from deid.errors import PictureError
from deid.shards import pictures
from tests.unit.shards.blocks import blocks

MAX_PIXELS = 50_000_000
CANARY = b"canary-71c2"


def portrait(side: int = 160) -> Image.Image:
    return Image.fromarray(skimage.data.astronaut()).resize((side, side), Image.Resampling.LANCZOS)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def decode(data: bytes) -> pictures.Decoded:
    return pictures.decode(data, MAX_PIXELS)


def distance(a: NDArray[np.uint8], b: Image.Image | NDArray[np.uint8]) -> float:
    """Mean absolute difference, 0..255."""
    return float(np.abs(a.astype(int) - np.asarray(b).astype(int)).mean())


def reason(data: bytes, max_pixels: int = MAX_PIXELS) -> str:
    with pytest.raises(PictureError) as caught:
        pictures.decode(data, max_pixels)
    return caught.value.reason


@pytest.mark.parametrize(
    ("kind", "name"),
    [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("BMP", "bmp"), ("TIFF", "tiff"), ("GIF", "gif")],
)
def test_every_format_of_the_allow_list_is_decoded(kind: str, name: str) -> None:
    decoded = decode(encoded(portrait(), kind))
    assert decoded.format == name
    assert not decoded.grey
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.flags.writeable
    assert distance(decoded.pixels, portrait()) < 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("fraction", [0.002, 0.02, 0.5, 0.9])
def test_a_cut_picture_is_truncated(kind: str, fraction: float) -> None:
    data = encoded(portrait(), kind)
    assert reason(data[: max(12, int(len(data) * fraction))]) == "truncated_image"


@pytest.mark.parametrize(
    "data", [b"this is no photograph, whatever its name says", b"\0" * 1000, b"%PDF-1.7"]
)
def test_bytes_of_another_kind_are_no_image(data: bytes) -> None:
    assert reason(data) == "not_an_image"


def test_a_format_off_the_allow_list_is_no_image() -> None:
    assert reason(encoded(portrait(), "PPM")) == "not_an_image"


def test_no_bytes_are_empty() -> None:
    assert reason(b"") == "empty"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_one_pixel_goes_through(kind: str) -> None:
    decoded = decode(encoded(Image.new("RGB", (1, 1), (200, 100, 50)), kind, quality=100))
    assert decoded.pixels.shape == (1, 1, 3)
    assert pictures.encode(decoded.pixels, decoded.format, 95)


def test_a_hundred_megapixels_are_too_large_and_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.new("1", (10_000, 10_000)))
    assert len(data) < 100_000

    def load(image: Image.Image) -> None:
        raise AssertionError("decoded before its size was checked")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    assert reason(data) == "too_large"


def test_the_limit_is_the_configured_one_also_above_pillows_own() -> None:
    data = encoded(Image.new("1", (20_000, 10_000)))
    assert reason(data, 199_999_999) == "too_large"
    with Image.open(io.BytesIO(data)) as image:  # Pillow alone refuses 179 million pixels
        assert image.size == (20_000, 10_000)


def test_cmyk_jpeg_becomes_rgb() -> None:
    decoded = decode(encoded(portrait().convert("CMYK"), "JPEG", quality=95))
    assert decoded.format == "jpg"
    assert distance(decoded.pixels, portrait()) < 6  # not inverted: that would be above 100


@pytest.mark.parametrize("profile", [None, b"not a profile at all"])
def test_a_broken_profile_is_ignored(profile: bytes | None) -> None:
    decoded = decode(encoded(portrait(), icc_profile=profile))
    assert distance(decoded.pixels, portrait()) == 0


def test_an_embedded_profile_is_converted_to_srgb() -> None:
    """The same colours, stored with linear tones, come back as sRGB; without the profile they do not."""
    srgb, wide = ImageCms.createProfile("sRGB"), linear_profile()
    stored = ImageCms.profileToProfile(portrait(), srgb, wide, ImageCms.Intent.RELATIVE_COLORIMETRIC, "RGB")
    assert stored is not None
    data = encoded(stored, icc_profile=wide.tobytes())
    assert distance(decode(data).pixels, portrait()) < 3
    without = Image.fromarray(np.asarray(stored))
    assert distance(decode(encoded(without)).pixels, portrait()) > 20


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = portrait().crop((0, 0, 160, 100))
    stored = upright.transpose(turn[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(encoded(stored, "JPEG", quality=95, exif=exif))
    assert decoded.pixels.shape == (100, 160, 3)
    assert distance(decoded.pixels, upright) < 5


def test_a_broken_exif_block_does_not_lose_the_picture() -> None:
    data = encoded(portrait(), "JPEG", quality=95, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\x01")
    assert distance(decode(data).pixels, portrait()) < 5


def test_16_bit_grey_png_keeps_its_tones() -> None:
    ramp = np.linspace(0, 65_535, 64 * 64).astype(np.uint16).reshape(64, 64)
    decoded = decode(encoded(Image.fromarray(ramp)))
    assert decoded.grey
    assert np.array_equal(decoded.pixels[..., 0], (ramp >> 8).astype(np.uint8))


def test_16_bit_colour_png_keeps_its_tones() -> None:
    import cv2

    deep = (np.asarray(portrait()).astype(np.uint16) * 257)[..., ::-1]
    written, data = cv2.imencode(".png", deep)
    assert written
    assert distance(decode(data.tobytes()).pixels, portrait()) == 0


@pytest.mark.parametrize(("kind", "extension"), [("JPEG", "jpg"), ("PNG", "png")])
def test_grey_stays_one_channel(kind: str, extension: str) -> None:
    grey = portrait().convert("L")
    decoded = decode(encoded(grey, kind, quality=95))
    assert decoded.grey
    assert (decoded.pixels == decoded.pixels[..., :1]).all()
    with Image.open(io.BytesIO(pictures.encode(decoded.pixels, extension, 95, grey=True))) as written:
        assert written.mode == "L"
        assert distance(np.asarray(written), grey) < 3


def test_a_grey_profile_leaves_grey_grey() -> None:
    decoded = decode(encoded(portrait().convert("L"), icc_profile=linear_profile().tobytes()))
    assert decoded.grey
    assert distance(decoded.pixels[..., 0], portrait().convert("L")) == 0


def test_palette_png_with_alpha_hides_what_was_hidden() -> None:
    image = portrait().convert("P", palette=Image.Palette.ADAPTIVE)
    data = encoded(image, transparency=bytes([0] * 128 + [255] * 128))
    clear = np.asarray(image) < 128
    pixels = decode(data).pixels
    assert clear.any()
    assert (pixels[clear] == 255).all()
    assert np.array_equal(pixels[~clear], np.asarray(image.convert("RGB"))[~clear])


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_do_not_survive(kind: str, mode: str) -> None:
    image = portrait().convert(mode)
    alpha = Image.new("L", image.size, 0)
    alpha.paste(255, (0, 0, 80, 160))
    image.putalpha(alpha)
    pixels = decode(
        encoded(image, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    ).pixels
    assert (pixels[:, 80:] == 255).all()
    assert (pixels[:, :80] != 255).any()


def test_a_colour_key_is_transparency_too() -> None:
    image = Image.new("RGB", (8, 8), (10, 20, 30))
    image.paste((200, 0, 0), (0, 0, 4, 8))
    pixels = decode(encoded(image, transparency=(10, 20, 30))).pixels
    assert (pixels[:, 4:] == 255).all()
    assert (pixels[:, :4] == (200, 0, 0)).all()


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "PNG", "TIFF", "MPO"])
def test_more_than_one_frame_is_animated(kind: str) -> None:
    second = portrait().transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert reason(encoded(portrait(), kind, save_all=True, append_images=[second])) == "animated"


def test_pages_are_not_counted() -> None:
    """A small file may have many, and each would be looked up among all before it."""
    pages, size = 8000, 102
    entries = [(256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 0), (278, 1), (279, 1)]
    page = struct.pack("<H", 8) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    nexts = [8 + size * n for n in range(1, pages)] + [0]
    data = b"II*\0" + struct.pack("<I", 8) + b"".join(page + struct.pack("<I", at) for at in nexts)
    start = time.process_time()
    assert reason(data) == "animated"
    assert time.process_time() - start < 0.5


def told() -> dict[str, Any]:
    """Options of Pillow that write a canary into every block that it can write."""
    exif = Image.Exif()
    exif[0x010E] = CANARY.decode()
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>" + CANARY + b"</x:xmpmeta>"
    icc = linear_profile(CANARY).tobytes()
    return {"exif": exif, "xmp": xmp, "icc_profile": icc, "dpi": (71, 71)}


def texts() -> PngInfo:
    info = PngInfo()
    info.add_text("Author", CANARY.decode())
    info.add_text("Comment", CANARY.decode() * 9, zip=True)
    info.add_itxt("Title", CANARY.decode(), "en", CANARY.decode())
    info.add(b"tIME", b"\x07\xe8\x01\x01\x01\x01\x01")
    return info


def sources() -> dict[str, bytes]:
    """Pictures with all that their formats can say beside the pixels."""
    deep = np.linspace(0, 65_535, 64 * 64).astype(np.uint16).reshape(64, 64)
    jpeg = told() | {"comment": CANARY}
    return {
        "jpeg": encoded(portrait(), "JPEG", **jpeg),
        "cmyk": encoded(portrait().convert("CMYK"), "JPEG", **jpeg),
        "grey jpeg": encoded(portrait().convert("L"), "JPEG", **jpeg),
        "behind the end": encoded(portrait(), "JPEG") + CANARY,
        "png": encoded(portrait(), "PNG", **told(), pnginfo=texts()),
        "16 bit": encoded(Image.fromarray(deep), "PNG", **told(), pnginfo=texts()),
        "palette": encoded(portrait().quantize(64), "PNG", **told(), pnginfo=texts()),
        "webp": encoded(portrait(), "WEBP", **told()),
        "gif": encoded(portrait().quantize(64), "GIF", comment=CANARY),
        "tiff": encoded(portrait(), "TIFF", description=CANARY.decode(), artist=CANARY.decode()),
    }


ALLOWED = {
    "jpg": {"APP0", "DB", "C0", "C4", "DA"},  # JFIF, tables, frame, scan
    "png": {"IHDR", "IDAT", "IEND"},
    "webp": {"VP8 "},
}


@pytest.mark.parametrize("extension", pictures.ENCODABLE)
@pytest.mark.parametrize(
    "source",
    [
        "jpeg",
        "cmyk",
        "grey jpeg",
        "behind the end",
        "png",
        "16 bit",
        "palette",
        "webp",
        "gif",
        "tiff",
    ],
)
def test_nothing_but_pixels_goes_out(source: str, extension: str) -> None:
    data = sources()[source]
    assert CANARY in data
    decoded = decode(data)
    for quality in (60, 95):
        result = pictures.encode(decoded.pixels, extension, quality, decoded.grey)
        found = blocks(result)
        assert {name for name, _ in found} <= ALLOWED[extension]
        for name, content in found:
            if name == "APP0":
                assert content == b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"  # no density, no thumbnail
        assert CANARY not in result
        assert pictures.encode(decode(result).pixels, extension, quality, decoded.grey)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_the_blocks_that_may_not_go_out_are_seen_in_the_source(kind: str) -> None:
    extension = {"jpeg": "jpg"}.get(kind, kind)
    names = {name for name, _ in blocks(sources()[kind])} - ALLOWED[extension]
    assert (
        names
        >= {
            "jpeg": {"APP1", "APP2", "COM"},
            "png": {"eXIf", "iCCP", "tEXt", "zTXt", "iTXt", "tIME", "pHYs"},
            "webp": {"VP8X", "EXIF", "XMP ", "ICCP"},
        }[kind]
    )
    with pytest.raises(ValueError, match="behind"):
        blocks(encoded(portrait(), kind.upper()) + CANARY)


def test_encoding_depends_on_the_pixels_alone() -> None:
    pixels = np.asarray(portrait())
    for extension in pictures.ENCODABLE:
        assert pictures.encode(pixels, extension, 90) == pictures.encode(pixels.copy(), extension, 90)
        assert distance(decode(pictures.encode(pixels, extension, 90)).pixels, pixels) < 5


def test_a_side_that_webp_cannot_hold_is_an_encode_failure() -> None:
    with pytest.raises(PictureError) as caught:
        pictures.encode(np.zeros((1, 16_384, 3), np.uint8), "webp", 95)
    assert caught.value.reason == "encode_failed"


def linear_profile(name: bytes = b"linear") -> ImageCms.ImageCmsProfile:
    """An RGB profile with sRGB's primaries and linear tones, put together by ICC.1:2010, section 7 and 10."""

    def tag(kind: bytes, body: bytes) -> bytes:
        data = kind + bytes(4) + body
        return data + bytes(-len(data) % 4)

    def fixed(*values: float) -> bytes:
        return b"".join(round(value * 65_536).to_bytes(4, "big", signed=True) for value in values)

    colours = {b"rXYZ": (0.43607, 0.22249, 0.01392), b"gXYZ": (0.38515, 0.71687, 0.09708)}
    colours |= {b"bXYZ": (0.14307, 0.06061, 0.7141), b"wtpt": (0.9642, 1.0, 0.8249)}
    tags = {name: tag(b"XYZ ", fixed(*value)) for name, value in colours.items()}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), tag(b"curv", bytes(4)))
    text = name + b"\0"
    tags[b"desc"] = tag(b"desc", len(text).to_bytes(4, "big") + text + bytes(78))
    tags[b"cprt"] = tag(b"text", b"none\0")
    table, body, start = len(tags).to_bytes(4, "big"), b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        table += name + (start + len(body)).to_bytes(4, "big") + len(data).to_bytes(4, "big")
        body += data
    size = (start + len(body)).to_bytes(4, "big")
    header = size + bytes(4) + b"\x02\x40\0\0" + b"mntr" + b"RGB " + b"XYZ " + bytes(12) + b"acsp" + bytes(28)
    header += fixed(0.9642, 1.0, 0.8249)
    return ImageCms.ImageCmsProfile(io.BytesIO(header.ljust(128, b"\0") + table + body))
