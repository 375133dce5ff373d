"""Images, decoded and encoded anew by Pillow. Only the sandbox's child imports this."""

import contextlib
import io
import warnings
from typing import BinaryIO

from PIL import Image, ImageCms

from adserve.creatives.verdicts import (
    FRAMES_MAX,
    FRAMES_PIXELS_MAX,
    IMAGE_SIDE_MAX,
    SECONDS_MAX,
    SERVED_SIDE_MAX,
    MediaRefused,
    Reason,
    Rendition,
)

CONTENT_TYPES = {"GIF": "image/gif", "JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}

_QUALITY: dict[str, dict[str, object]] = {
    "JPEG": {"quality": 88, "progressive": True},
    "WEBP": {"quality": 90},
}
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_OPAQUE = 128
"""A pixel of a GIF is there or not."""
_CLEAR = 255
"""The place in a palette that stands for nothing."""
_MS = 1_000

_SRGB = ImageCms.createProfile("sRGB")

warnings.simplefilter("error", Image.DecompressionBombWarning)
Image.MAX_IMAGE_PIXELS = IMAGE_SIDE_MAX**2


def render(source: BinaryIO, target: BinaryIO) -> Rendition:
    """Writes the image anew: upright, in sRGB, no larger than is shown, and nothing but its pixels. Raises MediaRefused, and
    whatever Pillow raises at what is no image."""
    try:
        _open(source).verify()
        source.seek(0)
        image = _open(source)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaRefused(Reason.IMAGE_SIDES) from error
    if max(image.size) > IMAGE_SIDE_MAX:
        raise MediaRefused(Reason.IMAGE_SIDES)
    # Behind the picture of an MPO lie others: its depth, its brightness, the other eye's.
    form = "JPEG" if image.format == "MPO" else str(image.format)
    numbers = range(1 if form == "JPEG" else getattr(image, "n_frames", 1))
    if len(numbers) > FRAMES_MAX or len(numbers) * image.width * image.height > FRAMES_PIXELS_MAX:
        raise MediaRefused(Reason.FRAMES)
    if getattr(image, "default_image", False) and len(numbers) > 1:
        numbers = numbers[1:]  # the first is for those who know no animations
    turn, profile = _turn_of(image), image.info.get("icc_profile")
    frames, durations_ms = [], []
    for number in numbers:
        image.seek(number)
        image.load()
        durations_ms.append(round(image.info.get("duration", 0)))
        frames.append(_frame(image, turn, profile))
    if len(frames) > 1 and sum(durations_ms) > SECONDS_MAX * _MS:
        raise MediaRefused(Reason.LONG)
    encoded = io.BytesIO()
    _save(frames, form, encoded, durations_ms, image.info.get("loop"))
    target.write(encoded.getbuffer())
    return Rendition(CONTENT_TYPES[form], *frames[0].size)


def rehearse() -> None:
    """Has Pillow import what it imports when it is needed first: a confined process can import nothing."""
    Image.init()
    for form in CONTENT_TYPES:
        encoded = io.BytesIO()
        frames = [
            Image.new("RGB" if form == "JPEG" else "RGBA", (2, 2), colour) for colour in ("red", "#0000")
        ]
        _save(frames[: 1 if form == "JPEG" else 2], form, encoded, [20, 20], 0)
        render(io.BytesIO(encoded.getvalue()), io.BytesIO())


def _open(source: BinaryIO) -> Image.Image:
    return Image.open(source, formats=tuple(CONTENT_TYPES))


def _turn_of(image: Image.Image) -> Image.Transpose | None:
    with contextlib.suppress(Exception):  # whatever a broken EXIF makes of itself
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    return None


def _frame(image: Image.Image, turn: Image.Transpose | None, profile: bytes | None) -> Image.Image:
    """Its pixels alone: grey, RGB or RGBA, 8 bits each, upright, in sRGB, no larger than is shown."""
    if image.mode.startswith("I"):
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    if profile is not None and image.mode == "CMYK":
        image = _in_srgb(image, profile, "RGB")
    alpha = image.has_transparency_data
    frame = image.convert("L" if image.mode in ("1", "L") and not alpha else "RGBA" if alpha else "RGB")
    if profile is not None and image.mode != "CMYK" and frame.mode != "L":
        frame = _in_srgb(frame, profile, frame.mode)
    if turn is not None:
        frame = frame.transpose(turn)
    frame.thumbnail((SERVED_SIDE_MAX, SERVED_SIDE_MAX), Image.Resampling.LANCZOS)
    frame.info = {}
    return frame


def _in_srgb(image: Image.Image, profile: bytes, mode: str) -> Image.Image:
    with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):  # one that does not fit the picture
        converted = ImageCms.profileToProfile(
            image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), _SRGB, outputMode=mode
        )
        if converted is not None:
            return converted
    return image


def _save(
    frames: list[Image.Image], form: str, target: BinaryIO, durations_ms: list[int], loop: int | None
) -> None:
    options = dict(_QUALITY.get(form, {}))
    if len(frames) > 1:
        options |= {"save_all": True, "duration": durations_ms}
        options |= {} if loop is None else {"loop": loop}
    if form == "GIF":
        clear = any(frame.mode == "RGBA" for frame in frames)
        frames = [_with_palette(frame, clear) for frame in frames]
        options |= {"transparency": _CLEAR, "disposal": 2} if clear else {}
    if len(frames) > 1:
        options["append_images"] = frames[1:]
    frames[0].save(target, form, **options)


def _with_palette(frame: Image.Image, clear: bool) -> Image.Image:
    if not clear:
        return frame if frame.mode == "L" else frame.quantize(_CLEAR + 1)
    alpha = frame.convert("RGBA").getchannel("A").point(lambda value: 255 * (value >= _OPAQUE))
    seen = Image.composite(frame.convert("RGB"), Image.new("RGB", frame.size), alpha)
    painted = seen.quantize(_CLEAR)
    painted.paste(_CLEAR, mask=alpha.point(lambda value: 255 - value))
    return painted
