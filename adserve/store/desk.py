"""Transactions in the name of a party: where advertisers and operators set things up."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from adserve.domain.ids import AdvertiserId
from adserve.store.errors import AWAY, Away, UnknownReference
from adserve.store.statements import load

Connection = Any
"""An asyncpg connection inside a transaction."""

ACQUIRE_TIMEOUT_S = 2.0

SQL = load("desk")

_REFERENCES = {
    "campaigns_advertiser_id_fkey": "advertiser",
    "creatives_advertiser_id_fkey": "advertiser",
    "api_keys_advertiser_id_fkey": "advertiser",
    "accounts_advertiser_id_fkey": "advertiser",
    "creatives_media_fkey": "media",
    "ads_campaign_id_advertiser_id_fkey": "campaign",
    "ads_creative_id_advertiser_id_fkey": "creative",
}


class Desk:
    """A tenant's transactions run under its row policies; without an advertiser they run as `staff`."""

    def __init__(self, tenant: asyncpg.Pool, staff: asyncpg.Pool) -> None:
        self._tenant = tenant
        self._staff = staff

    @asynccontextmanager
    async def transaction(self, advertiser: AdvertiserId | None) -> AsyncIterator[Connection]:
        pool = self._staff if advertiser is None else self._tenant
        try:
            async with pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection, connection.transaction():
                if advertiser is not None:
                    await connection.execute(SQL.act_for, str(advertiser))
                yield connection
        except asyncpg.ForeignKeyViolationError as error:
            raise UnknownReference(_REFERENCES[error.constraint_name]) from error
        except asyncpg.InsufficientPrivilegeError as error:
            # A row policy refused a row of another advertiser: the tenant cannot see that one.
            raise UnknownReference("advertiser") from error
        except (*AWAY, asyncpg.DeadlockDetectedError) as error:
            # Of two that wait for each other PostgreSQL ends one, who is to try again.
            raise Away from error
