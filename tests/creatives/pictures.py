"""Media made for tests, and a look into what became of them."""

import io
import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")


def drawn(width: int = 60, height: int = 40, shift: int = 0) -> Image.Image:
    """No two corners alike."""
    y, x = np.mgrid[0:height, 0:width]
    bands = ((x + shift) * 4 // width * 60, y * 3 // height * 80, np.full_like(x, 90))
    return Image.fromarray(np.stack(bands, axis=-1).astype(np.uint8))


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def animated(form: str, frames: int = 4, duration_ms: int = 80, **options: Any) -> bytes:
    first, *others = (drawn(shift=10 * number) for number in range(frames))
    return encoded(first, form, save_all=True, append_images=others, duration=duration_ms, loop=0, **options)


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def pixels(image: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(image.convert("RGBA")).astype(int)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, pixels: bytes = b"") -> bytes:
    """Says what it likes of its size; `pixels` are black where they end."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packed = zlib.compress(pixels)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def video(
    path: Path,
    *,
    seconds: float = 1,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    sound: str | None = None,
) -> bytes:
    """With all that a phone or an editor writes beside it."""
    rate = 10
    with av.open(str(path), "w", format="mp4") as muxer:
        muxer.metadata.update(title="hidden title", location="+52.5200+013.4050/", comment="hidden comment")
        stream = muxer.add_stream(codec, rate=rate, width=size[0], height=size[1], pix_fmt="yuv420p")
        tone = None if sound is None else muxer.add_stream(sound, rate=48_000)
        for number in range(round(seconds * rate)):
            frame = av.VideoFrame.from_ndarray(np.asarray(drawn(*size, shift=number)), format="rgb24")
            muxer.mux(stream.encode(frame))
        muxer.mux(stream.encode(None))
        if tone is not None:
            silence = av.AudioFrame(format=tone.format.name, layout="stereo", samples=1_024)
            for plane in silence.planes:
                plane.update(bytes(plane.buffer_size))
            silence.sample_rate, silence.pts, silence.time_base = 48_000, 0, Fraction(1, 48_000)
            muxer.mux(tone.encode(silence))
            muxer.mux(tone.encode(None))
    return path.read_bytes()
