"""What a child can do and cannot; each with a twin that shows the difference."""

import asyncio
import os
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from boxes import BYTES_MAX, rendered, twin
from pictures import drawn, encoded, png_of, video
from PIL import Image
from waiting import until

from adserve.creatives import sandbox
from adserve.creatives.sandbox import AT_ONCE, Sandbox, SandboxBroken
from adserve.creatives.verdicts import MediaRefused, NoRoom, Reason, Rendition

OUR_USER = 65_533
PICTURE = encoded(drawn(), "PNG")
DONE = 'return Rendition("image/png", 1, 1)'
UNLIMITED = "child.MEMORY_MAX_BYTES = -1"
UNCONFINED = "child.confine = lambda bytes_max: None"
HOG = "held = [bytearray(1 << 26) for _ in range(24)]  # a gigabyte and a half\n" + DONE
FORK = "os.fork() or os._exit(0)"
ATTEMPTS = {
    "file": "open('/etc/passwd')",
    "secret": f"open({str(Path(__file__))!r})",
    "new file": "open('/tmp/' + str(os.getpid()), 'w')",
    "after closing one": "os.close(0); os.open('/etc/passwd', os.O_RDONLY)",
    "socket": "import socket; socket.socket()",
    "process": FORK,
    "thread": "import _thread; _thread.start_new_thread(time.sleep, (0,))",
}


async def reason(data: bytes, box: Sandbox) -> Reason:
    with pytest.raises(MediaRefused) as refused:
        await rendered(data, box=box)
    return refused.value.reason


async def test_a_picture_comes_back() -> None:
    made, data = await rendered(PICTURE)
    assert made == Rendition("image/png", 60, 40)
    assert data.startswith(b"\x89PNG")


async def test_who_takes_more_memory_than_is_allowed_is_refused() -> None:
    assert await reason(PICTURE, twin(HOG)) is Reason.MEMORY
    assert (await rendered(PICTURE, box=twin(HOG, UNLIMITED)))[0].width == 1  # the control


async def test_a_decompression_bomb_is_refused_before_it_unfolds() -> None:
    """A hundred gigabytes in a hundred bytes."""
    bomb = png_of(1_000_000, 100_000)
    assert len(bomb) < 100
    assert await reason(bomb, Sandbox(BYTES_MAX)) is Reason.IMAGE_SIDES
    assert await reason(
        bomb, twin("from PIL import Image; Image.open(source).load()\n" + DONE, "import zlib")
    ) in (
        Reason.MEMORY,
        Reason.NO_IMAGE,
    )


async def test_who_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "WALL_MAX_S", 1)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    assert await reason(PICTURE, twin("time.sleep(600)")) is Reason.SLOW
    ticking.cancel()
    assert ticks > 10  # the event loop had other things to do


async def test_who_computes_for_ever_is_ended() -> None:
    assert await reason(PICTURE, twin("while True: pass", "child.CPU_MAX_S = 2")) is Reason.SLOW


@pytest.mark.parametrize(
    "death",
    [
        "os.kill(os.getpid(), 9)",
        "import ctypes; ctypes.string_at(0)",
        "os._exit(3)",
        "print('no JSON', flush=True); os._exit(0)",
        'os.write(1, b\'{"content_type":"text/html","width":1,"height":1}\'); os._exit(0)',
        'os.write(1, b\'{"content_type":"image/png","width":1000000,"height":1}\'); os._exit(0)',
        "os.write(1, b'\"what it likes\"'); os._exit(0)",
    ],
)
async def test_a_child_that_dies_or_lies_is_a_refusal(death: str) -> None:
    assert await reason(PICTURE, twin(death)) is Reason.FATAL


async def test_a_child_that_never_stops_talking_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "WALL_MAX_S", 1)
    assert await reason(PICTURE, twin("while True: os.write(1, bytes(65536))")) is Reason.SLOW


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
async def test_a_confined_child_can_open_and_start_nothing(attempt: str) -> None:
    try_it = (
        f"try:\n    {attempt}\nexcept (OSError, RuntimeError):\n    raise MediaRefused(Reason.SIZES)\n{DONE}"
    )
    if "thread" in attempt:
        try_it = "import threading\n" + try_it
    preload = "import socket, _thread, threading"
    assert await reason(PICTURE, twin(try_it, preload)) is Reason.SIZES
    assert (await rendered(PICTURE, box=twin(try_it, f"{preload}\n{UNCONFINED}")))[0].width == 1


async def test_a_child_knows_no_secret_and_no_descriptor_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADSERVE_DATABASE_URL", "postgresql://user:secret@host/db")
    with tempfile.TemporaryFile() as ours:
        os.set_inheritable(ours.fileno(), True)
        look = (
            f"assert not [name for name in os.environ if 'ADSERVE' in name]\n"
            f"try:\n    os.fstat({ours.fileno()})\nexcept OSError:\n    raise MediaRefused(Reason.SIZES)\n{DONE}"
        )
        assert await reason(PICTURE, twin(look)) is Reason.SIZES
        with monkeypatch.context() as leaking:
            started = sandbox.subprocess.Popen

            def leaky(*arguments: Any, **options: Any) -> Any:
                for descriptor in options.pop("pass_fds"):
                    os.set_inheritable(descriptor, True)
                return started(*arguments, **options | {"close_fds": False})

            leaking.setattr(sandbox.subprocess, "Popen", leaky)
            assert (await rendered(PICTURE, box=twin(look)))[0].width == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to drop")
async def test_root_becomes_a_user_who_owns_nothing() -> None:
    who = f"assert os.getresuid() == ({OUR_USER},) * 3 == os.getresgid() and not os.getgroups()\n{DONE}"
    assert (await rendered(PICTURE, box=twin(who)))[0].width == 1
    assert await reason(PICTURE, twin(who, UNCONFINED)) is Reason.NO_IMAGE


async def test_no_more_is_written_than_may_be() -> None:
    write = f"target.write(bytes({BYTES_MAX} + 1))\n{DONE}"
    assert await reason(PICTURE, twin(write)) is Reason.LARGE
    assert len((await rendered(PICTURE, box=twin(write, UNCONFINED)))[1]) == BYTES_MAX + 1


async def test_a_full_disk_is_not_the_uploads_fault(tmp_path: Path) -> None:
    made = video(tmp_path / "made.mp4")
    for kind, data in (("image", PICTURE), ("video", made)):
        with tempfile.TemporaryFile() as source, open("/dev/full", "r+b", buffering=0) as full:  # noqa: ASYNC230 - no file of a disk
            source.write(data)
            source.seek(0)
            with pytest.raises(NoRoom):
                await Sandbox(BYTES_MAX).render(kind, source.fileno(), full.fileno())


async def test_a_rendition_that_becomes_too_large_is_refused(tmp_path: Path) -> None:
    noise = encoded(Image.effect_noise((300, 300), 200), "PNG")
    made = video(tmp_path / "made.mp4", seconds=5)
    for kind, data in (("image", noise), ("video", made)):
        with pytest.raises(MediaRefused) as refused:
            await rendered(data, kind, Sandbox(1_000))
        assert refused.value.reason is Reason.LARGE
        assert len((await rendered(data, kind))[1]) > 1_000


async def test_a_child_that_cannot_begin_is_our_fault_and_says_why() -> None:
    box = Sandbox(BYTES_MAX, (sys.executable, "-c", "raise SystemExit('no decoder here')"))
    with pytest.raises(SandboxBroken, match="no decoder here"):
        await rendered(PICTURE, box=box)


@pytest.mark.parametrize("turns", [AT_ONCE, AT_ONCE + 3])
async def test_no_more_than_a_few_run_at_once(monkeypatch: pytest.MonkeyPatch, turns: int) -> None:
    running, most = set(), 0
    start, last_words = Sandbox._start, sandbox._last_words

    def started(*arguments: Any) -> Any:
        nonlocal most
        child = start(*arguments)
        running.add(child)
        most = max(most, len(running))
        return child

    def ended(child: Any) -> Any:
        running.discard(child)
        return last_words(child)

    monkeypatch.setattr(Sandbox, "_start", started)
    monkeypatch.setattr(sandbox, "_last_words", ended)
    box = twin(f"time.sleep(0.5)\n{DONE}")
    box._turns = asyncio.Semaphore(turns)  # more of them are the control
    await asyncio.gather(*(rendered(PICTURE, box=box) for _ in range(AT_ONCE + 3)))
    assert (most > AT_ONCE) == (turns > AT_ONCE)


def alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    return False


SLEEPER = "target.write(str(os.getpid()).encode())\ntarget.flush()\ntime.sleep(600)"


async def test_a_cancelled_call_leaves_no_child() -> None:
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as target:
        call = asyncio.create_task(twin(SLEEPER).render("image", source.fileno(), target.fileno()))
        await until(lambda: os.pread(target.fileno(), 9, 0))
        child = int(os.pread(target.fileno(), 9, 0))
        call.cancel()
        with suppress(asyncio.CancelledError):
            await call
        assert not alive(child)


@pytest.mark.parametrize(("before", "lives"), [("", False), ("child._PR_SET_PDEATHSIG = 7", True)])
async def test_a_child_dies_with_its_parent(tmp_path: Path, before: str, lives: bool) -> None:
    """Without the call that asks for it, it does not."""
    told = tmp_path / "told"
    program = (
        "import asyncio, sys; sys.path.insert(0, sys.argv[1])\n"
        "from boxes import twin\n"
        f"file = open({str(told)!r}, 'w+b')\n"
        f"asyncio.run(twin({SLEEPER!r}, {before!r}).render('image', file.fileno(), file.fileno()))\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(Path(__file__).parent), env={"PYTHONPATH": str(sandbox.ROOT)}
    )
    await until(lambda: told.exists() and told.read_bytes())
    child = int(told.read_bytes())
    parent.kill()
    await parent.wait()
    if lives:
        await asyncio.sleep(0.5)
        assert alive(child)
        os.kill(child, signal.SIGKILL)
    else:
        await until(lambda: not alive(child))
