"""Between encoded pictures and pixels, by Pillow; what goes out holds pixels and nothing else.

Allowed in: JPEG, PNG, WebP, BMP, TIFF, GIF, one frame each. A second frame of any kind (animation, second page of a
TIFF, second view of an MPO) makes a picture "animated", since only the first would be looked at.
"""

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from deid.errors import PictureError

Image.MAX_IMAGE_PIXELS = None  # decode() checks against its own limit, which may be below or above Pillow's

EXTENSIONS = frozenset({"jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "tif", "tiff", "gif", "mpo"})
ENCODABLE = ("jpg", "png", "webp")
_FORMATS = {
    "JPEG": "jpg",
    "MPO": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "BMP": "bmp",
    "TIFF": "tiff",
    "GIF": "gif",
}
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, struct.error, zlib.error)
_FULL_CHROMA_FROM = 90  # JPEG quality from which colour is stored at full resolution
_PROFILE_MODES = {
    "RGB ": "RGB",
    "GRAY": "L",
    "CMYK": "CMYK",
}  # colour space of an ICC profile: mode of pixels
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@dataclass(frozen=True)
class Decoded:
    pixels: NDArray[np.uint8]  # [H, W, 3] RGB (sRGB), upright
    grey: bool  # the source has one channel, so the three are equal
    format: str  # jpg, png, webp, bmp, tiff, gif


def decode(data: bytes, max_pixels: int) -> Decoded:
    """Pixels of an encoded picture: upright, sRGB, 8 bit, transparency over white.

    Raises:
        PictureError: "empty", "not_an_image" (also 32-bit and Lab TIFF), "too_large" (found in the header, before
            anything is decoded), "animated" or "truncated_image".
    """
    if not data:
        raise PictureError("empty")
    with _open(data) as image:
        if image.width * image.height > max_pixels:
            raise PictureError("too_large")
        try:
            if getattr(image, "is_animated", False):  # n_frames would go through all pages
                raise PictureError("animated")
            image.load()
        except DAMAGE:
            raise PictureError("truncated_image") from None
        grey = image.mode in ("1", "L", "LA", "La", "I;16", "I;16L", "I;16B")
        flat = _flatten(_eight_bits(_upright(image)))
        pixels = np.array(_srgb(flat, image.info.get("icc_profile")))
    if grey:
        pixels[...] = pixels[..., 1:2]
    return Decoded(pixels, grey, _FORMATS[str(image.format)])


def encode(pixels: NDArray[np.uint8], extension: str, quality: int, grey: bool = False) -> bytes:
    """An encoded picture with no EXIF, ICC, XMP, comment, thumbnail, density or time: sRGB is what is left to assume.

    Args:
        pixels: [H, W, 3] RGB.
        extension: jpg, png, webp or bmp.
        quality: 1 to 100, of JPEG and WebP.
        grey: write luminance alone.

    Raises:
        PictureError: "encode_failed", as for a side over 16,383 px in WebP.
    """
    image = Image.fromarray(pixels)
    if grey:
        image = image.convert("L")
    sink = io.BytesIO()
    try:
        if extension == "jpg":
            image.save(sink, "JPEG", quality=quality, subsampling=0 if quality >= _FULL_CHROMA_FROM else 2)
        elif extension in ("png", "bmp"):
            image.save(sink, extension.upper())
        elif extension == "webp":
            image.save(sink, "WEBP", quality=quality)
        else:
            raise PictureError("encode_failed")
    except (OSError, ValueError):
        raise PictureError("encode_failed") from None
    return sink.getvalue()


def extension_of(data: bytes) -> str:
    """Extension of an encoded picture by its first bytes: one of `ENCODABLE`, "" for others."""
    kinds = {b"\xff\xd8\xff": "jpg", b"\x89PNG\r\n\x1a\n": "png"}
    webp = "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else ""
    return next((name for mark, name in kinds.items() if data.startswith(mark)), webp)


def size_of(data: bytes) -> tuple[int, int] | None:
    """Width and height (px) of an encoded picture by its header, as it is stored; None where there is none."""
    try:
        with _open(data) as image:
            return image.size
    except PictureError:
        return None


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=[name for name in _FORMATS if name != "MPO"])
    except (UnidentifiedImageError, *DAMAGE):
        raise PictureError("truncated_image" if data.startswith(_MAGIC) else "not_an_image") from None


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except DAMAGE:  # the EXIF block is broken, the picture is not
        return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey keeps its upper byte; Pillow has done so for 16-bit colour when it decoded."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F", "LAB"):
        raise PictureError("not_an_image")
    return image


def _flatten(image: Image.Image) -> Image.Image:
    """L, RGB or CMYK without transparency: white shows through, and nothing is left of what was hidden."""
    if image.mode in ("L", "RGB", "CMYK") and "transparency" not in image.info:
        return image
    if not image.has_transparency_data:
        return image.convert("L" if image.mode == "1" else "RGB")
    clear = image.convert("RGBA")
    return Image.composite(clear.convert("RGB"), Image.new("RGB", clear.size, "white"), clear.getchannel("A"))


def _srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    """RGB in sRGB; a profile that is broken or for other pixels is ignored, as viewers do."""
    if icc:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            mode = _PROFILE_MODES[profile.profile.xcolor_space]
            described = profile.profile.profile_description or ""
            if mode == image.mode and not described.startswith("sRGB"):
                return _transformed(image, profile)
        except (ImageCms.PyCMSError, *DAMAGE):
            return image.convert("RGB")
    return image.convert("RGB")


def _transformed(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    result = ImageCms.profileToProfile(image, profile, _SRGB, intent, outputMode="RGB")
    return result if result is not None else image.convert("RGB")
