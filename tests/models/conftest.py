import math
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from adserve.domain.facts import ViewerFacts
from adserve.prediction.features import AdFacts
from adserve.prediction.impressions import Impression
from models.examples import Example, with_exposures

START_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
BASE_LOGITS = {1: -1.0, 2: -1.8}
TIRES_BY = 0.6


def invented_impressions(count: int, seed: int) -> list[Impression]:
    """Each sight of a campaign, up to four, lowers the logit of its click by TIRES_BY."""
    chance = random.Random(seed)
    sights: Counter[tuple[str, int]] = Counter()
    impressions = []
    for index in range(count):
        viewer, campaign = f"v{chance.randrange(count // 8)}", chance.choice([1, 2])
        sights_before = min(sights[viewer, campaign], 4)
        sights[viewer, campaign] += 1
        clicked = chance.random() < 1 / (1 + math.exp(TIRES_BY * sights_before - BASE_LOGITS[campaign]))
        facts = ViewerFacts(
            country=chance.choice(["ID", "BR"]), platform="android", age=chance.randrange(16, 70)
        )
        ad = AdFacts(campaign * 10, campaign, campaign * 100, "image", "shop_now")
        impressions.append(Impression(START_MS + index * 1_000, viewer, facts, ad, clicked))
    return impressions


@pytest.fixture(scope="session")
def examples() -> list[Example]:
    return with_exposures(invented_impressions(8_000, seed=11))


@pytest.fixture(scope="session")
def sessions_log() -> Path:
    folder = os.environ.get("ADSERVE_SHARED_DATA", "../shared/data")
    path = Path(__file__).parents[2] / folder / "ad_sessions.csv"
    if not path.exists():
        pytest.skip(f"{path} is absent: ADSERVE_SHARED_DATA names the folder of real logs")
    return path
