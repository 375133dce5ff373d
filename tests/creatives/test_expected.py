"""The verdicts on media that nobody here made, through the real sandbox."""

import asyncio
import json
import os
from pathlib import Path

import pytest
from boxes import BYTES_MAX, rendered
from pictures import drawn, encoded

from adserve.creatives.sandbox import Kind, Sandbox
from adserve.creatives.verdicts import MediaRefused

MEDIA = Path(__file__).parents[2] / os.environ.get("ADSERVE_SHARED_DATA", "../shared/data") / "media"
KINDS: tuple[Kind, ...] = ("image", "video")


async def verdict(kind: Kind, data: bytes, box: Sandbox | None = None) -> str:
    try:
        await rendered(data, kind, box)
    except MediaRefused:
        return "reject"
    return "accept"


@pytest.mark.slow
async def test_every_verdict_is_reached() -> None:
    if not MEDIA.is_dir():
        pytest.skip(f"{MEDIA} is absent: ADSERVE_SHARED_DATA names the folder of shared media")
    expected = json.loads((MEDIA / "expected.json").read_text())
    assert len(expected) == 58
    wanted = {
        (entry["file"], kind): entry[kind] for entry in expected for kind in KINDS if entry[kind] is not None
    }
    box = Sandbox(BYTES_MAX)
    async with asyncio.TaskGroup() as group:
        tasks = {
            (name, kind): group.create_task(verdict(kind, (MEDIA / name).read_bytes(), box))
            for name, kind in wanted
        }
    found = {key: task.result() for key, task in tasks.items()}
    assert {key: (found[key], wanted[key]) for key in wanted if found[key] != wanted[key]} == {}
    accepted = [key for key in found if found[key] == "accept"]
    assert len([kind for _, kind in accepted if kind == "image"]) == 21
    assert len([kind for _, kind in accepted if kind == "video"]) == 6


async def test_control_the_kind_decides() -> None:
    picture = encoded(drawn(), "PNG")
    assert (await verdict("image", picture), await verdict("video", picture)) == ("accept", "reject")
