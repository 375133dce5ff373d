"""Has the secrets made ahead and hands the newest to whoever uses them."""

from collections.abc import Iterable
from typing import Protocol

from adserve.metering.pseudonyms import Pseudonyms, ViewerSecrets
from adserve.metering.tickets import Sealer, TicketKey

PERIOD_S = 60
"""Well within the time that a ticket key is made ahead: every process has read it before one seals with it."""


class Secrets(Protocol):
    async def rotate(self, now_ms: int) -> None: ...

    async def ticket_keys(self) -> Iterable[TicketKey]: ...

    async def viewer_secrets(self) -> ViewerSecrets: ...


class Rotation:
    """`step` every PERIOD_S; the first makes the first secrets and must succeed before anything is served."""

    def __init__(self, secrets: Secrets, sealer: Sealer, pseudonyms: Pseudonyms) -> None:
        self._secrets = secrets
        self._sealer = sealer
        self._pseudonyms = pseudonyms

    async def step(self, now_ms: int) -> None:
        await self._secrets.rotate(now_ms)
        self._sealer.use(await self._secrets.ticket_keys())
        self._pseudonyms.use(await self._secrets.viewer_secrets())
