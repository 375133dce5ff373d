"""Templates and static files, read once at start; only files that were there then are ever served."""

import hashlib
import mimetypes
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import hdrs, web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from adserve.web.problems import NOT_FOUND, Problem

HERE = Path(__file__).parent
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_REVALIDATED = "no-cache"


class _Asset(NamedTuple):
    body: bytes
    content_type: str
    etag: str


class Assets:
    def __init__(self) -> None:
        folder = HERE / "static"
        self._files = {
            str(path.relative_to(folder)): _read(path) for path in folder.rglob("*") if path.is_file()
        }
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined
        )

    async def get(self, request: web.Request) -> web.Response:
        """`GET <prefix>/{name:.+}`."""
        asset = self._files.get(request.match_info["name"])
        if asset is None:
            raise Problem(NOT_FOUND)
        headers = {hdrs.ETAG: asset.etag, hdrs.CACHE_CONTROL: _REVALIDATED} | SECURITY_HEADERS
        if request.headers.get(hdrs.IF_NONE_MATCH) == asset.etag:
            return web.Response(status=304, headers=headers)
        return web.Response(
            body=asset.body, content_type=asset.content_type, charset="utf-8", headers=headers
        )

    def page(self, template: str, **values: Any) -> web.Response:
        text = self._templates.get_template(template).render(values)
        headers = {hdrs.CACHE_CONTROL: _REVALIDATED} | SECURITY_HEADERS
        return web.Response(text=text, content_type="text/html", headers=headers)


def _read(path: Path) -> _Asset:
    body = path.read_bytes()
    content_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return _Asset(body, content_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
