"""/v1/exports: the log of a time as a whole, without pages."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from functools import partial
from typing import Literal

import msgspec
from aiohttp import HttpVersion11, web
from msgspec import Struct
from msgspec.structs import replace

from adserve.api.impressions import HEADS, LINES, NDJSON, READERS, Wanted
from adserve.api.shapes import Moment
from adserve.domain.time import DAY_MS, Clock, day_of, from_ms, to_ms
from adserve.store import exports
from adserve.store.delivery import kept_from
from adserve.store.desk import Connection, Desk
from adserve.store.errors import Unanswerable
from adserve.store.idempotency import Answer
from adserve.store.impressions import Place, page
from adserve.web.idempotency import once
from adserve.web.operations import Call, NoQuery, Operation
from adserve.web.problems import INVALID, NOT_FOUND, OLD_HTTP, SLOW, UNAVAILABLE, Problem, about, invalid
from adserve.web.replies import JSON, answer_response, created, json_response
from adserve.web.tables import CSV, preferred

DAYS_MAX = 92
ROWS_AT_ONCE = 2_000
STREAMS_MAX = 2
"""So many exports a process sends at once; whoever comes then is to come again."""
RETRY_AFTER_S = 10
STALLED_S = 60.0
"""Who takes nothing for so long is cut off, or keeps others from their exports."""

_KINDS = {"csv": CSV, "ndjson": NDJSON}


class ExportAsked(Wanted, frozen=True, forbid_unknown_fields=True):
    """`from` and `to` have to be given."""

    format: Literal["csv", "ndjson"] = "csv"


class Export(Struct, frozen=True):
    id: int
    asked: ExportAsked
    made_at: Moment
    url: str


class Exports:
    """`staff` keeps the questions; who answers them is `analysts`, or the advertiser itself."""

    def __init__(self, staff: Desk, analysts: Desk, clock: Clock) -> None:
        self._staff = staff
        self._analysts = analysts
        self._clock = clock
        self._streams = 0

    async def create(self, call: Call[ExportAsked, NoQuery]) -> web.StreamResponse:
        asked, advertiser = call.body, call.caller.advertiser
        asked.check("$.")
        if asked.from_ is None or asked.to is None:
            raise invalid("$.from" if asked.from_ is None else "$.to", "is missing")
        if not 0 < to_ms(asked.to) - to_ms(asked.from_) <= DAYS_MAX * DAY_MS:
            raise invalid("$.to", f"is not after `from`, or more than {DAYS_MAX} days")
        if advertiser is not None:  # whoever fetches it: the answer stays what its maker may see
            if asked.advertiser not in (None, advertiser):
                raise about(NOT_FOUND, "$.advertiser", "does not exist")
            asked = replace(asked, advertiser=advertiser)
        async with self._staff.transaction(advertiser) as connection:
            answer = await once(connection, call, partial(self._create, connection, advertiser, asked))
        return answer_response(answer)

    async def _create(self, connection: Connection, advertiser: int | None, asked: ExportAsked) -> Answer:
        if (gone := await _gone(connection, asked)) is not None:
            raise invalid("$.from", gone)
        at = from_ms(self._clock())
        id_ = await exports.add(connection, advertiser, msgspec.json.encode(asked).decode(), at)
        return created(_shown(id_, asked, at), f"/v1/exports/{id_}")

    async def get(self, call: Call[None, NoQuery]) -> web.StreamResponse:
        async with self._staff.transaction(call.caller.advertiser) as connection:
            text, made_at = await exports.one(connection, call.id)
        asked = _asked.decode(text)
        kind = _KINDS[asked.format]
        if preferred(call.request.headers.get("Accept", ""), (JSON, kind)) == JSON:
            return json_response(_shown(call.id, asked, made_at))
        if call.request.version < HttpVersion11:
            raise Problem(
                OLD_HTTP,
                "HTTP/1.0 would not tell an export that broke off from a whole one.",
                headers={"Upgrade": "HTTP/1.1", "Connection": "Upgrade"},
            )
        if self._streams >= STREAMS_MAX:
            raise Problem(
                UNAVAILABLE, "Other exports are being sent.", headers={"Retry-After": str(RETRY_AFTER_S)}
            )
        self._streams += 1
        try:
            return await self._send(call, asked, kind)
        finally:
            self._streams -= 1

    async def _send(self, call: Call[None, NoQuery], asked: ExportAsked, kind: str) -> web.StreamResponse:
        """A connection that ends early says that something is missing: then the answer has no end of its own."""
        name = f"impressions-{call.id}.{asked.format}"
        response = web.StreamResponse(
            headers={"Cache-Control": "no-store", "Content-Disposition": f'attachment; filename="{name}"'}
        )
        response.content_type, response.charset = kind, "utf-8"
        pages = self._pages(call, asked, kind)
        first = await anext(pages, b"")  # what fails before anything was sent is answered with a problem
        await response.prepare(call.request)
        try:
            await _taken(response.write(HEADS[kind] + first))
            async for lines in pages:
                await _taken(response.write(lines))
            await _taken(response.write_eof())
        except (Exception, asyncio.CancelledError):
            if call.request.transport is not None:
                call.request.transport.abort()
            raise
        return response

    async def _pages(self, call: Call[None, NoQuery], asked: ExportAsked, kind: str) -> AsyncIterator[bytes]:
        """No connection is held while the caller reads."""
        after: Place | None = None
        while True:
            async with self._analysts.transaction(call.caller.advertiser) as connection:
                try:
                    rows = await page(connection, asked.filters(), after, ROWS_AT_ONCE)
                except Unanswerable as error:
                    raise Problem(INVALID, f"A part of it {error}.") from error
                if (gone := await _gone(connection, asked)) is not None:  # meanwhile, perhaps
                    raise Problem(INVALID, f"A part of it {gone}.")
            if rows:
                yield LINES[kind](rows)
            if len(rows) < ROWS_AT_ONCE:
                return
            after = Place(rows[-1]["received_at"], rows[-1]["event"])

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path="/v1/exports",
                id="createExport",
                tag="analysts",
                summary="Ask for the log of a time as a whole",
                handle=self.create,
                scopes=READERS,
                body=ExportAsked,
                answer=Export,
                statuses=(201,),
                idempotent=True,
                refusals=(404,),
                example={"from": "2026-01-01T00:00:00Z", "to": "2026-02-01T00:00:00Z", "kind": "any"},
            ),
            Operation(
                method="GET",
                path="/v1/exports/{id}",
                id="getExport",
                tag="analysts",
                summary="Fetch an export",
                description="As the CSV or NDJSON that was asked for: what the log has at that moment. With "
                "`Accept: application/json`, what was asked.",
                handle=self.get,
                scopes=READERS,
                answer=Export,
                content_types=(JSON, CSV, NDJSON),
                refusals=(426, 503),
            ),
        ]


async def _gone(connection: Connection, asked: ExportAsked) -> str | None:
    """What is missing of it."""
    kept = await kept_from(connection)
    if asked.from_ is None or day_of(to_ms(asked.from_)) >= kept:
        return None
    return f"is before {kept}, and events of then are not in the log any more"


async def _taken(written: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(STALLED_S):
            await written
    except TimeoutError as error:
        raise Problem(SLOW, f"Nothing was read for {STALLED_S:g} s.") from error


_asked = msgspec.json.Decoder(ExportAsked)


def _shown(id_: int, asked: ExportAsked, made_at: Moment) -> Export:
    return Export(id_, asked, made_at, f"/v1/exports/{id_}")
