from types import SimpleNamespace
from typing import Any

import pytest

from adserve.access.keys import Scope
from adserve.commands.scratch import issue_key
from adserve.database.pools import Pools
from adserve.store.keys import Keys
from adserve.web.auth import Auth
from adserve.web.problems import Problem


async def test_a_run_ends_the_keys_that_an_earlier_one_left(pools: Pools, clock: Any) -> None:
    auth = Auth(Keys(pools.catalogue))
    core: Any = SimpleNamespace(pools=pools, clock=clock, auth=auth)
    left = await issue_key(core, "demo feed", Scope.FEED)
    of_somebody = await issue_key(core, "feed", Scope.FEED)
    own = await issue_key(core, "demo feed", Scope.FEED)
    for secret in (of_somebody, own):
        auth.authorise(secret, [Scope.FEED])
    with pytest.raises(Problem, match="unknown or revoked"):
        auth.authorise(left, [Scope.FEED])
