"""Sandboxes for tests: the real one, and broken twins of what runs inside."""

import sys
import tempfile
from pathlib import Path
from textwrap import indent

from adserve.creatives.sandbox import Kind, Sandbox
from adserve.creatives.verdicts import Rendition

BYTES_MAX = 4_000_000


def twin(render: str, before: str = "") -> Sandbox:
    """With another `render(source, target)`; `before` runs before it is confined."""
    program = (
        "import os, sys, time\n"
        "from adserve.creatives import child, images\n"
        "from adserve.creatives.verdicts import *\n"
        f"{before}\n"
        f"def render(source, target):\n{indent(render, '    ')}\n"
        "images.rehearse, images.render = lambda: None, render\n"
        "child.main()\n"
    )
    return Sandbox(BYTES_MAX, (sys.executable, "-Es", "-c", program))


async def rendered(
    data: bytes, kind: Kind = "image", box: Sandbox | None = None, folder: Path | None = None
) -> tuple[Rendition, bytes]:
    with tempfile.TemporaryFile(dir=folder) as source, tempfile.TemporaryFile(dir=folder) as target:
        source.write(data)
        source.seek(0)
        made = await (box or Sandbox(BYTES_MAX)).render(kind, source.fileno(), target.fileno())
        target.seek(0)
        return made, target.read()
