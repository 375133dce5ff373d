"""I4 over several processes: three of them, with eight clients each, show ads to the same viewers."""

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from judge import limits_of, summary, violations
from redis_servers import RedisCluster, RedisServer, needs_redis
from stack import ADS

from adserve.store.journal import Counted

DECISIONS = int(os.environ.get("ADSERVE_SHARED_CAPS_DECISIONS", "3000"))
PROCESSES = 3
PROCESS = Path(__file__).with_name("process.py")

pytestmark = [needs_redis, pytest.mark.timeout(14_400)]


@pytest.fixture(params=[RedisServer, RedisCluster], ids=["redis", "cluster"])
def redis_url(request: pytest.FixtureRequest) -> Iterator[str]:
    server = request.param()
    yield server.url
    server.end()


def stored_by_processes(kind: str, url: str, decisions: int) -> list[Counted]:
    begun_s = time.time()
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / str(seed) for seed in range(PROCESSES)]
        running = [
            subprocess.Popen(
                [
                    sys.executable,
                    PROCESS,
                    kind,
                    url,
                    str(begun_s),
                    str(seed),
                    str(decisions // PROCESSES),
                    path,
                ]
            )
            for seed, path in enumerate(paths)
        ]
        assert [process.wait() for process in running] == [0] * PROCESSES
        return [event for path in paths for event in pickle.loads(path.read_bytes())]  # noqa: S301 - our own process's


def test_no_window_of_any_viewer_holds_more_than_its_cap(redis_url: str, tell: Callable[[str], None]) -> None:
    begun = time.monotonic()
    stored = stored_by_processes("redis", redis_url, DECISIONS)
    took_s = time.monotonic() - begun
    found = violations(limits_of(ADS), stored)
    tell(f"{DECISIONS:,} decisions of {PROCESSES} processes in {took_s:.0f} s, {summary(stored, found)}")
    assert found == []


def test_control_processes_that_do_not_share_are_caught() -> None:
    assert violations(limits_of(ADS), stored_by_processes("alone", "", 3_000)) != []
