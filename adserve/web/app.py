"""The application that aiohttp serves."""

import logging
from collections.abc import Iterable

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from adserve.web.auth import Auth
from adserve.web.docs import Docs
from adserve.web.openapi import describe
from adserve.web.operations import Operation, add_routes
from adserve.web.problems import FAULT, KINDS, Problem, problem_response, problems

HANDLED = {"auto_decompress": False}
"""What is refused is still read to its end: unpacked by the framework, that would take all the time there is."""


class _WithoutCallers(logging.Filter):
    """Keeps the framework from logging callers' addresses, and what it cannot parse: that may hold a ticket."""

    def filter(self, record: logging.LogRecord) -> bool:
        if str(record.msg).startswith("Error handling request"):
            record.args = ("a caller",)
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, HttpProcessingError | web.RequestPayloadError)


_without_callers = _WithoutCallers()


class Handler(web.RequestHandler):
    """aiohttp's protocol, which answers what it cannot parse itself."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = FAULT.status,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        super().handle_error(request, status, exc, message)  # which raises where an answer has begun
        detail = "" if message is None else f"The request cannot be read: {_in_one_line(message)}"
        response = problem_response(Problem(KINDS.get(status, FAULT), detail))
        response.force_close()
        return response


def _in_one_line(message: str) -> str:
    """Without the parser's arrow at the byte that it means."""
    return " ".join(line.strip() for line in message.splitlines() if line.strip(" ^"))


def build_app(
    operations: Iterable[Operation], auth: Auth, *, body_max_bytes: int, version: str
) -> web.Application:
    """Every operation on its route, described at /openapi.json and to be tried at /docs."""
    logging.getLogger("aiohttp.server").addFilter(_without_callers)
    docs = Docs()
    table = [*operations, *docs.operations()]
    docs.description = describe(table, version)
    app = web.Application(middlewares=[problems], client_max_size=body_max_bytes, handler_args=HANDLED)
    add_routes(app.router, table, auth, body_max_bytes)
    return app
