"""The secrets behind tickets and pseudonyms."""

from datetime import UTC, date, datetime, time, timedelta
from secrets import token_bytes

import asyncpg

from adserve.domain.time import DAY_MS, day_of, from_ms, to_ms
from adserve.metering.pseudonyms import ViewerSecrets
from adserve.metering.tickets import AHEAD_MS, OPENING_TAIL_MS, SEALING_PERIOD_MS, TicketKey
from adserve.store.statements import load

SQL = load("secrets")

SECRET_BYTES = 32
MONTH_TAIL_MS = DAY_MS
"""How long a month's secret is kept beyond its month, for a process whose clock or poll is behind."""


class Secrets:
    """Needs a pool of adserve_catalogue. Every method may be repeated, and called by many processes at once."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def rotate(self, now_ms: int) -> None:
        """Makes what is missing: a ticket key now or ahead of the next period, the viewer secrets of this month and the
        next. Forgets ticket keys that open nothing any more."""
        now, ahead, period, tail = (
            from_ms(now_ms),
            timedelta(milliseconds=AHEAD_MS),
            timedelta(milliseconds=SEALING_PERIOD_MS),
            timedelta(milliseconds=OPENING_TAIL_MS),
        )
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(SQL.lock_ticket_keys)
            await connection.execute(SQL.add_ticket_key, token_bytes(SECRET_BYTES), now, ahead, period)
            await connection.execute(SQL.end_ticket_keys, tail)
            await connection.execute(SQL.forget_ticket_keys, now)
            this_month = day_of(now_ms).replace(day=1)
            for month in (None, this_month, (this_month + timedelta(days=31)).replace(day=1)):
                await connection.execute(SQL.add_viewer_secret, month, token_bytes(SECRET_BYTES))

    async def destroy(self, now_ms: int) -> None:
        """The viewer secrets of months that are over: from then on nobody can tell whose pseudonyms these were."""
        month = day_of(now_ms - MONTH_TAIL_MS).replace(day=1)
        await self._pool.execute(SQL.destroy_viewer_secrets, month)

    async def ticket_keys(self) -> list[TicketKey]:
        return [
            TicketKey(key, secret, to_ms(seals_from), None if opens_until is None else to_ms(opens_until))
            for key, secret, seals_from, opens_until in await self._pool.fetch(SQL.ticket_keys)
        ]

    async def viewer_secrets(self) -> ViewerSecrets:
        (_, cap), *months = await self._pool.fetch(SQL.viewer_secrets)
        return ViewerSecrets(cap, tuple((_start_ms(month), secret) for month, secret in months))


def _start_ms(month: date) -> int:
    return to_ms(datetime.combine(month, time.min, UTC))
