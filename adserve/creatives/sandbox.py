"""Runs a child for each upload, which alone looks into its bytes."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from adserve.creatives.child import CONFINED, NO_ROOM, WALL_MAX_S
from adserve.creatives.verdicts import SERVED_SIDE_MAX, MediaRefused, NoRoom, Reason, Rendition

AT_ONCE = 2
"""Each has a gigabyte at the most, and a core."""
ROOT = Path(__file__).parents[2]
"""Where the package lies: a child has no environment to find it by."""
CHILD = (sys.executable, "-Es", "-m", "adserve.creatives.child")
SAID_MAX_BYTES = 4_096

_PREFIXES = {"image": "image/", "video": "video/"}
_SLOW = (-signal.SIGXCPU, -signal.SIGALRM)

Kind = Literal["image", "video"]

_verdicts = msgspec.json.Decoder(Rendition | Reason)


class SandboxBroken(Exception):
    """The child did not come as far as looking at the upload: the fault is ours."""


class Sandbox:
    """`rendition_max_bytes` is how much a child may write."""

    def __init__(self, rendition_max_bytes: int, command: Sequence[str] = CHILD) -> None:
        self._bytes_max = rendition_max_bytes
        self._command = command
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def render(self, kind: Kind, source: int, target: int) -> Rendition:
        """Both are descriptors of files; the source is read from where it stands. Raises MediaRefused, NoRoom,
        SandboxBroken."""
        async with self._turns:
            # In a thread: to make a process of a large one may take longer than a slot request has.
            child = await asyncio.to_thread(self._start, kind, source, target)
            try:
                status = await asyncio.to_thread(child.wait, WALL_MAX_S)
            except subprocess.TimeoutExpired as error:
                raise MediaRefused(Reason.SLOW) from error
            finally:
                child.kill()
                said, complaint = await asyncio.to_thread(_last_words, child)
        return _judged(kind, status, said, complaint)

    def _start(self, kind: Kind, source: int, target: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - our own program and arguments
            [*self._command, kind, str(self._bytes_max), str(target)],
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(target,),
            env={},
            cwd=ROOT,
            start_new_session=True,
        )


def _last_words(child: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """No more than a pipe holds: who says more waits for somebody to listen until the time is up."""
    with child:
        assert child.stdout is not None and child.stderr is not None  # noqa: S101, PT018 - for the type checker
        return child.stdout.read(SAID_MAX_BYTES), child.stderr.read(SAID_MAX_BYTES)


def _judged(kind: Kind, status: int, said: bytes, complaint: bytes) -> Rendition:
    if not said.startswith(CONFINED):
        raise SandboxBroken(f"status {status}: {complaint.decode(errors='replace').strip()[-500:]}")
    if status == NO_ROOM:
        raise NoRoom
    if status:
        raise MediaRefused(Reason.SLOW if status in _SLOW else Reason.FATAL)
    try:
        verdict: Rendition | Reason = _verdicts.decode(said.removeprefix(CONFINED))
    except ValueError as error:
        raise MediaRefused(Reason.FATAL) from error
    if isinstance(verdict, Reason):
        raise MediaRefused(verdict)
    # The child has looked at foreign bytes: it may say anything.
    if not verdict.content_type.startswith(_PREFIXES[kind]) or not all(
        1 <= side <= SERVED_SIDE_MAX for side in (verdict.width, verdict.height)
    ):
        raise MediaRefused(Reason.FATAL)
    return verdict
