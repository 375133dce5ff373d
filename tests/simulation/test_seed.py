import hashlib
import io
from typing import Any

import msgspec
import pytest
from PIL import Image

from adserve.api.campaigns import NewCampaign
from adserve.api.creatives import NewCreative
from adserve.simulation.canvas import SHEET_HEIGHT, SHEET_WIDTH
from adserve.simulation.creatives import CONTENT_TYPE, DESIGNS, draw_creative
from adserve.simulation.seed import BRANDS, campaign_json, creative_json, plant

CAST = [campaign for brand in BRANDS for campaign in brand.campaigns]
LANDING = "http://127.0.0.1:8080/demo/visit"


class Shelf:
    """Keeps what is created, as the service would; fails once at the `breaks_at`-th creation."""

    def __init__(self, breaks_at: int = 0) -> None:
        self.made: dict[str, list[dict[str, Any]]] = {}
        self.answers: dict[str, dict[str, Any]] = {}
        self.media: set[str] = set()
        self.breaks_at = breaks_at

    async def put_media(self, data: bytes, content_type: str, width: int, height: int) -> str:
        assert (content_type, width, height) == (CONTENT_TYPE, SHEET_WIDTH, SHEET_HEIGHT)
        sha256 = hashlib.sha256(data).hexdigest()
        self.media.add(sha256)
        return sha256

    async def items(self, path: str) -> list[dict[str, Any]]:
        return self.made.get(path, [])

    async def create(self, path: str, body: dict[str, Any], once: str) -> dict[str, Any]:
        if once in self.answers:
            return self.answers[once]
        if len(self.answers) + 1 == self.breaks_at:
            self.breaks_at = 0
            raise ConnectionError
        shelf = self.made.setdefault(path, [])
        shelf.append({"id": len(shelf) + 1, "status": "active"} | body)
        self.answers[once] = shelf[-1]
        return shelf[-1]

    async def change(self, path: str, changes: dict[str, Any]) -> None:
        shelf, _, id_ = path.rpartition("/")
        self.made[shelf][int(id_) - 1] |= changes

    def counts(self) -> tuple[int, ...]:
        return tuple(len(self.made[f"/v1/{of}"]) for of in ("advertisers", "campaigns", "creatives", "ads"))


@pytest.fixture
def _quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adserve.simulation.seed.draw_creative", lambda *drawn: repr(drawn).encode())


@pytest.mark.parametrize("campaign", CAST, ids=lambda campaign: campaign.name)
def test_the_service_takes_every_campaign_and_creative(campaign: Any) -> None:
    msgspec.convert(campaign_json(campaign, 1), NewCampaign)
    msgspec.convert(creative_json(campaign, 1, "0" * 64, f"{LANDING}/x"), NewCreative)


def test_there_are_ads_for_everybody() -> None:
    for_all = [campaign for campaign in CAST if not set(campaign.targeting) - {"exclude"}]
    assert len(for_all) >= 3
    assert {campaign.bid_model for campaign in CAST} == {"cpm", "cpc"}
    assert {campaign.priority for campaign in CAST} == {"auction", "guaranteed"}
    assert all(campaign.caps for campaign in CAST)
    assert len({campaign.name for campaign in CAST}) == len(CAST)


@pytest.mark.usefixtures("_quick_pictures")
async def test_planting_again_adds_nothing() -> None:
    shelf = Shelf()
    assert await plant(shelf, shelf.put_media, LANDING) == len(CAST)
    planted = shelf.counts()
    assert planted == (len(BRANDS), len(CAST), len(CAST), len(CAST))
    assert len(shelf.media) == len(CAST)
    shelf.answers.clear()
    assert await plant(shelf, shelf.put_media, LANDING) == 0
    assert shelf.counts() == planted


@pytest.mark.usefixtures("_quick_pictures")
@pytest.mark.parametrize("breaks_at", [1, 2, 4, 5, 9, 20])
async def test_a_planting_that_was_cut_short_is_finished_by_the_next(breaks_at: int) -> None:
    shelf = Shelf(breaks_at)
    with pytest.raises(ConnectionError):
        await plant(shelf, shelf.put_media, LANDING)
    await plant(shelf, shelf.put_media, LANDING)
    assert shelf.counts() == (len(BRANDS), len(CAST), len(CAST), len(CAST))


@pytest.mark.usefixtures("_quick_pictures")
async def test_the_cast_leads_to_where_the_service_is_now() -> None:
    shelf = Shelf()
    await plant(shelf, shelf.put_media, LANDING)
    creatives = shelf.made["/v1/creatives"]
    elsewhere = {"id": len(creatives) + 1, "status": "active", "landing_url": "https://example.com/kopi-rana"}
    archived = creatives[-1] | {"id": len(creatives) + 2, "status": "archived"}
    creatives += [elsewhere.copy(), archived.copy()]
    moved = "http://127.0.0.1:9000/demo/visit"
    await plant(shelf, shelf.put_media, moved)
    assert {creative["landing_url"].rpartition("/")[0] for creative in creatives[:-2]} == {moved}
    assert creatives[-2:] == [elsewhere, archived]


def test_a_drawing_is_a_picture_of_its_own_and_the_same_again() -> None:
    palette = CAST[0].palette
    drawn = {design: draw_creative(design, palette, 1) for design in DESIGNS}
    assert len(set(drawn.values())) == len(DESIGNS)
    assert draw_creative("vases", palette, 1) == drawn["vases"]
    for data in drawn.values():
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
            assert (picture.format, picture.size) == ("WEBP", (SHEET_WIDTH, SHEET_HEIGHT))
