"""A corpus that is quick to process: the public-domain portrait in several guises, and every odd kind of file."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence

import numpy as np
import skimage.data
from PIL import Image
from PIL.PngImagePlugin import PngInfo

CANARY = "canary-3f9a"  # stands in every name and field of the source, and may stand nowhere in the output


def portrait(side: int = 512) -> Image.Image:
    return Image.fromarray(skimage.data.astronaut()).resize((side, side), Image.Resampling.LANCZOS)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def with_exif(image: Image.Image, orientation: int) -> bytes:
    """A JPEG whose pixels are turned and whose EXIF turns them back, with canaries in EXIF and comment."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = f"{CANARY} description"
    exif[0x013B] = f"{CANARY} artist"
    back = {
        1: None,
        3: Image.Transpose.ROTATE_180,
        6: Image.Transpose.ROTATE_90,
        8: Image.Transpose.ROTATE_270,
    }
    turned = image if back[orientation] is None else image.transpose(back[orientation])
    return encoded(turned, exif=exif, comment=f"{CANARY} comment".encode())


def with_text(image: Image.Image) -> bytes:
    info = PngInfo()
    info.add_text("Author", f"{CANARY} author")
    return encoded(image, "PNG", pnginfo=info)


def sidecar(number: int) -> bytes:
    fields = {
        "name": f"{CANARY} name {number}",
        "caption": f"{CANARY} caption",
        "label": number,
        "score": "high",
    }
    return json.dumps(fields).encode()


def tar(members: Sequence[tuple[str, bytes]]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uname = len(data), 1_234_567_890, CANARY
            archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def group() -> Image.Image:
    """Two faces, one of them smaller and tilted, on a plain ground."""
    canvas = Image.new("RGB", (900, 520), (90, 110, 120))
    canvas.paste(portrait(512), (0, 8))
    canvas.paste(portrait(300).rotate(15, fillcolor=(90, 110, 120)), (560, 200))
    return canvas


def landscape() -> Image.Image:
    y, x = np.mgrid[0:300, 0:400]
    return Image.fromarray(np.stack([y // 2, 120 + x // 8, 255 - y // 2], axis=-1).astype(np.uint8))


def good_shards() -> dict[str, bytes]:
    """Two shards with 6 pictures, 6 faces."""
    first = [
        (f"{CANARY}/a.jpg", with_exif(portrait(400), 6)),
        (f"{CANARY}/a.json", sidecar(1)),
        (f"{CANARY}/a.cls", b"3"),
        (f"{CANARY}/b.png", with_text(portrait(256))),
        (f"{CANARY}/b.json", sidecar(2)),
        (f"{CANARY}/c.jpg", encoded(landscape())),
    ]
    second = [
        (f"{CANARY}-d.jpg", encoded(group(), quality=92)),
        (f"{CANARY}-d.json", sidecar(4)),
        (f"{CANARY}-e.webp", encoded(portrait(300), "WEBP")),
        (f"{CANARY}-f.jpg", encoded(portrait(300).convert("L"))),
    ]
    return {f"{CANARY}-0.tar": tar(first), f"deep/{CANARY}-1.tar": tar(second)}


def odd_members() -> Mapping[str, tuple[bytes, str]]:
    """File name: bytes, and what becomes of them: "out" or a quarantine code."""
    whole = encoded(portrait(256))
    deep = np.asarray(portrait(256).convert("L")).astype(np.uint16) * 257
    alpha = portrait(256).convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize((256, 256)))
    frames = [portrait(128), portrait(128).transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    return {
        "cut.jpg": (whole[: len(whole) // 2], "truncated_image"),
        "nothing.jpg": (b"", "empty"),
        "text.jpg": (b"this is no picture\n" * 20, "not_an_image"),
        "pixel.png": (encoded(Image.new("RGB", (1, 1)), "PNG"), "out"),
        "bomb.png": (encoded(Image.new("L", (10_000, 10_000)), "PNG"), "too_large"),
        "cmyk.jpg": (encoded(portrait(256).convert("CMYK")), "out"),
        "deep.png": (encoded(Image.fromarray(deep), "PNG"), "out"),
        "grey.jpg": (encoded(portrait(256).convert("L")), "out"),
        "palette.png": (encoded(alpha.quantize(64), "PNG"), "out"),
        "moving.webp": (encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]), "animated"),
    }
