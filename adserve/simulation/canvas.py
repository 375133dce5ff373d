"""A small drawing surface: anti-aliased shapes with gradients, soft edges and film grain.

Coordinates are those of a 1080 x 1920 sheet whatever the size drawn, so that a picture scales as a whole.
"""

import io
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

SHEET_WIDTH = 1080
SHEET_HEIGHT = 1920
_SUPERSAMPLING = 2

Point = tuple[float, float]
Fill = str | tuple[str, str]
"""A hex colour, or two of them from the top to the bottom of the shape."""


def rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def mixed(first: str, second: str, share: float) -> str:
    """The colour `share` (0 to 1) of the way from `first` to `second`."""
    parts = zip(rgb(first), rgb(second), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in parts)


def curve(points: Sequence[Point], steps: int = 24) -> list[Point]:
    """A smooth line through all points (Catmull-Rom)."""
    padded = [points[0], *points, points[-1]]
    line: list[Point] = []
    for p0, p1, p2, p3 in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        for step in range(steps):
            t = step / steps
            x, y = (
                0.5
                * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
                for a, b, c, d in zip(p0, p1, p2, p3, strict=True)
            )
            line.append((x, y))
    return [*line, points[-1]]


def arc(centre: Point, radii: Point, start_deg: float, end_deg: float, steps: int = 72) -> list[Point]:
    angles = np.radians(np.linspace(start_deg, end_deg, steps))
    return [(centre[0] + radii[0] * math.cos(a), centre[1] + radii[1] * math.sin(a)) for a in angles]


class Canvas:
    def __init__(self, height_px: int, background: Fill) -> None:
        self._scale = height_px / SHEET_HEIGHT
        self._image = Image.new("RGB", (round(SHEET_WIDTH * self._scale), height_px))
        self._image.paste(_painted(background, self._image.size))

    def polygon(self, points: Sequence[Point], fill: Fill, *, soft: float = 0, opacity: float = 1) -> None:
        """`soft` blurs the edge by that many sheet units: a shadow, a haze, a glow."""
        self._paint(points, fill, soft, opacity, width=0)

    def line(
        self, points: Sequence[Point], fill: Fill, width: float, *, soft: float = 0, opacity: float = 1
    ) -> None:
        self._paint(points, fill, soft, opacity, width=width)

    def disc(
        self, centre: Point, radius: float | Point, fill: Fill, *, soft: float = 0, opacity: float = 1
    ) -> None:
        radii = radius if isinstance(radius, tuple) else (radius, radius)
        self._paint(arc(centre, radii, 0, 360, 180), fill, soft, opacity, width=0)

    def box(
        self,
        corner: Point,
        size: Point,
        fill: Fill,
        *,
        radius: float = 0,
        soft: float = 0,
        opacity: float = 1,
    ) -> None:
        (left, top), (width, height) = corner, size
        turns = (
            (left + width, top, -90),
            (left + width, top + height, 0),
            (left, top + height, 90),
            (left, top, 180),
        )
        outline: list[Point] = []
        for x, y, start_deg in turns:
            centre = (x - radius if x > left else x + radius, y - radius if y > top else y + radius)
            outline += arc(centre, (radius, radius), start_deg, start_deg + 90, 24)
        self._paint(outline, fill, soft, opacity, width=0)

    def light(self, centre: Point, radius: float, colour: str, strength: float) -> None:
        """Adds light that falls off from `centre`, as a lamp or a low sun does."""
        shape = (self._image.height, self._image.width)
        rows, columns = np.ogrid[: shape[0], : shape[1]]
        x, y, reach = centre[0] * self._scale, centre[1] * self._scale, radius * self._scale
        falloff = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (reach / 2) ** 2)) * strength
        glow = (falloff[:, :, None] * np.array(rgb(colour))).clip(0, 255).astype(np.uint8)
        self._image = ImageChops.screen(self._image, Image.fromarray(glow))

    def encoded(self, seed: int, *, grain: float = 2.5, vignette: float = 0.18) -> bytes:
        """The picture as WebP, with grain and darkened corners as a lens would give it."""
        pixels: NDArray[np.float32] = np.asarray(self._image, dtype=np.float32)
        height, width = pixels.shape[:2]
        noise = np.random.default_rng(seed).standard_normal((height, width, 1), dtype=np.float32)
        rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None, None]
        columns = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
        shade = 1 - vignette * (rows**2 + columns**2) / 2
        finished = (pixels * shade + noise * grain).clip(0, 255).astype(np.uint8)
        out = io.BytesIO()
        Image.fromarray(finished).save(out, "WEBP", quality=82, method=3)
        return out.getvalue()

    def _paint(
        self, points: Sequence[Point], fill: Fill, soft: float, opacity: float, *, width: float
    ) -> None:
        margin = 3 * soft + width + 2
        xs, ys = [x for x, _ in points], [y for _, y in points]
        left, top = (math.floor((min(axis) - margin) * self._scale) for axis in (xs, ys))
        right, bottom = (math.ceil((max(axis) + margin) * self._scale) for axis in (xs, ys))
        size = (right - left, bottom - top)
        sharp = Image.new("L", (size[0] * _SUPERSAMPLING, size[1] * _SUPERSAMPLING))
        zoom = self._scale * _SUPERSAMPLING
        placed = [(x * zoom - left * _SUPERSAMPLING, y * zoom - top * _SUPERSAMPLING) for x, y in points]
        pen = ImageDraw.Draw(sharp)
        if width:
            pen.line(placed, fill=255, width=max(1, round(width * zoom)), joint="curve")
            for x, y in (placed[0], placed[-1]):
                half = width * zoom / 2
                pen.ellipse((x - half, y - half, x + half, y + half), fill=255)
        else:
            pen.polygon(placed, fill=255)
        mask = sharp.reduce(_SUPERSAMPLING)
        if soft:
            mask = mask.filter(ImageFilter.GaussianBlur(soft * self._scale))
        if opacity < 1:
            mask = mask.point(lambda value: value * opacity)
        self._image.paste(_painted(fill, size), (left, top), mask)


def _painted(fill: Fill, size: tuple[int, int]) -> Image.Image:
    if isinstance(fill, str):
        return Image.new("RGB", size, fill)
    upper, lower = (np.array(rgb(colour), dtype=np.float32) for colour in fill)
    share = np.linspace(0, 1, size[1], dtype=np.float32)[:, None, None]
    column = np.round(upper + (lower - upper) * share).astype(np.uint8)
    return Image.fromarray(np.broadcast_to(column, (size[1], size[0], 3)).copy())
