import pytest


@pytest.fixture(autouse=True)
def _patient() -> None:
    """Nothing stalls in virtual time: the bounds are those of the service."""
