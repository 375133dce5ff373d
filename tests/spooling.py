"""A program that keeps events in a spool until it is killed, broken twins of the spool, and a disk that loses power."""

import asyncio
import fcntl
import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from msgspec import structs

from adserve.domain.events import Event, EventKind, Outcome, Settled
from adserve.domain.ids import EventId, uuid7
from adserve.domain.tickets import Ticket
from adserve.store.spool import Spool

NOW_MS = 1_767_225_600_000
SPOOL_BYTES = 4_000_000
SHUTDOWN = 0x8004587D
"""FS_IOC_SHUTDOWN: from here on nothing reaches the device, as in a power cut."""
WITHOUT_FLUSH = 2

TICKET = Ticket(
    ticket=UUID(int=0), decision=UUID(int=1), advertiser=1, campaign=2, ad=3, creative=4, revision=1,
    viewer_cap=b"c" * 16, viewer_log=b"l" * 16, price_micros=2_500, currency="USD", billable="impression", lease=9,
    budget_day=1, epoch=1, surface="status", country="ID", platform="android", position=4, propensity=1.0, model="m",
    catalogue_version=1, rules_version=1, arm="exposed", issued_at_ms=NOW_MS, expires_at_ms=NOW_MS + 3_600_000,
)  # fmt: skip  # laid out as rows


def event(
    nth: int, kind: EventKind = EventKind.IMPRESSION, outcome: Outcome = Outcome.RECORDED, again: int = 0
) -> Event:
    ticket = structs.replace(TICKET, ticket=uuid7(NOW_MS, nth))
    id_ = EventId(uuid7(NOW_MS + again, nth << 8 | again))
    return Event(id_, kind, ticket, outcome, NOW_MS + nth, None, None)


class Unsynced(Spool):
    """A broken twin: its commits wait for the system to write them."""

    @staticmethod
    def prepare(connection: sqlite3.Connection, max_bytes: int) -> None:
        Spool.prepare(connection, max_bytes)
        connection.execute("PRAGMA synchronous = OFF")


class Early(Spool):
    """A broken twin: it answers first, and commits a little later."""

    async def keep(self, events: Sequence[Event]) -> list[Settled]:
        asyncio.get_running_loop().call_later(0.02, self._thread.submit, self._keep, events)
        return [Settled(one.event, Outcome.ACCEPTED, None) for one in events]


TWINS = {twin.__name__: twin for twin in (Spool, Unsynced, Early)}


async def keep_for_ever(path: Path, twin: str, first: int) -> None:
    """Says the number of each event that is acknowledged."""
    spool = TWINS[twin].open(path, SPOOL_BYTES)
    while True:
        await spool.keep([event(first)])
        os.write(1, b"%d\n" % first)
        first += 1


@contextmanager
def keeping(path: Path, twin: type[Spool], first: int = 1) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, __file__, str(path), twin.__name__, str(first)], stdout=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def acknowledged(process: subprocess.Popen[bytes], most: int) -> set[int]:
    """What it has said by the time that it has said so many, and is killed."""
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(most)]
    process.kill()
    said += process.stdout.readlines()
    return {int(line) for line in said if line.endswith(b"\n")}


async def kept(path: Path) -> set[int]:
    spool = Spool.open(path, SPOOL_BYTES)
    rows = await spool.oldest(1_000_000)
    spool.close()
    return {row.received_at_ms - NOW_MS for row in rows}


@contextmanager
def disk(folder: Path) -> Iterator[tuple[Path, "Cut"]]:
    """A small disk of its own, and what takes its power away. Skips where there is none to be had."""
    image, mounted = folder / "disk.img", folder / "disk"
    mounted.mkdir()
    with image.open("wb") as made:
        made.truncate(24_000_000)
    cut = Cut(image, mounted)
    try:
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
        cut.mount()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a power cut needs root, mkfs.ext4 and a loop device: {error}")
    try:
        yield mounted, cut
    finally:
        cut.unmount()


class Cut:
    def __init__(self, image: Path, mounted: Path) -> None:
        self._image, self._mounted = image, mounted

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", self._image, self._mounted], check=True, capture_output=True)

    def unmount(self) -> None:
        subprocess.run(["umount", self._mounted], check=True, capture_output=True)

    def power(self) -> None:
        descriptor = os.open(self._mounted, os.O_RDONLY)
        fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", WITHOUT_FLUSH))
        os.close(descriptor)


if __name__ == "__main__":
    asyncio.run(keep_for_ever(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
