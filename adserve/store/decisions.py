"""Recorded decisions, and the versions of ads that they name."""

from collections.abc import Sequence
from datetime import date
from uuid import UUID

import asyncpg

from adserve.domain.ids import moment_of
from adserve.domain.time import day_of, from_ms
from adserve.selection.recording import Record, Replayed, Version, decode, encode, replay
from adserve.store.desk import Connection
from adserve.store.errors import Missing
from adserve.store.statements import load

SQL = load("decisions")

DATES_END_MS = 253_402_300_800_000
"""The end of the last year that a date can have."""


class Decisions:
    """Needs a pool of adserve_recorder."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def save(self, records: Sequence[Record], versions: Sequence[Version], day: date) -> None:
        days = [day_of(record.now_ms) for record in records]
        ids = [record.decision for record in records]
        async with self._pool.acquire() as connection, connection.transaction():
            if versions:
                digests, facts = [each.digest for each in versions], [each.facts for each in versions]
                await connection.execute(SQL.save_versions, digests, facts, day)
            viewers = [record.ask.viewer.cap for record in records]
            moments = [from_ms(record.now_ms) for record in records]
            encoded = list(map(encode, records))
            await connection.execute(SQL.save_decisions, days, ids, encoded, viewers, moments)

    async def forget_versions(self, before: date) -> None:
        await self._pool.execute(SQL.forget_versions, before)


async def replayed(connection: Connection, decision: UUID) -> Replayed:
    """A recorded decision made again. Raises Missing where it was not recorded or is not kept any longer."""
    at_ms = moment_of(decision)
    stored = None
    if at_ms < DATES_END_MS:
        stored = await connection.fetchval(SQL.decision, day_of(at_ms), decision)
    if stored is None:
        raise Missing("this decision is not recorded")
    record = decode(stored)
    digests = [candidate.digest for candidate in record.candidates]
    facts = {row["digest"]: row["facts"] for row in await connection.fetch(SQL.versions, digests)}
    return replay(record, facts)
