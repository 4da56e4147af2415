"""Small clips for the tests, made by PyAV."""

import io
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np

from deid.interfaces import Picture


def picture(number: int, width: int = 96, height: int = 64) -> Picture:
    """A smooth picture [height, width, 3] that tells its number and which side is up."""
    y, x = np.mgrid[:height, :width]
    red = (x * 255 // width + 5 * number) % 256
    green = y * 200 // height
    blue = np.where((x < width // 4) & (y < height // 4), 255, 10 * (number % 10))
    return np.stack([red, green, blue], -1).astype(np.uint8)


def clip(
    frames: int = 50,
    kind: str = "mp4",
    size: tuple[int, int] = (96, 64),
    codec: str = "libx264",
    pixels: str = "yuv420p",
    times: Sequence[int] | None = None,
    base: Fraction = Fraction(1, 25),
    rotation: int = 0,
    sound: str = "",
    container: dict[str, str] | None = None,
    **options: str,
) -> bytes:
    """An encoded clip of `picture`s; `rotation` degrees counter-clockwise make it upright."""
    sink = io.BytesIO()
    with av.open(sink, "w", format=kind, options=container or {}) as out:
        stream = out.add_stream(codec, rate=25, options={"g": "12", "crf": "10", **options})
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        stream.codec_context.time_base = base
        if rotation:
            stream.set_display_rotation(rotation)
        track = out.add_stream(sound, rate=48000) if sound else None
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            frame.pts, frame.time_base = (times[number] if times else number), base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if track is not None:
            _hum(out, track, frames / 25)
    return sink.getvalue()


def hum(seconds: float, codec: str = "aac", kind: str = "mp4") -> bytes:
    """A file of sound alone."""
    sink = io.BytesIO()
    with av.open(sink, "w", format=kind) as out:
        _hum(out, out.add_stream(codec, rate=48000), seconds)
    return sink.getvalue()


def _hum(out: av.container.OutputContainer, track: av.AudioStream, seconds: float) -> None:
    for start in range(0, int(48000 * seconds), 1024):
        wave = np.sin(np.arange(start, start + 1024, dtype=np.float32) / 20)[None]
        frame = av.AudioFrame.from_ndarray(np.repeat(wave, 2, 0), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = 48000, start
        out.mux(track.encode(frame))
    out.mux(track.encode(None))
