"""Folders for the data homes of servers."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MEMORY = Path("/dev/shm")  # noqa: S108 - its folders are closed to others like any
CONTAINER = Path("/sys/fs/cgroup")
ROOMY_BYTES = 6 << 30


def _in_memory() -> Path | None:
    """Where there is plenty of it: what is kept until its test ends has no need of a disk, whose other users may stall it. A kill -9
    loses as little there."""
    if os.environ.get("ADSERVE_CHAOS") or not MEMORY.is_dir():
        return None
    found = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    room = [shutil.disk_usage(MEMORY).free, int(found[1]) << 10 if found else 0]
    with suppress(OSError, ValueError):  # it has no bound
        room.append(
            int((CONTAINER / "memory.max").read_text()) - int((CONTAINER / "memory.current").read_text())
        )
    return MEMORY if min(room) > ROOMY_BYTES else None


PARENT = _in_memory()


@contextmanager
def new_home(purpose: str = "test") -> Iterator[Path]:
    """An empty one, which the server's user can enter when we are root; pytest's own are closed."""
    folder = Path(tempfile.mkdtemp(prefix=f"adserve-{purpose}-", dir=PARENT))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
