"""Redis servers of a test's own, on free ports: one, or a cluster of three masters."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

REDIS = shutil.which("redis-server") or shutil.which("valkey-server")
needs_redis = pytest.mark.skipif(REDIS is None, reason="neither redis-server nor valkey-server is installed")
LOOK_S = 0.02
LOOKS_MAX = 3_000
MEETINGS_MAX = 20
SLOTS = 16_384


class RedisServer:
    """Keeps its port when it is started again, and nothing else."""

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._options = options
        self._folder = tempfile.mkdtemp(prefix="adserve-redis-")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        assert REDIS is not None
        self._process = subprocess.Popen(
            [REDIS, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._folder, "--save", "",
             "--loglevel", "warning", "--enable-debug-command", "local", "--repl-diskless-sync-delay", "0", *self._options],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip  # laid out as rows
        until(self._answers)

    def run(self, *command: str | int) -> Any:
        with redis.Redis(port=self.port) as client:
            return client.execute_command(*command)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def end(self) -> None:
        self.kill()
        shutil.rmtree(self._folder)

    def _answers(self) -> bool:
        try:
            return bool(self.run("PING"))
        except redis.ConnectionError:
            return False


class RedisCluster:
    def __init__(self) -> None:
        self.nodes = [RedisServer(*self._options()) for _ in range(3)]
        self.url = f"redis+cluster://127.0.0.1:{self.nodes[0].port}"
        share = -(-SLOTS // len(self.nodes))
        for number, node in enumerate(self.nodes):
            node.run("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            last = min(SLOTS, (number + 1) * share) - 1
            node.run("CLUSTER", "ADDSLOTSRANGE", number * share, last)
        for _ in range(MEETINGS_MAX):  # a node forgets one that does not answer it for a second
            self._meet()
            if comes_true(self._stands, LOOKS_MAX // MEETINGS_MAX):
                return
        raise AssertionError("the cluster did not form")

    def run(self, *command: str | int) -> None:
        for node in self.nodes:
            node.run(*command)

    def end(self) -> None:
        for node in self.nodes:
            node.end()

    def _meet(self) -> None:
        for node in self.nodes:
            bus = node.run("CONFIG", "GET", "cluster-port")[b"cluster-port"]
            self.nodes[0].run("CLUSTER", "MEET", "127.0.0.1", node.port, int(bus))

    def _stands(self) -> bool:
        return all(
            b"cluster_state:ok" in node.run("CLUSTER", "INFO") and len(node.run("CLUSTER", "SLOTS")) == 3
            for node in self.nodes
        )

    @staticmethod
    def _options() -> tuple[str, ...]:
        return (
            *("--cluster-enabled", "yes", "--cluster-node-timeout", "1000"),
            *("--cluster-port", str(free_port())),
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(condition: Callable[[], bool]) -> None:
    assert comes_true(condition, LOOKS_MAX), "waited in vain"


def comes_true(condition: Callable[[], bool], looks: int) -> bool:
    """Looks are counted, not seconds, which also pass while the machine stands still, and the servers with it."""
    for _ in range(looks):
        if condition():
            return True
        time.sleep(LOOK_S)
    return False
