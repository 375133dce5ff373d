"""The pictures people post in the sample feed: landscapes and lights, drawn from a name and a seed."""

from collections.abc import Callable

import numpy as np

from adserve.simulation.canvas import SHEET_HEIGHT, SHEET_WIDTH, Canvas, Point, mixed

HEIGHT_PX = 960
_Chance = np.random.Generator


def draw_scene(scene: str, seed: int) -> bytes:
    """A 540 x 960 WebP. KeyError for an unknown scene."""
    chance = np.random.default_rng(seed)
    return SCENES[scene](chance).encoded(seed)


def _ridge(base: float, height: float, chance: _Chance, *, roughness: float = 0.55) -> list[Point]:
    """A skyline across the sheet by midpoint displacement, closed at the bottom."""
    heights = np.array([0.0, 0.0])
    swing = height
    while len(heights) < 180:
        middles = (heights[:-1] + heights[1:]) / 2 + chance.uniform(-swing, swing, len(heights) - 1)
        joined = np.empty(len(heights) + len(middles))
        joined[::2], joined[1::2] = heights, middles
        heights, swing = joined, swing * roughness
    xs = np.linspace(-20, SHEET_WIDTH + 20, len(heights))
    skyline = [(float(x), base - float(h)) for x, h in zip(xs, heights, strict=True)]
    return [*skyline, (SHEET_WIDTH + 20, SHEET_HEIGHT + 20), (-20, SHEET_HEIGHT + 20)]


def _stars(canvas: Canvas, chance: _Chance, count: int, below: float) -> None:
    for x, y, size in chance.uniform((0, 0, 1.2), (SHEET_WIDTH, below, 3.6), (count, 3)):
        canvas.disc((x, y), size, "#ffffff", opacity=float(chance.uniform(0.25, 0.95)))


def _peaks(chance: _Chance) -> Canvas:
    sky_top, sky_low, near = (
        ("#f7b58c", "#fde7cf", "#3c2a4d"),
        ("#27476e", "#e8a798", "#16213d"),
        ("#5fa8a3", "#e9f0d8", "#12383d"),
        ("#7a6fa8", "#f6c7b6", "#241b40"),
    )[int(chance.integers(4))]
    canvas = Canvas(HEIGHT_PX, (sky_top, sky_low))
    sun = (float(chance.uniform(260, 820)), float(chance.uniform(520, 720)))
    canvas.light(sun, 620, "#ffd9a0", 0.55)
    canvas.disc(sun, 78, "#fff4df", soft=5)
    for layer in range(6):
        depth = layer / 5
        colour = mixed(sky_low, near, 0.18 + 0.82 * depth)
        haze = mixed(colour, sky_low, 0.45 * (1 - depth))
        canvas.polygon(_ridge(820 + 190 * layer, 210 - 16 * layer, chance), (colour, haze))
    return canvas


def _dunes(chance: _Chance) -> Canvas:
    canvas = Canvas(HEIGHT_PX, ("#f0a35e", "#fbe0b5"))
    sun = (float(chance.uniform(240, 840)), 560.0)
    canvas.light(sun, 700, "#fff0c8", 0.6)
    canvas.disc(sun, 105, "#fffaf0", soft=4)
    for layer in range(5):
        phase, bend = chance.uniform(0, 6.3), chance.uniform(0.8, 1.5)
        xs = np.linspace(-40, SHEET_WIDTH + 40, 120)
        crest = 900 + 200 * layer + 110 * np.sin(xs / 560 * bend + phase) + 40 * np.sin(xs / 210 + 2 * phase)
        line = [(float(x), float(y)) for x, y in zip(xs, crest, strict=True)]
        floor: list[Point] = [(SHEET_WIDTH + 40, SHEET_HEIGHT + 60), (-40, SHEET_HEIGHT + 60)]
        lit = mixed("#f3b878", "#b4532f", layer / 4)
        canvas.polygon([*line, *floor], (lit, mixed(lit, "#5d2417", 0.55)))
        shade = [(x, y + 14 + 70 * abs(np.sin(x / 400 + phase))) for x, y in line]
        canvas.polygon([*line, *reversed(shade)], "#5d2417", soft=22, opacity=0.28)
    return canvas


def _sea(chance: _Chance) -> Canvas:
    sky_top, sky_low, water = (
        ("#2b3a67", "#f7a072", "#1f2d52"),
        ("#6fb7d6", "#fdf0d5", "#1f6f8b"),
        ("#40295c", "#ff8fa3", "#2b1b48"),
    )[int(chance.integers(3))]
    canvas = Canvas(HEIGHT_PX, (sky_top, sky_low))
    canvas.box(
        (-10, 1010), (SHEET_WIDTH + 20, 930), (mixed(sky_low, water, 0.35), mixed(water, "#04060f", 0.45))
    )
    x = float(chance.uniform(330, 750))
    canvas.light((x, 960), 680, "#ffd7a8", 0.6)
    canvas.disc((x, 900), 112, "#fff6e4", soft=3)
    for step in range(150):
        y = 1024 + 880 * (step / 150) ** 1.35
        spread = 70 + 0.42 * (y - 1010)
        centre = x + float(chance.normal(0, spread * 0.55))
        length = float(chance.uniform(26, 70)) * (0.5 + (y - 1010) / 620)
        canvas.disc((centre, y), (length, 1.6 + (y - 1010) / 260), "#ffeccd", soft=1.5, opacity=0.5)
    for _ in range(4):
        cloud = (float(chance.uniform(0, 1080)), float(chance.uniform(180, 700)))
        canvas.disc(cloud, (float(chance.uniform(180, 360)), 22), "#fff1e6", soft=26, opacity=0.4)
    return canvas


def _aurora(chance: _Chance) -> Canvas:
    canvas = Canvas(HEIGHT_PX, ("#050a1f", "#17345a"))
    _stars(canvas, chance, 170, 1250)
    for ribbon, colour in enumerate(("#2fe6a6", "#4fd8d0", "#9a6bff")):
        phase = chance.uniform(0, 6.3)
        xs = np.linspace(-60, SHEET_WIDTH + 60, 46)
        foot = 900 - 150 * ribbon + 120 * np.sin(xs / 260 + phase) + 0.18 * xs
        for x, y in zip(xs, foot, strict=True):
            rise = float(chance.uniform(260, 620))
            canvas.box((float(x) - 16, float(y) - rise), (34, rise), (mixed(colour, "#0b1633", 0.85), colour),
                       radius=16, soft=15, opacity=0.3)  # fmt: skip  # laid out as rows
    canvas.light((540, 900), 1000, "#2fe6a6", 0.2)
    canvas.polygon(_ridge(1420, 190, chance), ("#0d1c33", "#060b16"))
    canvas.polygon(_ridge(1640, 70, chance), "#03060d")
    return canvas


def _city(chance: _Chance) -> Canvas:
    canvas = Canvas(HEIGHT_PX, ("#141432", "#e2786f"))
    _stars(canvas, chance, 60, 620)
    canvas.light((540, 1380), 1100, "#ff9a76", 0.45)
    canvas.disc((float(chance.uniform(260, 820)), 430), 74, "#ffe9cf", soft=2)
    for row, (top, colour) in enumerate(((900, "#5b3a63"), (1050, "#34254d"), (1220, "#15112b"))):
        x = -30.0
        while x < SHEET_WIDTH:
            width = float(chance.uniform(86, 190))
            y = top + float(chance.uniform(-170, 200))
            canvas.box((x, y), (width, SHEET_HEIGHT - y), (colour, mixed(colour, "#05040c", 0.5)))
            _windows(canvas, chance, x, y, width, density=(0.1, 0.24, 0.36)[row])
            x += width + float(chance.uniform(-4, 14))
    return canvas


def _windows(canvas: Canvas, chance: _Chance, x: float, y: float, width: float, *, density: float) -> None:
    for left in np.arange(x + 16, x + width - 22, 27):
        for top in np.arange(y + 24, SHEET_HEIGHT, 40):
            if chance.random() < density:
                warm = "#ffd58a" if chance.random() < 0.8 else "#9fd3ff"
                canvas.box((float(left), float(top)), (12, 19), warm, opacity=float(chance.uniform(0.45, 1)))


def _lights(chance: _Chance) -> Canvas:
    night, *lamps = (
        ("#160a2c", "#ff5d8f", "#ffb86b", "#7d5bff"),
        ("#04202c", "#2ec4b6", "#ffe066", "#3a86ff"),
        ("#2a0d12", "#ff8c42", "#ffd29d", "#ff3c5f"),
    )[int(chance.integers(3))]
    canvas = Canvas(HEIGHT_PX, (mixed(night, "#ffffff", 0.06), mixed(night, "#000000", 0.3)))
    for step in range(58):
        radius = float(chance.uniform(34, 158))
        centre = (float(chance.uniform(-60, 1140)), float(chance.normal(1020, 420)))
        colour = lamps[step % len(lamps)]
        canvas.disc(centre, radius, colour, soft=radius * 0.06 + 2, opacity=float(chance.uniform(0.1, 0.42)))
        canvas.disc(centre, radius * 0.93, colour, soft=radius * 0.2, opacity=0.1)
    for _ in range(4):
        canvas.light((float(chance.uniform(0, 1080)), float(chance.uniform(300, 1600))), 420, lamps[0], 0.22)
    return canvas


def _leaves(chance: _Chance) -> Canvas:
    ground, leaf = (("#dfe8cf", "#2f6b4f"), ("#f6e2d3", "#7c4a3a"), ("#0f2a26", "#58b38a"))[
        int(chance.integers(3))
    ]
    canvas = Canvas(HEIGHT_PX, (ground, mixed(ground, leaf, 0.25)))
    canvas.light((760, 380), 900, "#fff7df", 0.25)
    for step in range(17):
        root = (float(chance.uniform(-120, 1200)), float(chance.uniform(700, 2050)))
        angle, length = chance.uniform(-2.5, -0.6), float(chance.uniform(420, 820))
        along = np.array([np.cos(angle), np.sin(angle)])
        across = np.array([-along[1], along[0]])
        share = np.linspace(0, 1, 30)
        half = length * 0.17 * np.sin(np.pi * share**0.8)
        spine = np.array(root) + np.outer(share * length, along)
        outline = np.concatenate([spine + half[:, None] * across, (spine - half[:, None] * across)[::-1]])
        tone = mixed(leaf, ground, 0.55 - 0.5 * step / 16)
        canvas.polygon([(float(a) + 18, float(b) + 26) for a, b in outline], "#08130f", soft=22, opacity=0.2)
        canvas.polygon([(float(a), float(b)) for a, b in outline], (mixed(tone, "#ffffff", 0.12), tone))
        vein = [(float(a), float(b)) for a, b in spine]
        canvas.line(vein, mixed(tone, "#ffffff", 0.35), 4, opacity=0.7)
    return canvas


SCENES: dict[str, Callable[[_Chance], Canvas]] = {
    "peaks": _peaks,
    "dunes": _dunes,
    "sea": _sea,
    "aurora": _aurora,
    "city": _city,
    "lights": _lights,
    "leaves": _leaves,
}
