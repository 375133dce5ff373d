"""The server lives exactly as long as its holder, keeps what it acknowledged, and is shared by those who start it twice."""

import asyncio
import contextlib
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest
from waiting import PATIENCE_S, until

from adserve.database import embedded
from adserve.database.embedded import Embedded, start
from adserve.database.refusal import DatabaseRefused

START = """
import asyncio, sys
from pathlib import Path
from adserve.database.embedded import start

async def main():
    server = await start(Path(sys.argv[1]), lambda message: print(message, flush=True))
    print("url", server.url, flush=True)
    await asyncio.sleep(120)

asyncio.run(main())
"""


class Process:
    """Another program that starts the server of a data home and stays."""

    def __init__(self, data_home: Path, *prefix: str) -> None:
        self._data_home = data_home
        self._popen = subprocess.Popen(
            [*prefix, sys.executable, "-c", START, str(data_home)], stdout=subprocess.PIPE, text=True
        )
        self.said: list[str] = []

    def wait_for_url(self) -> str:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            self.said.append(line.rstrip())
            if line.startswith("url "):
                return line.split()[1]
        raise AssertionError(self.said)

    def kill(self) -> None:
        self._popen.kill()
        self._popen.communicate()

    def kill_and_wait(self) -> None:
        pid = server_pid(self._data_home)
        self.kill()
        while alive(pid):
            time.sleep(0.02)


def server_pid(data_home: Path) -> int:
    return int((data_home / "postgres" / "cluster" / "postmaster.pid").read_text().split()[0])


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def user_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


async def count(url: str) -> int:
    connection = await asyncpg.connect(url)
    rows: int = await connection.fetchval("SELECT count(*) FROM kept")
    await connection.close()
    return rows


async def is_off(url: str, setting: str) -> bool:
    connection = await asyncpg.connect(url)
    value = await connection.fetchval(f"SHOW {setting}")
    await connection.close()
    return bool(value == "off")


async def write_until_cut(url: str, killed: Callable[[], None]) -> int:
    """How many rows were acknowledged before `killed` took effect in the middle of writing them."""
    await execute(url, "SET synchronous_commit = on", "CREATE TABLE kept (id integer)")
    connection = await asyncpg.connect(url)
    acknowledged = 0
    with contextlib.suppress(Exception):  # the driver has many words for a lost connection
        while True:
            await connection.execute("INSERT INTO kept VALUES (1)")
            acknowledged += 1
            if acknowledged == 100:
                asyncio.get_running_loop().call_later(0.02, killed)
    connection.terminate()
    assert acknowledged >= 100
    return acknowledged


async def test_it_says_where_its_data_is_and_starts_again_with_it(empty_home: Path) -> None:
    said: list[str] = []
    first = await start(empty_home, said.append)
    await execute(first.url, "CREATE TABLE kept (id integer)", "INSERT INTO kept VALUES (1)")
    pid = server_pid(empty_home)
    await first.stop()
    assert not alive(pid)
    assert any(str(empty_home / "postgres" / "cluster") in message for message in said)
    second = await start(empty_home, said.append)
    assert second.url == first.url
    assert await count(second.url) == 1
    await second.stop()


@pytest.mark.parametrize("name", ["with space", "дом", "x" * 120, b"\xff".decode(errors="surrogateescape")])
async def test_a_path_may_be_any(data_home: Path, name: str) -> None:
    home = data_home / name
    home.mkdir(mode=0o711)
    (data_home / "postgres").rename(home / "postgres")
    async with asyncio.timeout(PATIENCE_S):
        server = await start(home, lambda _: None)
    await execute(server.url, "SELECT 1")
    await server.stop()


async def test_it_is_private_and_safe(own_server: Embedded, data_home: Path) -> None:
    connection = await asyncpg.connect(own_server.url)
    settings = dict(await connection.fetch("SELECT name, setting FROM pg_settings"))
    await connection.close()
    assert settings["listen_addresses"] == "127.0.0.1"
    assert settings["unix_socket_directories"] == ""
    assert settings["data_checksums"] == "on"
    assert [settings[name] for name in ("fsync", "full_page_writes", "synchronous_commit")] == ["on"] * 3
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(own_server.url.replace("adserve:", "adserve:wrong"))
    for name in ("password", "cluster"):
        assert (data_home / "postgres" / name).stat().st_mode & 0o077 == 0


async def test_kill_9_of_its_holder_ends_it_and_loses_nothing(data_home: Path) -> None:
    holder = Process(data_home)
    url = holder.wait_for_url()
    pid = server_pid(data_home)
    acknowledged = await write_until_cut(url, holder.kill)
    await until(lambda: not alive(pid))
    again = await start(data_home, lambda _: None)
    assert await count(again.url) in (acknowledged, acknowledged + 1)
    await again.stop()


async def test_kill_9_of_itself_is_mended_at_the_same_address(own_server: Embedded, data_home: Path) -> None:
    url = own_server.url
    pid = server_pid(data_home)
    acknowledged = await write_until_cut(url, lambda: os.kill(pid, signal.SIGKILL))
    await until(lambda: not alive(pid))
    await own_server.mend()
    assert own_server.url == url
    assert await count(url) in (acknowledged, acknowledged + 1)
    await own_server.mend()
    assert await count(url) in (acknowledged, acknowledged + 1)


async def test_kept_it_is_mended_without_being_asked(own_server: Embedded, data_home: Path) -> None:
    keeping = asyncio.create_task(own_server.keep())
    pid = server_pid(data_home)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: own_server._pid_file()[1] == "ready" and own_server._pid_file()[0] != pid)
    await execute(own_server.url, "SELECT 1")
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


async def test_control_without_synchronous_commit_kill_9_does_lose(
    own_server: Embedded, data_home: Path
) -> None:
    """What the two tests above would show if an acknowledgement were not durable."""
    await execute(
        own_server.url,
        "ALTER SYSTEM SET synchronous_commit = off",
        "ALTER SYSTEM SET wal_writer_delay = '10s'",
        "SELECT pg_reload_conf()",
    )
    await until(lambda: is_off(own_server.url, "synchronous_commit"))
    pid = server_pid(data_home)
    acknowledged = await write_until_cut(own_server.url, lambda: kill_all(pid))
    await until(lambda: not alive(pid))
    await own_server.mend()
    assert await count(own_server.url) < acknowledged


def kill_all(pid: int) -> None:
    """The server and its helpers at once: a power cut, as far as what is still in memory goes."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for victim in (pid, *map(int, children)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)


async def test_a_recovery_is_shown(own_server: Embedded, data_home: Path) -> None:
    said: list[str] = []
    own_server._progress = said.append
    await execute(
        own_server.url, "CREATE TABLE big AS SELECT repeat('x', 500) FROM generate_series(1, 20000)"
    )
    pid = server_pid(data_home)
    kill_all(pid)
    await until(lambda: not alive(pid))
    await own_server.mend()
    assert any("starting it again" in message for message in said)
    assert any("not properly shut down" in message for message in said)
    assert any("redo done" in message for message in said)


async def test_two_starts_at_once_share_one_server(empty_home: Path) -> None:
    servers = await asyncio.gather(*(start(empty_home, lambda _: None) for _ in range(3)))
    assert len({server.url for server in servers}) == 1
    assert len({server._lock is None for server in servers}) == 2
    for server in servers:
        await server.mend()
    await execute(servers[0].url, "CREATE TABLE kept (id integer)")
    assert await count(servers[2].url) == 0
    for server in servers:
        await server.stop()


async def test_control_without_the_lock_two_starts_fight(
    data_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await start(data_home, lambda _: None)
    monkeypatch.setattr(embedded, "try_lock", lambda _: os.open(os.devnull, os.O_RDONLY))
    other = Embedded(one._place, lambda _: None)
    # Believing itself the holder, it ends the other's server as an orphan.
    async with asyncio.timeout(PATIENCE_S):
        await other.hold_or_join()
    assert one._server is not None
    assert one._server.poll() is not None
    await other.stop()
    await one.stop()


async def test_one_that_joined_takes_over_from_a_killed_holder(data_home: Path) -> None:
    holder = Process(data_home)
    url = holder.wait_for_url()
    await execute(url, "CREATE TABLE kept (id integer)", "INSERT INTO kept VALUES (1)")
    joined = await start(data_home, lambda _: None)
    assert joined.url == url
    holder.kill()
    async with asyncio.timeout(PATIENCE_S):
        await joined.mend()
    assert await count(url) == 1
    await joined.stop()


async def test_what_a_killed_first_start_left_is_no_obstacle(empty_home: Path) -> None:
    for delay_s in (0.3, 0.7):
        process = Process(empty_home)
        await asyncio.sleep(delay_s)
        process.kill()
    server = await start(empty_home, lambda _: None)
    await execute(server.url, "SELECT 1")
    await server.stop()


async def test_a_server_that_outlived_its_process_is_replaced(data_home: Path) -> None:
    first = await start(data_home, lambda _: None)
    url, pid = first.url, server_pid(data_home)
    assert first._lock is not None
    os.close(first._lock)  # as if we had died before the server could ask the kernel to be told
    first._lock = None
    second = await start(data_home, lambda _: None)
    assert second.url == url
    assert server_pid(data_home) != pid
    await second.stop()
    await first.stop()


async def test_a_taken_port_is_left_for_another(data_home: Path) -> None:
    first = await start(data_home, lambda _: None)
    await first.stop()
    assert first._port is not None
    with socket.create_server(("127.0.0.1", first._port)):
        second = await start(data_home, lambda _: None)
    assert second.url != first.url
    await execute(second.url, "SELECT 1")
    await second.stop()


async def test_ctrl_c_in_the_terminal_is_not_for_the_server(own_server: Embedded, data_home: Path) -> None:
    assert os.getsid(server_pid(data_home)) != os.getsid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
async def test_it_works_as_a_user_and_tells_others_to_stay_out(empty_home: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    os.chown(empty_home, nobody.pw_uid, nobody.pw_gid)
    prefix = ("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", "--")
    if subprocess.run([*prefix, sys.executable, "-c", ""], check=False, capture_output=True).returncode:  # noqa: ASYNC221 - it ends at once
        pytest.skip("another user cannot read this interpreter")
    process = Process(empty_home, *prefix)
    url = process.wait_for_url()
    await execute(url, "SELECT 1")
    assert user_of(server_pid(empty_home)) == nobody.pw_uid
    process.kill_and_wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another user")
async def test_a_folder_that_the_servers_user_cannot_enter_is_named(empty_home: Path) -> None:
    os.chmod(empty_home, 0o700)
    with pytest.raises(
        DatabaseRefused, match=f"may not enter {empty_home}: choose another ADSERVE_DATA_HOME"
    ):
        await start(empty_home / "closed", lambda _: None)


@pytest.mark.parametrize("below", ["", "below"])
async def test_a_file_is_no_data_home(empty_home: Path, below: str) -> None:
    (empty_home / "file").touch()
    with pytest.raises(DatabaseRefused, match=r"Not a directory: .*: choose another ADSERVE_DATA_HOME"):
        await start(empty_home / "file" / below, lambda _: None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
async def test_a_user_without_a_name_is_told_what_postgresql_needs(empty_home: Path) -> None:
    os.chown(empty_home, 54_321, 54_321)
    command = ("setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "--", sys.executable)
    if subprocess.run([*command, "-c", ""], check=False, capture_output=True).returncode:  # noqa: ASYNC221 - it ends at once
        pytest.skip("another user cannot read this interpreter")
    ended = subprocess.run([*command, "-c", START, empty_home], check=False, capture_output=True, text=True)  # noqa: ASYNC221 - so does it
    assert "DatabaseRefused: user id 54321 has no name" in ended.stderr


async def test_a_password_that_is_not_the_servers_is_refused_in_words(data_home: Path) -> None:
    (data_home / "postgres" / "password").write_text("another")
    with pytest.raises(DatabaseRefused, match="password authentication failed"):
        await start(data_home, lambda _: None)


async def test_a_damaged_cluster_is_refused_with_what_postgresql_says(data_home: Path) -> None:
    server = await start(data_home, lambda _: None)
    await server.stop()
    (data_home / "postgres" / "cluster" / "PG_VERSION").write_text("12\n")
    with pytest.raises(DatabaseRefused, match=r"(?s)did not start.*incompatible with server"):
        await start(data_home, lambda _: None)
