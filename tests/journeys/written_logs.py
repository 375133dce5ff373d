"""Logs for replays, written by the tests: small, unsorted, and with lines that nobody can read."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

SESSIONS_MAPPING = """
[columns]
time = "at"
time_format = "%Y-%m-%d %H:%M"
viewer = "user"
campaign = "campaign"
click = "clicked"

[campaigns]
bid = 2_000

[context.custom]
segment = "segment"
"""
SESSION_DAYS = 2
SESSION_USERS = 40
MALFORMED = ("2031-02-30 10:00,u1,c1,0,x", "2031-02-03 10:00,u1,c1,perhaps,x", "short,line")

AUCTION_MAPPING = """
currency = "CNY"
price_unit_micros = 10_000
campaign_matches = "campaign"

[columns]
time = "at"
time_format = "%Y%m%d%H%M%S%f"
campaign = "bid"
click = "clicked"
bid = "bid"
floor = "paid"

[context.custom]
campaign = "bid"
"""
_START = datetime(2031, 2, 3, tzinfo=UTC)


def write_sessions(folder: Path, rows: int) -> tuple[Path, Path]:
    """A log in which users meet the same campaigns again and again; answers it and its mapping."""
    chance = random.Random(7)
    lines = []
    for _ in range(rows):
        at = _START + timedelta(minutes=chance.randrange(SESSION_DAYS * 24 * 60))
        user, campaign = chance.randrange(SESSION_USERS), chance.randrange(3)
        clicked = int(chance.random() < 0.3)
        lines.append(f"{at:%Y-%m-%d %H:%M},u{user},c{campaign},{clicked},s{user % 3}")
    lines[rows // 2 : rows // 2] = MALFORMED
    return _written(folder, "sessions", "at,user,campaign,clicked,segment", lines, SESSIONS_MAPPING)


def write_auctions(folder: Path, rows: int) -> tuple[Path, Path, int]:
    """A log of auctions won at less than was bid, over a midnight; answers it, its mapping and the sum paid."""
    chance = random.Random(11)
    lines, paid = [], 0
    at = _START - timedelta(minutes=30)
    for _ in range(rows):
        at += timedelta(milliseconds=chance.randrange(40_000))
        bid = chance.choice((277, 294))
        price = chance.randrange(1, bid + 1)
        paid += price
        lines.append(f"{at:%Y%m%d%H%M%S}{at.microsecond // 1_000:03},{bid},0,{price}")
    log, mapping = _written(folder, "auctions", "at,bid,clicked,paid", lines, AUCTION_MAPPING)
    return log, mapping, paid


def _written(folder: Path, name: str, head: str, lines: list[str], mapping: str) -> tuple[Path, Path]:
    log, toml = folder / f"{name}.csv", folder / f"{name}.toml"
    log.write_text("\n".join([head, *lines]) + "\n")
    toml.write_text(mapping)
    return log, toml
