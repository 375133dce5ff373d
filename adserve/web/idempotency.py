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
    key = call.request.headers.get(HEADER)
    if key is None:
        return await create()
    if not 1 <= len(key) <= KEY_MAX_LENGTH or not key.isascii() or not key.isprintable():
        raise invalid(HEADER, f"is 1 to {KEY_MAX_LENGTH} printable ASCII characters")
    digest = hashlib.sha256(
        b"%b %b\0%b" % (call.request.method.encode(), call.request.path.encode(), call.raw_body)
    ).digest()
    caller = call.caller
    earlier = await idempotency.earlier_answer(connection, caller.id, caller.advertiser, key, digest)
    if earlier is not None:
        return earlier
    answer = await create()
    await idempotency.remember(connection, caller.id, key, kept(answer))
    return answer
