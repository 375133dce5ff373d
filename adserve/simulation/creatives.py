"""The pictures of the sample campaigns: one still life per brand, in the colours of each campaign.

The subject stands in the upper two thirds, because the player sets headline and button over the rest.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from adserve.simulation.canvas import SHEET_HEIGHT, SHEET_WIDTH, Canvas, Point, arc, curve, mixed

CONTENT_TYPE = "image/webp"


class Palette(NamedTuple):
    sky: str
    ground: str
    subject: str
    accent: str


def draw_creative(design: str, palette: Palette, seed: int) -> bytes:
    """A 1080 x 1920 WebP. KeyError for an unknown design."""
    canvas = Canvas(SHEET_HEIGHT, (palette.sky, mixed(palette.sky, palette.ground, 0.6)))
    DESIGNS[design](canvas, palette, np.random.default_rng(seed))
    return canvas.encoded(seed, grain=2)


def _table(canvas: Canvas, palette: Palette, top: float) -> None:
    canvas.box(
        (-10, top), (SHEET_WIDTH + 20, SHEET_HEIGHT), (palette.ground, mixed(palette.ground, "#000000", 0.5))
    )
    canvas.box(
        (-10, top - 6), (SHEET_WIDTH + 20, 12), mixed(palette.ground, "#ffffff", 0.3), soft=5, opacity=0.6
    )


def _shadow(canvas: Canvas, centre: Point, radii: Point) -> None:
    canvas.disc(centre, radii, "#000000", soft=30, opacity=0.45)


def _coffee(canvas: Canvas, palette: Palette, _: np.random.Generator) -> None:
    canvas.disc((540, 760), 400, (palette.accent, mixed(palette.accent, palette.sky, 0.75)))
    canvas.light((540, 640), 800, palette.accent, 0.25)
    _table(canvas, palette, 1090)
    for x, sway in ((440, 40), (545, 52), (640, 36)):
        plume = curve([(x, 760), (x + sway, 650), (x - sway, 520), (x + sway * 0.6, 390), (x, 290)])
        canvas.line(plume, "#ffffff", 26, soft=17, opacity=0.42)
    _shadow(canvas, (560, 1180), (390, 56))
    canvas.disc(
        (540, 1160),
        (360, 62),
        (mixed(palette.subject, "#ffffff", 0.35), mixed(palette.subject, "#000000", 0.2)),
    )
    canvas.disc((540, 1150), (250, 34), "#000000", soft=14, opacity=0.25)
    canvas.line(arc((765, 950), (100, 100), -80, 95), mixed(palette.subject, "#000000", 0.12), 42)
    left = curve([(300, 820), (306, 960), (350, 1080), (430, 1140)])
    right = curve([(650, 1140), (730, 1080), (774, 960), (780, 820)])
    cup = [*left, *right]
    canvas.polygon(cup, (mixed(palette.subject, "#ffffff", 0.3), mixed(palette.subject, "#000000", 0.16)))
    canvas.polygon([(330, 850), (400, 850), (436, 1090), (372, 1060)], "#ffffff", soft=20, opacity=0.4)
    canvas.polygon([(690, 850), (775, 850), (740, 1040), (660, 1130)], "#000000", soft=32, opacity=0.22)
    canvas.disc((540, 820), (240, 62), mixed(palette.subject, "#ffffff", 0.55))
    canvas.disc((540, 826), (216, 50), ("#2c160c", "#6a3a1e"))
    canvas.disc((540, 832), (120, 26), "#e6bd8d", soft=3)
    canvas.disc((540, 828), (76, 15), "#f8e3c6", soft=2)


def _trail(canvas: Canvas, palette: Palette, chance: np.random.Generator) -> None:
    canvas.light((700, 500), 1000, palette.accent, 0.5)
    canvas.disc((700, 480), 150, "#fff5e0", soft=4)
    for layer in range(4):
        xs = np.linspace(-40, SHEET_WIDTH + 40, 15)
        ys = 700 + 170 * layer + chance.uniform(-120 + 16 * layer, 120 - 16 * layer, xs.size)
        crest = [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]
        tone = mixed(mixed(palette.sky, palette.accent, 0.25), palette.ground, 0.3 + 0.23 * layer)
        foot: list[Point] = [(SHEET_WIDTH + 40, SHEET_HEIGHT), (-40, SHEET_HEIGHT)]
        canvas.polygon([*crest, *foot], (tone, mixed(tone, palette.sky, 0.25)))
    hill = curve([(-40, 1330), (300, 1250), (640, 1290), (1120, 1180)])
    canvas.polygon(
        [*hill, (1120, 1960), (-40, 1960)], (palette.ground, mixed(palette.ground, "#000000", 0.6))
    )
    near = curve([(470, 1930), (300, 1700), (560, 1520), (640, 1400), (560, 1284)])
    far = curve([(572, 1284), (690, 1410), (690, 1530), (560, 1700), (850, 1930)])
    canvas.polygon([*near, *far], (mixed(palette.accent, "#ffffff", 0.55), palette.accent))
    for x in (70, 170, 236, 850, 930, 1015):
        foot_y, height = 1300 - 0.06 * x + float(chance.uniform(-8, 30)), float(chance.uniform(190, 340))
        for tier in range(4):
            top = foot_y - height + tier * height * 0.2
            half = 30 + 21 * tier
            green = mixed(palette.subject, palette.ground, 0.25 + 0.12 * tier)
            canvas.polygon([(x, top), (x + half, top + height * 0.4), (x - half, top + height * 0.4)], green)


def _headphones(canvas: Canvas, palette: Palette, _: np.random.Generator) -> None:
    for ring in range(7):
        rim = arc((540, 820), (330 + 95 * ring, 330 + 95 * ring), 0, 360, 160)
        canvas.line(rim, palette.accent, 5, opacity=0.5 - 0.065 * ring)
    canvas.light((540, 820), 700, palette.accent, 0.5)
    band = arc((540, 850), (318, 400), 186, 354, 120)
    canvas.line(band, mixed(palette.subject, "#000000", 0.35), 78)
    canvas.line(arc((540, 846), (318, 402), 190, 350, 120), palette.subject, 58)
    canvas.line(arc((540, 836), (322, 408), 215, 300, 120), "#ffffff", 10, soft=5, opacity=0.5)
    for side in (-1, 1):
        x = 540 + side * 318
        canvas.box((x - 20, 800), (40, 130), ("#d9dde4", "#7d8591"), radius=18)
        cushion = x - side * 62
        canvas.box((cushion - 52, 858), (104, 376), ("#23262e", "#0c0d11"), radius=50)
        canvas.box(
            (x - 84, 838), (168, 416), (mixed(palette.subject, "#ffffff", 0.3), palette.subject), radius=82
        )
        canvas.box(
            (x - 84, 1010),
            (168, 244),
            mixed(palette.subject, "#000000", 0.5),
            radius=82,
            soft=20,
            opacity=0.3,
        )
        canvas.box((x - 52, 868), (26, 330), "#ffffff", radius=13, soft=9, opacity=0.45)
        canvas.disc((x + 14, 1046), 30, mixed(palette.accent, "#ffffff", 0.35))
        canvas.disc((x + 14, 1046), 19, palette.accent)


def _bottle(canvas: Canvas, palette: Palette, chance: np.random.Generator) -> None:
    canvas.disc((720, 560), 270, (mixed(palette.accent, "#ffffff", 0.45), palette.accent))
    canvas.light((720, 560), 800, palette.accent, 0.3)
    for band in range(5):
        xs = np.linspace(-40, SHEET_WIDTH + 40, 60)
        ys = 1130 + 95 * band + 26 * np.sin(xs / 150 + chance.uniform(0, 6.3))
        wave = [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]
        tone = mixed(mixed(palette.sky, palette.ground, 0.45), palette.ground, band / 4)
        canvas.polygon([*wave, (1120, 1940), (-40, 1940)], (mixed(tone, "#ffffff", 0.14), tone))
        canvas.line(wave, "#ffffff", 5, soft=2, opacity=0.4)
        if band == 1:
            _tube(canvas, palette)


def _tube(canvas: Canvas, palette: Palette) -> None:
    _shadow(canvas, (470, 1290), (230, 34))
    body = (mixed(palette.subject, "#ffffff", 0.4), mixed(palette.subject, "#000000", 0.08))
    canvas.box((390, 360), (160, 150), (mixed(palette.ground, "#ffffff", 0.25), palette.ground), radius=20)
    for x in range(400, 545, 16):
        canvas.box((x, 374), (5, 122), "#000000", opacity=0.16)
    canvas.box((290, 500), (360, 800), body, radius=74)
    canvas.box((316, 540), (48, 700), "#ffffff", radius=24, soft=14, opacity=0.65)
    canvas.box((566, 540), (70, 720), "#000000", radius=30, soft=28, opacity=0.2)
    canvas.disc((470, 800), 92, palette.accent)
    canvas.line(curve([(392, 812), (432, 786), (472, 812), (512, 786), (548, 812)]), "#ffffff", 14)
    canvas.line(
        curve([(408, 846), (440, 824), (472, 846), (504, 824), (534, 846)]), "#ffffff", 9, opacity=0.75
    )
    for row, width in enumerate((170, 120, 146)):
        canvas.box((470 - width / 2, 960 + 40 * row), (width, 11), palette.ground, radius=5, opacity=0.55)


def _vases(canvas: Canvas, palette: Palette, chance: np.random.Generator) -> None:
    arch = [*arc((540, 700), (350, 400), 180, 360), (890, 1240), (190, 1240)]
    canvas.polygon(arch, (mixed(palette.accent, "#ffffff", 0.2), mixed(palette.accent, palette.sky, 0.5)))
    canvas.polygon([(-200, 0), (380, 0), (1180, 1400), (700, 1700)], "#ffffff", soft=70, opacity=0.13)
    _table(canvas, palette, 1220)
    for lean, height in ((-130, 560), (-30, 690), (80, 610), (170, 470)):
        stem = curve([(430, 860), (430 + lean * 0.3, 860 - height * 0.45), (430 + lean, 920 - height)])
        canvas.line(stem, mixed(palette.ground, "#2c4a2e", 0.6), 7)
        for spike in range(13):
            x, y = stem[-1 - 2 * spike]
            side = 1 if spike % 2 else -1
            tilt = float(chance.uniform(12, 26))
            canvas.disc((x + side * tilt, y), (25, 11), mixed(palette.subject, "#fff3d6", 0.55))
    vases: tuple[tuple[tuple[Point, ...], float, float], ...] = (
        (((388, 850), (384, 900), (286, 1040), (316, 1220), (370, 1290)), 430, 0.0),
        (((650, 1000), (646, 1050), (600, 1120), (610, 1240), (650, 1312)), 715, 0.45),
    )
    for half, middle, share in vases:
        left = curve(half)
        right = [(2 * middle - x, y) for x, y in reversed(left)]
        _shadow(canvas, (middle + 60, half[-1][1] - 4), (middle - half[2][0] + 50, 28))
        tone = mixed(palette.subject, palette.accent, share)
        canvas.polygon([*left, *right], (mixed(tone, "#ffffff", 0.22), mixed(tone, "#000000", 0.3)))
        shine = [(x + 34, y) for x, y in left[20:70]]
        canvas.line(shine, "#ffffff", 20, soft=14, opacity=0.4)
        shade = [(x - 34, y) for x, y in right[20:-20]]
        canvas.line(shade, "#000000", 40, soft=24, opacity=0.25)
        rim = middle - half[0][0]
        canvas.disc((middle, half[0][1]), (rim, 11), mixed(tone, "#000000", 0.55))


def _noodles(canvas: Canvas, palette: Palette, chance: np.random.Generator) -> None:
    canvas.light((300, 300), 900, palette.accent, 0.22)
    _shadow(canvas, (560, 850), (440, 430))
    canvas.disc(
        (540, 800), 430, (mixed(palette.subject, "#ffffff", 0.25), mixed(palette.subject, "#000000", 0.3))
    )
    canvas.disc((540, 800), 392, (mixed(palette.subject, "#000000", 0.4), palette.subject))
    canvas.disc((540, 806), 362, ("#e08a2e", "#a94f14"))
    canvas.light((460, 700), 420, "#ffcf7a", 0.35)
    for step in range(26):
        turn = float(chance.uniform(0, 360))
        reach = float(chance.uniform(80, 250))
        centre = (540 + float(chance.uniform(-90, 90)), 830 + float(chance.uniform(-70, 90)))
        strand = arc(centre, (reach, reach * 0.72), turn, turn + float(chance.uniform(100, 230)))
        canvas.line(strand, "#8a4510", 24, soft=4, opacity=0.35)
        canvas.line(strand, ("#ffe9b0", "#f2c064") if step % 2 else ("#fff1c9", "#eab451"), 17)
    for x, y in ((400, 640), (560, 580)):
        canvas.disc((x + 8, y + 14), (112, 96), "#6b300a", soft=14, opacity=0.4)
        canvas.disc((x, y), (112, 96), ("#fffdf6", "#f1e6d2"))
        canvas.disc((x + 4, y + 4), (60, 54), ("#ffb52e", "#ef8a12"))
        canvas.disc((x - 14, y - 14), (18, 12), "#ffffff", soft=5, opacity=0.6)
    canvas.polygon(curve([(690, 560), (850, 600), (880, 840), (760, 900), (700, 760), (690, 560)]), "#10281c")
    for _ in range(34):
        spot = (540 + float(chance.normal(60, 130)), 900 + float(chance.normal(0, 90)))
        canvas.line(arc(spot, (12, 12), 0, 300), mixed("#9be15d", "#2f9e44", float(chance.random())), 7)
    for offset in (0, 46):
        start, end = (700.0 + offset, 1330.0 + offset * 0.4), (1140.0, 560.0 + offset * 1.6)
        canvas.line(
            [(start[0] + 16, start[1] + 30), (end[0] + 16, end[1] + 30)], "#000000", 24, soft=14, opacity=0.35
        )
        canvas.line([start, end], (mixed(palette.accent, "#ffffff", 0.35), palette.accent), 20)


def _fern(canvas: Canvas, palette: Palette, _: np.random.Generator) -> None:
    canvas.light((540, 600), 1000, palette.accent, 0.3)
    for corner, size, tone, tail in (
        ((150.0, 300.0), (620.0, 420.0), palette.subject, -1),
        ((330.0, 800.0), (620.0, 400.0), palette.accent, 1),
    ):
        x = corner[0] + (110 if tail < 0 else size[0] - 110)
        foot = corner[1] + size[1]
        tip = [(x - 60.0, foot - 40), (x + 60, foot - 40), (x + 80 * tail, foot + 110)]
        canvas.box((corner[0] + 16, corner[1] + 34), size, "#000000", radius=120, soft=36, opacity=0.28)
        canvas.polygon(tip, mixed(tone, "#000000", 0.12))
        canvas.box(corner, size, (mixed(tone, "#ffffff", 0.28), mixed(tone, "#000000", 0.08)), radius=120)
        canvas.box(
            (corner[0] + 60, corner[1] + 26), (size[0] - 120, 22), "#ffffff", radius=11, soft=9, opacity=0.35
        )
    stem = curve([(250, 630), (400, 560), (540, 470), (660, 360)])
    canvas.line(stem, palette.ground, 12)
    for step in range(6, len(stem) - 4, 5):
        x, y = stem[step]
        length = 110 * (1 - step / len(stem)) + 26
        for side in (-1, 1):
            tip_x, tip_y = (
                x + length * (0.72 if side > 0 else -0.1),
                y + length * (0.5 if side > 0 else -0.95),
            )
            belly = ((x + tip_x) / 2 + 16 * side, (y + tip_y) / 2 - 12)
            canvas.polygon(
                curve([(x, y), belly, (tip_x, tip_y)]) + curve([(tip_x, tip_y), (x + 14, y)]), palette.ground
            )
    for row, (left, width) in enumerate(((430, 420), (430, 300), (430, 360))):
        canvas.box((left, 908 + 70 * row), (width, 30), palette.ground, radius=15, opacity=0.8)


def _train(canvas: Canvas, palette: Palette, chance: np.random.Generator) -> None:
    for x, y, size in chance.uniform((0, 0, 1.5), (SHEET_WIDTH, 900, 4.5), (150, 3)):
        canvas.disc((x, y), size, "#ffffff", opacity=float(chance.uniform(0.2, 0.95)))
    canvas.disc((800, 380), 120, (mixed(palette.accent, "#ffffff", 0.75), palette.accent))
    canvas.light((800, 380), 640, palette.accent, 0.4)
    for layer in range(3):
        xs = np.linspace(-40, SHEET_WIDTH + 40, 11)
        ys = 790 + 120 * layer + chance.uniform(-110, 90, xs.size)
        crest = curve([(float(x), float(y)) for x, y in zip(xs, ys, strict=True)])
        tone = mixed(palette.sky, palette.ground, 0.4 + 0.3 * layer)
        canvas.polygon([*crest, (1120, 1960), (-40, 1960)], (tone, mixed(tone, palette.accent, 0.12)))
    canvas.polygon([(-40, 1200), (1120, 1110), (1120, 1960), (-40, 1960)], (palette.ground, "#04050a"))
    canvas.polygon([(-40, 1196), (1120, 1096), (1120, 1130), (-40, 1236)], "#000000", opacity=0.5)
    for car in range(3):
        left = -120.0 + 420 * car
        _carriage(canvas, palette, left, nose=car == 2)
    canvas.light((1010, 1050), 360, "#fff0c4", 0.75)


def _carriage(canvas: Canvas, palette: Palette, left: float, *, nose: bool) -> None:
    def on_track(x: float, height: float) -> Point:
        return left + x, 1200 - (left + x) * 0.083 - height

    width = 380 if nose else 408
    shape = [on_track(0, 20), on_track(0, 236)]
    if nose:
        shape += curve(
            [on_track(width - 190, 236), on_track(width - 80, 196), on_track(width, 70), on_track(width, 20)]
        )
    else:
        shape += [on_track(width, 236), on_track(width, 20)]
    canvas.polygon(shape, (mixed(palette.subject, "#ffffff", 0.35), mixed(palette.subject, "#000000", 0.45)))
    canvas.line([on_track(6, 66), on_track(width - 12, 66)], palette.accent, 10)
    for window in range(2 if nose else 4):
        x = 30 + 92 * window
        pane = [on_track(x, 118), on_track(x, 190), on_track(x + 66, 190), on_track(x + 66, 118)]
        canvas.polygon(pane, "#ffca6b", soft=16, opacity=0.6)
        canvas.polygon(pane, ("#fff3cf", "#ffc65c"))


DESIGNS: dict[str, Callable[[Canvas, Palette, np.random.Generator], None]] = {
    "coffee": _coffee,
    "trail": _trail,
    "headphones": _headphones,
    "bottle": _bottle,
    "vases": _vases,
    "noodles": _noodles,
    "fern": _fern,
    "train": _train,
}
