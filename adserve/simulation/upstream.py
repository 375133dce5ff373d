"""A sample Status feed: what a messaging app would put behind the wrapper.

The viewer is known by the bearer token and never by the address, so that no raw viewer id reaches a URL.
The same viewer always gets the same feed.
"""

import hashlib
from typing import Any, NamedTuple

import numpy as np
import orjson
from aiohttp import hdrs, web

from adserve.simulation.scenes import SCENES

ITEMS_MIN = 12
ITEMS_MAX = 30
RUN_MAX = 5
_SCENE_SEEDS = 12
_IMAGE_SHARE = 0.68


class Author(NamedTuple):
    id: str
    name: str
    hue: int


AUTHORS = tuple(
    Author(f"a{number}", name, hue)
    for number, (name, hue) in enumerate(
        (
            ("Ayu Lestari", 18), ("Tomás Brandt", 205), ("Ngozi Eze", 338), ("Rafael Prado", 152),
            ("Meera Nair", 276), ("Jonas Falk", 228), ("Dewi & Bagus", 44), ("Clara Winter", 0),
            ("Kofi Mensah", 172), ("Priya Rao", 312), ("Luís Tavares", 96), ("Hana Sørby", 190),
            ("Studio Kertas", 30), ("Imani Okoro", 258), ("Ben Achterberg", 134), ("Sunday Hikers", 82),
        )
    )
)  # fmt: skip  # laid out as rows

_TEXTS = (
    "Moved the plants to the east window. They look smug about it 🌿",
    "Two trains late, one book finished.",
    "Does anyone have a ladder? A tall one. Asking for a cat 🐈",
    "Nasi goreng at midnight is a love language 🍳",
    "Day 41 of learning the cello. The neighbours have started a group chat.",
    "Happy birthday, little sister! 🎂 You still owe me a bicycle.",
    "The rain stopped exactly when I bought an umbrella ☔",
    "Se o mar está calmo, o dia já valeu 🌊",
    "Heute: nichts. Und zwar gründlich.",
    "Small announcement: we are getting a dog 🐕",
    "First 10k without stopping. My knees would like a word.",
    "बारिश, चाय और पुराने गाने ☕",
    "Somebody left mangoes at our door. Thank you, somebody 🥭",
    "New shop opens on Saturday. Come for the cake, stay for the cake.",
)
_CAPTIONS = (
    "Worth the 4 a.m. alarm", "No filter, no signal", "The long way home", "Found the quiet side of town",
    "Weekend, finally", "Selamat pagi ☀️", "Still can't believe this is real", "Sunday plans", "Boa noite 🌙",
    "Up here the phone is only a camera", "Somewhere between two cities", "Und dann war es still", "",
)  # fmt: skip  # laid out as rows
_TONES = ("ember", "lagoon", "orchid", "meadow", "night", "peach")


def sample_feed(viewer: str, media_base: str) -> dict[str, Any]:
    """The feed of one viewer: `items` in runs by author, and the `authors` they name."""
    seed = int.from_bytes(hashlib.blake2b(viewer.encode(), digest_size=8).digest(), "big")
    chance = np.random.default_rng(seed)
    length = int(chance.integers(ITEMS_MIN, ITEMS_MAX + 1))
    tag = f"{seed:016x}"[:8]
    items: list[dict[str, Any]] = []
    authors: dict[str, dict[str, Any]] = {}
    for index in chance.permutation(len(AUTHORS)):
        author = AUTHORS[index]
        run = min(int(chance.integers(1, RUN_MAX + 1)), length - len(items))
        if run == 0:
            break
        authors[author.id] = {"name": author.name, "hue": author.hue}
        age_min = int(chance.integers(2, 1_200))
        for step in range(run):
            shown = {"id": f"{tag}-{len(items)}", "author": author.id, "age_min": age_min + 7 * (run - step)}
            items.append(shown | _content(chance, media_base))
    return {"items": items, "authors": authors}


def _content(chance: np.random.Generator, media_base: str) -> dict[str, Any]:
    if chance.random() < _IMAGE_SHARE:
        scene = tuple(SCENES)[chance.integers(len(SCENES))]
        media = f"{media_base}/{scene}-{chance.integers(_SCENE_SEEDS)}.webp"
        return {"kind": "image", "media": media, "caption": _CAPTIONS[chance.integers(len(_CAPTIONS))]}
    tone = _TONES[chance.integers(len(_TONES))]
    return {"kind": "text", "tone": tone, "caption": _TEXTS[chance.integers(len(_TEXTS))]}


def upstream_app(media_base: str) -> web.Application:
    """`GET /status` with `Authorization: Bearer <viewer>`; `media_base` is where its clients find pictures."""

    async def status(request: web.Request) -> web.Response:
        scheme, _, viewer = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        if scheme != "Bearer" or not viewer:
            raise web.HTTPUnauthorized
        return web.Response(
            body=orjson.dumps(sample_feed(viewer, media_base)), content_type="application/json"
        )

    app = web.Application()
    app.router.add_get("/status", status)
    return app
