"""The verdicts on media that nobody here made, through the real sandbox."""

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


async def verdict(kind: Kind, data: bytes) -> str:
    try:
        await rendered(data, kind, Sandbox(BYTES_MAX))
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
    found = {(name, kind): await verdict(kind, (MEDIA / name).read_bytes()) for name, kind in wanted}
    assert {key: (found[key], wanted[key]) for key in wanted if found[key] != wanted[key]} == {}
    accepted = [key for key, said in found.items() if said == "accept"]
    assert len([kind for _, kind in accepted if kind == "image"]) == 21
    assert len([kind for _, kind in accepted if kind == "video"]) == 6
    # A video has no verdict as an image where it is none, nor an image as a video: nothing else may come of them.
    others = [entry["file"] for entry in expected if entry["video"] is None]
    assert {
        name for name in others if await verdict("video", (MEDIA / name).read_bytes()) == "accept"
    } == set()


async def test_control_the_kind_decides() -> None:
    picture = encoded(drawn(), "PNG")
    assert (await verdict("image", picture), await verdict("video", picture)) == ("accept", "reject")
