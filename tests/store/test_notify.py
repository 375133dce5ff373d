import asyncio

import asyncpg

from adserve.store.notify import Listener


async def test_a_lost_connection_is_made_again_and_what_was_missed_is_announced(database_url: str) -> None:
    heard = asyncio.Event()
    listener = Listener(database_url, {"adserve_keys": heard})
    await listener.step(0)
    heard.clear()
    await listener.step(1)
    assert not heard.is_set(), "still connected"
    other = await asyncpg.connect(database_url)
    await other.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    while not heard.is_set():
        await asyncio.sleep(0.05)
        await listener.step(2)
    heard.clear()
    await other.execute("NOTIFY adserve_keys")
    await heard.wait()
    await other.close()
    listener.close()
