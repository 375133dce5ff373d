"""The service as any caller reaches it, with the demo's own keys."""

from typing import Any, NamedTuple

import aiohttp
import msgspec
from aiohttp import hdrs, web


class Service(NamedTuple):
    session: aiohttp.ClientSession
    base_url: str
    feed_key: str
    operator_key: str

    async def forward(self, method: str, path: str, key: str, body: Any = None) -> web.Response:
        """Whatever the service answers, problems included."""
        headers = {hdrs.AUTHORIZATION: f"Bearer {key}", hdrs.CONTENT_TYPE: "application/json"}
        url, data = f"{self.base_url}{path}", None if body is None else msgspec.json.encode(body)
        async with self.session.request(method, url, data=data, headers=headers) as answer:
            content = await answer.read()
            return web.Response(status=answer.status, body=content, content_type=answer.content_type)
