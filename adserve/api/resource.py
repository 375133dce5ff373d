"""What advertisers, campaigns, creatives and ads have in common: created, listed, read, changed, paused, archived."""

from abc import ABC, abstractmethod
from functools import partial
from typing import Any, ClassVar

from aiohttp import web
from msgspec import Struct
from msgspec.structs import replace

from adserve.access.keys import Scope
from adserve.api.shapes import given
from adserve.domain.ids import AdvertiserId
from adserve.store.desk import Connection, Desk
from adserve.store.idempotency import Answer
from adserve.store.setup import ADVERTISERS, Row, Table
from adserve.web.forms import Form
from adserve.web.idempotency import once
from adserve.web.operations import Call, Operation
from adserve.web.paging import PageQuery, cut, id_after
from adserve.web.problems import CONFLICT, Problem, invalid
from adserve.web.replies import (
    Page,
    answer_response,
    check_version,
    created,
    json_response,
    required_version,
    thing_response,
)

OWNERS = frozenset({Scope.ADVERTISER, Scope.OPERATOR})
OPERATORS = frozenset({Scope.OPERATOR})

_STATUSES = {"pause": "paused", "resume": "active", "archive": "archived"}


class Resource(ABC):
    """One kind of thing. A tenant's call sees the tenant's things only: the database decides that.

    `body_of` and `columns` are each other's reverse, so that a change is checked exactly as a new thing is: the
    stored thing as a body, with the changed fields put in, becomes columns again.
    """

    table: ClassVar[Table]
    noun: ClassVar[str]
    body: ClassVar[type[Struct]]
    changes: ClassVar[type[Struct]]
    answer: ClassVar[type[Struct]]
    query: ClassVar[type[PageQuery]] = PageQuery
    example: ClassVar[Any] = None
    form: Form[Any] | None = None
    creators = OWNERS
    """Who may create, pause, resume and archive."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    @abstractmethod
    def encode(self, row: Row) -> Struct: ...

    @abstractmethod
    def body_of(self, row: Row) -> Struct: ...

    @abstractmethod
    async def columns(
        self, connection: Connection, tenant: AdvertiserId | None, body: Any, stored: Row | None
    ) -> Row:
        """The body of a call by `tenant` (None: by staff) as columns; `stored` is what it is to replace.

        Raises Problem for what no type can check.
        """

    @property
    def path(self) -> str:
        return f"/v1/{self.noun}s"

    async def create(self, call: Call[Any, Any]) -> web.StreamResponse:
        async with self.desk.transaction(call.caller.advertiser) as connection:
            answer = await once(connection, call, partial(self._create, connection, call))
        return answer_response(answer)

    async def _create(self, connection: Connection, call: Call[Any, Any]) -> Answer:
        columns = await self.columns(connection, call.caller.advertiser, call.body, None)
        row = await self.table.create(connection, columns)
        if "advertiser_id" in row:
            _refuse_archived(await ADVERTISERS.one(connection, row["advertiser_id"]), "The advertiser")
        return created(self.encode(row), f"{self.path}/{row['id']}", row["version"])

    async def page(self, call: Call[None, Any]) -> web.StreamResponse:
        query = call.query
        filters = {name: getattr(query, name) for name in type(query).__struct_fields__}
        async with self.desk.transaction(call.caller.advertiser) as connection:
            rows = await self.table.page(connection, id_after(query), query.limit + 1, filters)
        shown, following = cut(rows, query.limit, lambda row: (row["id"],))
        return json_response(Page([self.encode(row) for row in shown], following))

    async def get(self, call: Call[None, Any]) -> web.StreamResponse:
        async with self.desk.transaction(call.caller.advertiser) as connection:
            row = await self.table.one(connection, call.id)
        return thing_response(self.encode(row), row["version"])

    async def change(self, call: Call[Any, Any]) -> web.StreamResponse:
        condition = required_version(call.request)
        async with self.desk.transaction(call.caller.advertiser) as connection:
            row = await self.table.lock(connection, call.id)
            check_version(condition, row["version"])
            _refuse_archived(row)
            body = replace(self.body_of(row), **given(call.body))
            columns = await self.columns(connection, call.caller.advertiser, body, row)
            row = await self.table.change(connection, call.id, row["version"], columns)
        return thing_response(self.encode(row), row["version"])

    async def set_status(self, status: str, call: Call[None, Any]) -> web.StreamResponse:
        async with self.desk.transaction(call.caller.advertiser) as connection:
            row = await self.table.lock(connection, call.id)
            if row["status"] != status:
                _refuse_archived(row)
                row = await self.table.set_status(connection, call.id, status)
        return thing_response(self.encode(row), row["version"])

    def operations(self) -> list[Operation]:
        noun, one, path = self.noun, self.noun.capitalize(), self.path

        def operation(method: str, path: str, id_: str, summary: str, handle: Any, **more: Any) -> Operation:
            known: dict[str, Any] = {"tag": f"{noun}s", "scopes": OWNERS, "answer": self.answer} | more
            return Operation(method=method, path=path, id=id_, summary=summary, handle=handle, **known)

        return [
            operation(
                "POST", path, f"create{one}", f"Create {_a(noun)}", self.create,
                body=self.body, form=self.form, statuses=(201,), idempotent=True, scopes=self.creators, example=self.example,
            ),
            operation(
                "GET", path, f"list{one}s", f"The {noun}s, oldest first", self.page,
                query=self.query, answer=Page[self.answer],  # type: ignore[name-defined]  # a type made at run time
            ),
            operation("GET", f"{path}/{{id}}", f"get{one}", f"One {noun}, with its ETag", self.get),
            operation(
                "PATCH", f"{path}/{{id}}", f"change{one}", f"Change what is named of {_a(noun)}", self.change,
                body=self.changes, conditional=True, refusals=(409,),
            ),
            *(
                operation(
                    "POST", f"{path}/{{id}}/{verb}", f"{verb}{one}", f"{verb.capitalize()} {_a(noun)}",
                    partial(self.set_status, status), scopes=self.creators, refusals=(409,),
                )
                for verb, status in _STATUSES.items()
            ),
        ]  # fmt: skip  # laid out as rows


def _a(noun: str) -> str:
    return f"{'an' if noun.startswith('a') else 'a'} {noun}"


def _refuse_archived(row: Row, noun: str = "It") -> None:
    if row["status"] == "archived":
        raise Problem(CONFLICT, f"{noun} is archived, which is for ever.")


def owner_of(caller: AdvertiserId | None, given_: int | None) -> AdvertiserId:
    """Whose the new thing is: the calling tenant's, or whom staff name."""
    if given_ is not None:
        return AdvertiserId(given_)
    if caller is None:
        raise invalid("$.advertiser", "is missing")
    return caller
