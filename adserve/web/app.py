"""The application that aiohttp serves."""

from collections.abc import Iterable

from aiohttp import web

from adserve.web.auth import Auth
from adserve.web.docs import Docs
from adserve.web.openapi import describe
from adserve.web.operations import Operation, add_routes
from adserve.web.problems import problems


def build_app(
    operations: Iterable[Operation], auth: Auth, *, body_max_bytes: int, version: str
) -> web.Application:
    """Every operation on its route, described at /openapi.json and to be tried at /docs."""
    docs = Docs()
    table = [*operations, *docs.operations()]
    docs.description = describe(table, version)
    app = web.Application(middlewares=[problems], client_max_size=body_max_bytes)
    add_routes(app.router, table, auth, body_max_bytes)
    return app
