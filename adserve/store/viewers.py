"""What is held of one viewer in PostgreSQL."""

import base64
from collections.abc import AsyncIterator, Sequence
from datetime import date
from typing import Any

import asyncpg
import msgspec

from adserve.domain.events import Event
from adserve.domain.time import from_ms
from adserve.selection.recording import decode
from adserve.store.errors import AWAY, Away
from adserve.store.statements import load

SQL = load("viewers")

WAITING_MAX = 10_000
"""How many events of one viewer that wait are shown: they wait while something is away, and a person causes few."""

_decode_pending = msgspec.msgpack.Decoder(Event).decode
_decode_quarantined = msgspec.json.Decoder(Event).decode


class Viewers:
    """Needs a pool of adserve_recorder. Raises Away."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def events(self, viewer: bytes, days: Sequence[date]) -> AsyncIterator[dict[str, Any]]:
        for day in days:
            for row in await self._fetch(SQL.events, day, viewer):
                yield dict(row)

    async def waiting(self, viewer: bytes) -> AsyncIterator[dict[str, Any]]:
        for (event,) in await self._fetch(SQL.pending, viewer, WAITING_MAX):
            yield _shown(_decode_pending(event))
        for (event,) in await self._fetch(SQL.quarantined, base64.b64encode(viewer), WAITING_MAX):
            yield _shown(_decode_quarantined(event))

    async def decisions(self, viewer: bytes, days: Sequence[date]) -> AsyncIterator[dict[str, Any]]:
        """What a sampled decision was made with, as far as it is of the viewer, and what came of it."""
        for day in days:
            for (data,) in await self._fetch(SQL.decisions, day, viewer):
                record = decode(data)
                yield {
                    "decision": record.decision,
                    "decided_at": from_ms(record.now_ms),
                    "surface": record.ask.surface,
                    "context": record.ask.context,
                    "personalised": record.ask.personalised,
                    "impressions_of_late": record.exposures,
                    "no_fill": record.outcome.no_fill,
                    "ads": [placed.ad for placed in record.outcome.placed],
                }

    async def _fetch(self, statement: str, *values: object) -> list[Any]:
        try:
            rows: list[Any] = await self._pool.fetch(statement, *values)
        except AWAY as error:
            raise Away(str(error)) from error
        return rows


def _shown(event: Event) -> dict[str, Any]:
    ticket = event.ticket
    return {
        "event_id": event.event,
        "kind": event.kind,
        "outcome": event.outcome,
        "received_at": from_ms(event.received_at_ms),
        "issued_at": from_ms(ticket.issued_at_ms),
        "advertiser_id": ticket.advertiser,
        "campaign_id": ticket.campaign,
        "ad_id": ticket.ad,
        "creative_id": ticket.creative,
        "surface": ticket.surface,
        "country": ticket.country,
        "platform": ticket.platform,
        "position": ticket.position,
    }
