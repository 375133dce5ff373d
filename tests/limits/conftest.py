from typing import Any

import pytest
from counting import KINDS


@pytest.fixture(params=sorted(KINDS))
def counters(request: pytest.FixtureRequest) -> Any:
    """Empty counters of epoch 1, of every kind."""
    return KINDS[request.param](1)
