"""Replicas with data homes and databases of their own. A module's tests share them: a start takes seconds."""

import asyncio
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adserve.database import fresh


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A data home that the server's user can enter when we are root."""
    folder = Path(tempfile.mkdtemp(prefix="adserve-chaos-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def fresh_database_url(template: Any) -> Iterator[str]:
    """A migrated database on the run's own server, for tests that leave the server alone."""
    name = f"{template.name}_{secrets.token_hex(4)}"
    yield asyncio.run(fresh.create(template.server_url, name, template.name))
    asyncio.run(fresh.drop(template.server_url, name))
