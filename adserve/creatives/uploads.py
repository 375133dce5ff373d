"""From an upload to stored media."""

from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

from adserve.creatives.sandbox import Kind, Sandbox


class MediaStore(Protocol):
    def scratch(self) -> AbstractContextManager[BinaryIO]:
        """A file without a name, which is gone once it is closed, or we are."""
        ...

    async def keep(self, file: BinaryIO, content_type: str, width: int, height: int) -> str:
        """Stores what the file holds; answers its SHA-256."""
        ...


class Uploads:
    def __init__(self, sandbox: Sandbox, media: MediaStore) -> None:
        self._sandbox = sandbox
        self._media = media

    async def take(self, kind: Kind, upload: BinaryIO) -> str:
        """The SHA-256 of the rendition, which is durable by then. `upload` stands at its beginning. Raises MediaRefused,
        NoRoom, SandboxBroken, and what the store raises."""
        with self._media.scratch() as file:
            made = await self._sandbox.render(kind, upload.fileno(), file.fileno())
            return await self._media.keep(file, made.content_type, made.width, made.height)
