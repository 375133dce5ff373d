"""What an operator does to a replica that serves takes effect within seconds."""

import asyncio
import os
import signal
import subprocess
import sys
from functools import partial

from live import Caller, Live, until

AT_ONCE_S = 1.0
REVOKED_WITHIN_S = 5.0
NOBODY = {"surfaces": {"status": {"percent": 0}}}
EVERYBODY = {"surfaces": {"status": {"percent": 100}}}


async def test_a_key_from_the_command_line_works_and_is_refused_within_five_seconds_of_its_end(
    replica: Live, client: Caller
) -> None:
    secret = await keys(replica, "issue", "--name", "partner", "--scope", "feed")
    await until(partial(answers, client, secret, 200), REVOKED_WITHIN_S)
    listed = await keys(replica, "list")
    (line,) = [line for line in listed.splitlines() if line.endswith("partner")]
    assert secret not in listed
    await keys(replica, "revoke", line.split()[0])
    await until(partial(answers, client, secret, 401), REVOKED_WITHIN_S)
    assert len(await client.tickets("another key")) == 1


async def test_pause_and_resume_take_effect_within_a_second_and_say_so(client: Caller) -> None:
    reply = await client.call("POST", "/v1/rollout/pause")
    assert (reply.status, reply.body) == (200, {"applied": 1, "replicas": 1})
    assert await client.no_fill("paused") == "rollout_paused"
    reply = await client.call("POST", "/v1/rollout/resume")
    assert (reply.status, reply.body) == (200, {"applied": 1, "replicas": 1})
    assert await client.no_fill("resumed") is None


async def test_a_new_percent_takes_effect_within_a_second(client: Caller) -> None:
    assert (await client.call("PUT", "/v1/rollout", NOBODY)).status == 200
    await until(partial(fills, client, "not_in_rollout"), AT_ONCE_S)
    assert (await client.call("PUT", "/v1/rollout", EVERYBODY)).status == 200
    await until(partial(fills, client, None), AT_ONCE_S)


async def test_sigusr1_pauses_a_replica_until_the_operator_moves_the_switch(
    replica: Live, client: Caller
) -> None:
    replica.signal(signal.SIGUSR1)
    await until(partial(fills, client, "rollout_paused"), AT_ONCE_S)
    await client.call("PUT", "/v1/rollout", EVERYBODY)
    await asyncio.sleep(AT_ONCE_S)
    assert await client.no_fill("a new percent is not the switch") == "rollout_paused"
    await client.call("POST", "/v1/rollout/resume")
    await until(partial(fills, client, None), AT_ONCE_S)


async def keys(replica: Live, *words: str) -> str:
    """What the command says on standard output."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "adserve", "keys", *words],
        env=os.environ
        | {"ADSERVE_DATABASE_URL": replica.database_url, "ADSERVE_DATA_HOME": str(replica.home)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


async def answers(client: Caller, secret: str, status: int) -> bool:
    reply = await client.call("POST", "/v1/slots", {"viewer": "v", "feed_length": 30}, secret)
    return reply.status == status


async def fills(client: Caller, no_fill: str | None) -> bool:
    return await client.no_fill("anybody") == no_fill
