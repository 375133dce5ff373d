from itertools import groupby

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from adserve.simulation.scenes import SCENES, draw_scene
from adserve.simulation.upstream import ITEMS_MAX, ITEMS_MIN, RUN_MAX, sample_feed, upstream_app

ART = "/demo/art"


def test_feeds_come_in_runs_by_author_and_stay_the_same() -> None:
    lengths = set()
    for number in range(300):
        feed = sample_feed(f"viewer-{number}", ART)
        runs = [
            (author, len(list(run))) for author, run in groupby(feed["items"], lambda item: item["author"])
        ]
        lengths.add(len(feed["items"]))
        assert len({author for author, _ in runs}) == len(runs)
        assert {author for author, _ in runs} == set(feed["authors"])
        assert max(length for _, length in runs) <= RUN_MAX
        assert len({item["id"] for item in feed["items"]}) == len(feed["items"])
        assert feed == sample_feed(f"viewer-{number}", ART)
    assert (min(lengths), max(lengths)) == (ITEMS_MIN, ITEMS_MAX)


async def test_the_viewer_is_named_by_the_token() -> None:
    async with TestServer(upstream_app(ART)) as server, ClientSession() as session:
        async with session.get(server.make_url("/status")) as answer:
            assert answer.status == 401
        headers = {"Authorization": "Bearer viewer-7"}
        async with session.get(server.make_url("/status"), headers=headers) as answer:
            assert await answer.json() == sample_feed("viewer-7", ART)


@pytest.mark.parametrize("scene", SCENES)
def test_a_scene_is_drawn_the_same_again(scene: str) -> None:
    assert draw_scene(scene, 3) == draw_scene(scene, 3)
    assert draw_scene(scene, 3) != draw_scene(scene, 4)
