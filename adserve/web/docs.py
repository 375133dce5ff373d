"""GET /openapi.json, and /docs: Swagger UI from its package, opened by a page of ours without inline scripts."""

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aiohttp import web

from adserve.web.operations import AnyQuery, Call, Operation
from adserve.web.problems import NOT_FOUND, Problem
from adserve.web.replies import json_response

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI draws its icons from data; nothing else may come from anywhere but here."""

_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_OURS = ("index.html", "start.js")
_THEIRS = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")


class Docs:
    def __init__(self) -> None:
        self.description: dict[str, Any] = {}
        package = find_spec("swagger_ui")
        if package is None or package.origin is None:
            raise ModuleNotFoundError("swagger_ui")  # named in our own requirements
        static = Path(package.origin).parent / "static"
        self._files = {name: Path(str(files("adserve.web") / "docs" / name)) for name in _OURS}
        self._files |= {name: static / name for name in _THEIRS}

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/openapi.json",
                id="openapi",
                tag="docs",
                summary="This description",
                handle=self.openapi,
                query=AnyQuery,
            ),
            Operation(
                method="GET",
                path="/docs",
                id="docs",
                tag="docs",
                summary="A page to try the API on",
                handle=self.page,
                query=AnyQuery,
                content_types=("text/html",),
            ),
            Operation(
                method="GET",
                path="/docs/{asset}",
                id="docsAsset",
                tag="docs",
                summary="A file of that page",
                handle=self.asset,
                query=AnyQuery,
                content_types=("*/*",),
            ),
        ]

    async def openapi(self, _call: Call[None, AnyQuery]) -> web.StreamResponse:
        return json_response(self.description)

    async def page(self, _call: Call[None, AnyQuery]) -> web.StreamResponse:
        return web.FileResponse(self._files["index.html"], headers=_HEADERS)

    async def asset(self, call: Call[None, AnyQuery]) -> web.StreamResponse:
        path = self._files.get(call.request.match_info["asset"])
        if path is None:
            raise Problem(NOT_FOUND)
        return web.FileResponse(path, headers=_HEADERS)
