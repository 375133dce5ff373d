"""The sandbox's inside: `python -m adserve.creatives.child KIND BYTES_MAX DESCRIPTOR`.

Reads an upload at its standard input, writes the rendition to the descriptor, and says at its standard output that it is
confined, and then the verdict. What cannot be had once it is confined, it has by then.
"""

import ctypes
import errno
import os
import resource
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from typing import BinaryIO

import msgspec

from adserve.creatives.verdicts import MediaRefused, Reason, Rendition

CONFINED = b"confined\n"
NO_ROOM = os.EX_IOERR
"""The exit status where the disk is full."""
MEMORY_MAX_BYTES = 1 << 30
CPU_MAX_S = 60
WALL_MAX_S = 90
NICENESS = 10
"""Ads are decided meanwhile."""
USER = 65_533
"""Nobody's: the embedded PostgreSQL may run as `nobody`."""

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_RENDERERS = {"image": "adserve.creatives.images", "video": "adserve.creatives.videos"}
_UNREADABLE = {"image": Reason.NO_IMAGE, "video": Reason.NO_VIDEO}

Render = Callable[[BinaryIO, BinaryIO], Rendition]


def confine(bytes_max: int) -> None:
    """From here on this process can open no file and no socket, start no process or thread, and gain no rights."""
    libc = ctypes.CDLL(None, use_errno=True)
    os.chdir("/")
    os.nice(NICENESS)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stderr.fileno())
    os.close(nowhere)
    signal.alarm(WALL_MAX_S)  # in case nobody is there any more to look at the clock
    for what, most in (
        (resource.RLIMIT_AS, MEMORY_MAX_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, bytes_max),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 0),  # what is open stays open
    ):
        resource.setrlimit(what, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_MAX_S, CPU_MAX_S + 1))
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(USER, USER, USER)
        os.setresuid(USER, USER, USER)
    # The second is forgotten when the user changes.
    for option, value in ((_PR_SET_NO_NEW_PRIVS, 1), (_PR_SET_PDEATHSIG, signal.SIGKILL)):
        if libc.prctl(option, value, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")


def verdict_of(kind: str, render: Render, target: BinaryIO) -> Rendition | Reason:
    try:
        rendition = render(sys.stdin.buffer, target)
        target.flush()
        return rendition
    except Exception as error:
        return _reason(error) or _UNREADABLE[kind]


def _reason(error: BaseException | None) -> Reason | None:
    """None for whatever else decoders raise at what they cannot read. What comes first counts: a muxer that is closed over an
    error fails, too."""
    if error is None:
        return None
    reason = _reason(error.__context__)
    match error:
        case MediaRefused():
            reason = reason or error.reason
        case MemoryError():
            reason = reason or Reason.MEMORY
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            os._exit(NO_ROOM)
        case OSError(errno=errno.EFBIG):
            reason = reason or Reason.LARGE
    return reason


def main() -> None:
    kind, bytes_max, descriptor = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    renderer = import_module(_RENDERERS[kind])
    renderer.rehearse()
    target = os.fdopen(descriptor, "r+b")
    confine(bytes_max)
    os.write(sys.stdout.fileno(), CONFINED)
    os.write(sys.stdout.fileno(), msgspec.json.encode(verdict_of(kind, renderer.render, target)))
    os._exit(0)  # nothing is left to be tidied, and of what was foreign nothing shall run


if __name__ == "__main__":
    main()
