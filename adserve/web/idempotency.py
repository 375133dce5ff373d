"""Creating calls that may be sent again: the same Idempotency-Key creates once and is answered alike."""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

from adserve.store import idempotency
from adserve.store.desk import Connection
from adserve.store.idempotency import Answer
from adserve.web.operations import Call
from adserve.web.problems import invalid

HEADER = "Idempotency-Key"
KEY_MAX_LENGTH = 200


async def once(
    connection: Connection,
    call: Call[Any, Any],
    create: Callable[[], Awaitable[Answer]],
    kept: Callable[[Answer], Answer] = lambda answer: answer,
) -> Answer:
    """What `create` answers, in the transaction of `connection`; or what was `kept` of its first answer."""
    key = _key_of(call)
    if key is None:
        return await create()
    caller = call.caller
    earlier = await idempotency.take(connection, caller.id, caller.advertiser, key, _digest_of(call))
    if earlier is not None:
        return earlier
    answer = await create()
    await idempotency.remember(connection, caller.id, key, kept(answer))
    return answer


async def earlier_answer(connection: Connection, call: Call[Any, Any]) -> Answer | None:
    """For a call that takes long before it can create: what `once` would answer without creating."""
    key = _key_of(call)
    if key is None:
        return None
    return await idempotency.earlier_answer(connection, call.caller.id, key, _digest_of(call))


def _key_of(call: Call[Any, Any]) -> str | None:
    key = call.request.headers.get(HEADER)
    if key is not None and (
        not 1 <= len(key) <= KEY_MAX_LENGTH or not key.isascii() or not key.isprintable()
    ):
        raise invalid(HEADER, f"is 1 to {KEY_MAX_LENGTH} printable ASCII characters")
    return key


def _digest_of(call: Call[Any, Any]) -> bytes:
    request = call.request
    return hashlib.sha256(
        b"%b %b\0%b" % (request.method.encode(), request.path.encode(), call.raw_body)
    ).digest()
