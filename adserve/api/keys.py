"""/v1/keys: API keys, issued, listed and revoked. A new key's secret is told once."""

import secrets
from collections.abc import Callable
from functools import partial
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta, Struct
from msgspec.structs import replace

from adserve.access.keys import SECRET_BYTES, Key, Scope, new_key, scopes_refused
from adserve.api.resource import OPERATORS
from adserve.api.shapes import Id, Moment, Name
from adserve.domain.ids import AdvertiserId, KeyId
from adserve.domain.time import Clock, from_ms
from adserve.store.desk import Connection, Desk
from adserve.store.idempotency import Answer
from adserve.store.keys import Keys, KnownKey
from adserve.web.idempotency import once
from adserve.web.operations import Call, NoQuery, Operation
from adserve.web.paging import PageQuery, cut, id_after
from adserve.web.problems import invalid
from adserve.web.replies import Page, answer_response, created, json_response


class NewKey(Struct, frozen=True, forbid_unknown_fields=True):
    """The scope `advertiser` needs an `advertiser`, for whom the key then speaks; beside it such a key may have `analyst` only."""

    name: Name
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=len(Scope))]
    advertiser: Id | None = None


class KnownApiKey(Struct, frozen=True):
    """`hint` is how the secret begins."""

    id: int
    name: str
    scopes: list[Scope]
    advertiser: int | None
    hint: str
    created_at: Moment
    revoked_at: Moment | None


class IssuedKey(KnownApiKey, frozen=True):
    """`secret` is null where the call came again."""

    secret: str | None


class KeysApi:
    def __init__(
        self, desk: Desk, clock: Clock, chance: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        self._desk = desk
        self._clock = clock
        self._chance = chance

    async def issue(self, call: Call[NewKey, NoQuery]) -> web.StreamResponse:
        body = call.body
        if not body.name.isprintable():
            raise invalid("$.name", "contains what cannot be printed")
        refusal = scopes_refused(frozenset(body.scopes), body.advertiser)
        if refusal is not None:
            field, reason = refusal
            raise invalid(f"$.{field}", reason)
        async with self._desk.transaction(None) as connection:
            answer = await once(connection, call, partial(self._issue, connection, body), _without_secret)
        return answer_response(answer)

    async def _issue(self, connection: Connection, body: NewKey) -> Answer:
        new, scopes, now = new_key(self._chance(SECRET_BYTES)), frozenset(body.scopes), from_ms(self._clock())
        advertiser = None if body.advertiser is None else AdvertiserId(body.advertiser)
        id_ = await Keys(connection).issue(new, body.name, scopes, advertiser, now)
        known = _encode(KnownKey(Key(id_, body.name, scopes, advertiser), new.hint, now, None))
        return created(IssuedKey(**msgspec.structs.asdict(known), secret=new.secret), "/v1/keys")

    async def page(self, call: Call[None, PageQuery]) -> web.StreamResponse:
        query = call.query
        async with self._desk.transaction(None) as connection:
            keys = await Keys(connection).known(id_after(query), query.limit + 1)
        shown, following = cut(keys, query.limit, lambda known: (known.key.id,))
        return json_response(Page(list(map(_encode, shown)), following))

    async def revoke(self, call: Call[None, NoQuery]) -> web.StreamResponse:
        async with self._desk.transaction(None) as connection:
            known = await Keys(connection).revoke(KeyId(call.id), from_ms(self._clock()))
        return json_response(_encode(known))

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path="/v1/keys",
                id="issueKey",
                tag="keys",
                summary="Make an API key, and tell its secret this once",
                description="Every replica knows the key within five seconds. The secret is not stored: with the same "
                "Idempotency-Key again the answer names the same key, with `secret` null. Who has lost the secret revokes "
                "that key, and issues another.",
                handle=self.issue,
                scopes=OPERATORS,
                body=NewKey,
                answer=IssuedKey,
                statuses=(201,),
                idempotent=True,
                example={"name": "kopi", "scopes": ["advertiser"], "advertiser": 1},
            ),
            Operation(
                method="GET",
                path="/v1/keys",
                id="listKeys",
                tag="keys",
                summary="Every API key without its secret, oldest first, revoked ones too",
                handle=self.page,
                scopes=OPERATORS,
                query=PageQuery,
                answer=Page[KnownApiKey],
            ),
            Operation(
                method="POST",
                path="/v1/keys/{id}/revoke",
                id="revokeKey",
                tag="keys",
                summary="End an API key on every replica within five seconds; again changes nothing",
                handle=self.revoke,
                scopes=OPERATORS,
                answer=KnownApiKey,
            ),
        ]


def _encode(known: KnownKey) -> KnownApiKey:
    key = known.key
    return KnownApiKey(
        key.id, key.name, sorted(key.scopes), key.advertiser, known.hint, known.created_at, known.revoked_at
    )


def _without_secret(answer: Answer) -> Answer:
    """What may be stored."""
    issued = msgspec.json.decode(answer.body, type=IssuedKey)
    return answer._replace(body=msgspec.json.encode(replace(issued, secret=None)))
