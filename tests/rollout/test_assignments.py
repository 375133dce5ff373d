from collections.abc import Awaitable, Callable, Sequence

import pytest

from adserve.domain.ramps import Arm
from adserve.domain.rollouts import Stage
from adserve.domain.time import HOUR_MS
from adserve.rollout import assignments
from adserve.rollout.arms import Standing
from adserve.rollout.assignments import Assignment, AssignmentLog

NOW_MS = 1_767_225_600_000
FIRST, NEXT = Standing(Stage(7, 0, 5), Arm.EXPOSED), Standing(Stage(7, 1, 9), Arm.CONTROL)


class Written:
    """A store that may be away. `meanwhile` happens while it writes."""

    def __init__(self) -> None:
        self.away = False
        self.meanwhile: Callable[[], Awaitable[None]] | None = None
        self.assignments: list[Assignment] = []

    async def assign(self, assignments: Sequence[Assignment]) -> None:
        if self.away:
            raise OSError
        self.assignments += assignments
        if self.meanwhile is not None:
            await self.meanwhile()


class Erasing:
    """Of one viewer."""

    def __init__(self) -> None:
        self.viewer = b""

    def covers(self, viewer: bytes, _at_ms: int) -> bool:
        return viewer == self.viewer


def make() -> tuple[AssignmentLog, Written, Erasing, list[None]]:
    written, erasing, shed = Written(), Erasing(), list[None]()
    return AssignmentLog(written, erasing.covers, lambda: shed.append(None)), written, erasing, shed


async def test_a_viewer_is_written_once_a_step() -> None:
    log, written, _, _ = make()
    for standing in (FIRST, FIRST, NEXT, FIRST):
        log.note(standing, b"a", NOW_MS)
        await log.step(NOW_MS)
    assert written.assignments == [Assignment(FIRST, b"a", NOW_MS), Assignment(NEXT, b"a", NOW_MS)]


async def test_who_comes_while_another_is_erased_during_a_write_is_written() -> None:
    log, written, erasing, _ = make()

    async def erase_one_and_see_another() -> None:
        erasing.viewer = b"a"
        await log.erase(b"a")
        log.note(FIRST, b"c", NOW_MS)

    written.meanwhile = erase_one_and_see_another
    for viewer in (b"a", b"b"):
        log.note(FIRST, viewer, NOW_MS)
    await log.step(NOW_MS)
    await log.step(NOW_MS)
    assert [each.viewer for each in written.assignments] == [b"a", b"b", b"c"]


async def test_what_could_not_be_written_waits_and_what_is_too_much_is_shed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(assignments, "WAITING_MAX", 2)
    log, written, _, shed = make()
    written.away = True
    for viewer in (b"a", b"b", b"c"):
        log.note(FIRST, viewer, NOW_MS)
    with pytest.raises(OSError):  # noqa: PT011 - the store's own
        await log.step(NOW_MS)
    assert len(shed) == 1
    written.away = False
    await log.step(NOW_MS)
    log.note(FIRST, b"c", NOW_MS)  # who was shed comes again
    await log.step(NOW_MS)
    assert [each.viewer for each in written.assignments] == [b"a", b"b", b"c"]


async def test_memory_of_viewers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assignments, "SEEN_MAX", 10)
    log, _, _, _ = make()
    for nth in range(1_000):
        log.note(FIRST, bytes([nth % 256, nth // 256]), NOW_MS)
        await log.step(NOW_MS)
    assert sum(len(seen) for kept in (log._seen, log._seen_before) for seen in kept.values()) <= 20


async def test_an_hour_later_nobody_is_remembered() -> None:
    log, _, _, _ = make()
    log.note(FIRST, b"a", NOW_MS)
    for hours in (0, 1, 2, 3):
        await log.step(NOW_MS + hours * HOUR_MS)
    assert not log._seen
    assert not log._seen_before


async def test_an_erased_viewer_is_neither_kept_nor_noted() -> None:
    log, written, erasing, _ = make()
    for viewer in (b"a", b"b"):
        log.note(FIRST, viewer, NOW_MS)
    erasing.viewer = b"a"
    await log.erase(b"a")
    log.note(FIRST, b"a", NOW_MS)
    await log.step(NOW_MS)
    assert [each.viewer for each in written.assignments] == [b"b"]
    erasing.viewer = b""
    log.note(FIRST, b"a", NOW_MS)  # who came back is somebody new
    await log.step(NOW_MS)
    assert [each.viewer for each in written.assignments] == [b"b", b"a"]
