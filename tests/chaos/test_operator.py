"""What an operator does to a replica that serves takes effect within seconds."""

import asyncio
import os
import signal
import subprocess
import sys
from functools import partial

from live import Caller, Live
from waiting import happens, until

AT_ONCE_S = 1.0
REVOKED_WITHIN_S = 5.0
"""Bounds of a machine that does not stall meanwhile: of several tries, one is to meet them."""
NOBODY = {"surfaces": {"status": {"percent": 0}}}
EVERYBODY = {"surfaces": {"status": {"percent": 100}}}


async def test_a_key_from_the_command_line_works_and_is_refused_within_five_seconds_of_its_end(
    replica: Live, client: Caller
) -> None:
    async def known_and_refused() -> bool:
        secret = await keys(replica, "issue", "--name", "partner", "--scope", "feed")
        known_s = await until(partial(answers, client, secret, 200))
        listed = await keys(replica, "list")
        *_, line = [line for line in listed.splitlines() if line.endswith("partner")]
        assert secret not in listed
        await keys(replica, "revoke", line.split()[0])
        return max(known_s, await until(partial(answers, client, secret, 401))) < REVOKED_WITHIN_S

    assert await happens(known_and_refused)
    assert len(await client.tickets("another key")) == 1


async def test_pause_and_resume_take_effect_within_a_second_and_say_so(client: Caller) -> None:
    async def obeyed(verb: str) -> bool:
        """The call waits for the replica, and for no longer than a second."""
        reply = await client.call("POST", f"/v1/rollout/{verb}")
        assert (reply.status, reply.body["replicas"]) == (200, 1)
        return bool(reply.body["applied"] == 1)

    assert await happens(partial(obeyed, "pause"))
    assert await client.no_fill("paused") == "rollout_paused"
    assert await happens(partial(obeyed, "resume"))
    assert await client.no_fill("resumed") is None


async def test_a_new_percent_takes_effect_within_a_second(client: Caller) -> None:
    async def at_once() -> bool:
        took_s = []
        for rollout, no_fill in ((NOBODY, "not_in_rollout"), (EVERYBODY, None)):
            assert (await client.call("PUT", "/v1/rollout", rollout)).status == 200
            took_s.append(await until(partial(fills, client, no_fill)))
        return max(took_s) < AT_ONCE_S

    assert await happens(at_once)


async def test_a_rejection_takes_an_ad_off_within_a_second(client: Caller) -> None:
    (creative,) = (await client.call("GET", "/v1/creatives")).body["items"]
    path, seen = f"/v1/reviews/{creative['id']}", {"revision": creative["revision"]}

    async def at_once() -> bool:
        took_s = []
        for verb, more, no_fill in (("reject", {"reason": "no"}, "no_eligible_ad"), ("approve", {}, None)):
            assert (await client.call("POST", f"{path}/{verb}", seen | more)).status == 200
            took_s.append(await until(partial(fills, client, no_fill)))
        return max(took_s) < AT_ONCE_S

    assert await happens(at_once)


async def test_sigusr1_pauses_a_replica_until_the_operator_moves_the_switch(
    replica: Live, client: Caller
) -> None:
    async def at_once() -> bool:
        replica.signal(signal.SIGUSR1)
        paused_s = await until(partial(fills, client, "rollout_paused"))
        await client.call("PUT", "/v1/rollout", EVERYBODY)
        await asyncio.sleep(AT_ONCE_S)
        assert await client.no_fill("a new percent is not the switch") == "rollout_paused"
        await client.call("POST", "/v1/rollout/resume")
        return max(paused_s, await until(partial(fills, client, None))) < AT_ONCE_S

    assert await happens(at_once)


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
