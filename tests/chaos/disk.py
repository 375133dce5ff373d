"""A disk of its own, that loses power or fills up: ext4 on a loop device, and root's alone to make.

A power cut is the kernel's own emergency stop of the file system (as `godown` of xfstests does it): from then on nothing
reaches the device, neither what programs have written and not synced nor the journal's open part. What is mounted again
is what a machine finds when its power comes back, if its disk keeps what it has said is flushed.
"""

import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SHUTDOWN = 0x8004587D
"""FS_IOC_SHUTDOWN of ext4, XFS and others."""
WITHOUT_FLUSH = 2
SIZE_BYTES = 2 * 2**30
UNMOUNTED_WITHIN_S = 60.0


class Disk:
    def __init__(self, folder: Path) -> None:
        self.folder = folder / "disk"
        self._image = folder / "disk.img"
        self._filler = self.folder / "filler"
        self.folder.mkdir()
        with self._image.open("wb") as image:
            image.truncate(SIZE_BYTES)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", self._image], check=True)
        self.mount()
        self.home = self.folder / "home"
        self.home.mkdir()
        self.home.chmod(0o711)
        os.sync()

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", self._image, self.folder], check=True, capture_output=True)

    def unmount(self) -> None:
        """As soon as the last of those who were killed is gone."""
        deadline = time.monotonic() + UNMOUNTED_WITHIN_S
        while subprocess.run(["umount", self.folder], check=False, capture_output=True).returncode:
            assert time.monotonic() < deadline, "somebody is still using the disk"
            time.sleep(0.02)

    def cut_power(self) -> None:
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", WITHOUT_FLUSH))
        finally:
            os.close(descriptor)

    def fill(self) -> None:
        size, piece = 0, SIZE_BYTES // 2
        with self._filler.open("wb") as filler:
            while piece >= 4_096:
                try:
                    os.posix_fallocate(filler.fileno(), size, piece)
                    size += piece
                except OSError:  # not so much any more
                    piece //= 2

    def make_room(self) -> None:
        self._filler.unlink()


@contextmanager
def own_disk() -> Iterator[Disk]:
    """Skips where there is none to be had."""
    folder = Path(tempfile.mkdtemp(prefix="adserve-disk-"))
    folder.chmod(0o711)
    try:
        try:
            disk = Disk(folder)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"power cuts and full disks need root, mkfs.ext4 and a loop device: {error}")
        try:
            yield disk
        finally:
            disk.unmount()
    finally:
        shutil.rmtree(folder)
