"""Multipart bodies, well-formed and not."""

import json
from typing import Any

BOUNDARY = "----a boundary'()+_,-./:=?"
TYPE = f'multipart/form-data; boundary="{BOUNDARY}"'

Part = tuple[bytes, bytes]
"""What stands before the empty line, and what behind."""


def part(name: str, data: bytes, *more: str, filename: str | None = None) -> Part:
    file = "" if filename is None else f'; filename="{filename}"'
    return "\r\n".join((f'Content-Disposition: form-data; name="{name}"{file}', *more)).encode(), data


def media(data: bytes) -> Part:
    return part(
        "media",
        data,
        "Content-Type: application/octet-stream",
        filename='C:\\a "b"; name="creative"'.replace('"', '\\"'),
    )


def creative(fields: Any) -> Part:
    raw = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return part("creative", raw, "Content-Type: application/json")


def form(*parts: Part, boundary: str = BOUNDARY, end: bytes = b"--\r\n") -> bytes:
    delimiter = b"--" + boundary.encode()
    return (
        b"".join(b"%b\r\n%b\r\n\r\n%b\r\n" % (delimiter, head, data) for head, data in parts)
        + delimiter
        + end
    )
