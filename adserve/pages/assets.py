"""Templates and static files, read once at start; only files that were there then are ever served."""

import asyncio
import gzip
import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import hdrs, web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from adserve.web.problems import NOT_FOUND, Problem

HERE = Path(__file__).parent
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
REVALIDATED = "no-cache"
ZIPPED_FROM_BYTES = 100_000
"""What is smaller goes as it is: with its ETag it is sent once to a browser anyway."""


@dataclass(slots=True)
class _Asset:
    body: bytes
    content_type: str
    etag: str
    zipped: bytes | None = None


class Assets:
    """`libraries` are files of other packages, by the name that they are served under."""

    def __init__(self, libraries: Mapping[str, Path] | None = None) -> None:
        folder = HERE / "static"
        files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
        self._files = {name: _read(path) for name, path in (files | dict(libraries or {})).items()}
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined
        )

    async def get(self, request: web.Request) -> web.Response:
        """`GET <prefix>/{name:.+}`."""
        asset = self._files.get(request.match_info["name"])
        if asset is None:
            raise Problem(NOT_FOUND)
        headers = {hdrs.ETAG: asset.etag, hdrs.CACHE_CONTROL: REVALIDATED} | SECURITY_HEADERS
        if request.headers.get(hdrs.IF_NONE_MATCH) == asset.etag:
            return web.Response(status=304, headers=headers)
        body = asset.body
        if len(body) >= ZIPPED_FROM_BYTES:
            headers[hdrs.VARY] = hdrs.ACCEPT_ENCODING
            if "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, ""):
                body = await _zipped(asset)
                headers[hdrs.CONTENT_ENCODING] = "gzip"
        return web.Response(body=body, content_type=asset.content_type, charset="utf-8", headers=headers)

    def page(self, template: str, *, caching: str = REVALIDATED, **values: Any) -> web.Response:
        text = self._templates.get_template(template).render(values)
        headers = {hdrs.CACHE_CONTROL: caching} | SECURITY_HEADERS
        return web.Response(text=text, content_type="text/html", headers=headers)


def _read(path: Path) -> _Asset:
    body = path.read_bytes()
    content_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return _Asset(body, content_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


async def _zipped(asset: _Asset) -> bytes:
    if asset.zipped is None:
        asset.zipped = await asyncio.to_thread(gzip.compress, asset.body, mtime=0)
    return asset.zipped
