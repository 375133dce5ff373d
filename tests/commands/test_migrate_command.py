import asyncio
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import asyncpg
from waiting import PATIENCE_S

from adserve.database.migrate import SQL


async def test_ctrl_c_ends_a_migration_that_waits(database_url: str, tmp_path: Path) -> None:
    other = await asyncpg.connect(database_url)
    await other.execute(SQL.lock)
    process = subprocess.Popen(  # noqa: ASYNC220 - it is waited for in a thread
        [sys.executable, "-m", "adserve", "migrate"],
        env=os.environ | {"ADSERVE_DATABASE_URL": database_url, "ADSERVE_DATA_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509 - a background job ignores it
    )
    try:
        assert process.stdout is not None
        assert "waiting for it" in await asyncio.to_thread(process.stdout.readline)
        process.send_signal(signal.SIGINT)
        _, said = await asyncio.to_thread(process.communicate, timeout=PATIENCE_S / 3)
        assert (process.returncode, said) == (130, "")
    finally:
        process.kill()
        process.communicate()
        await other.close()
