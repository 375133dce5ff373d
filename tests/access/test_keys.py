import hashlib

import pytest

from adserve.access.keys import PREFIX, Key, KeyRing, Scope, hash_of, new_key
from adserve.domain.ids import KeyId

KEY = Key(KeyId(1), "feed", frozenset({Scope.FEED}), None)


def test_a_key_carries_all_of_its_chance_and_is_stored_as_a_hash() -> None:
    new = new_key(bytes(range(32)))
    assert new.secret.startswith(PREFIX)
    assert new.hash == hashlib.sha256(new.secret.encode()).digest()
    assert new.secret.startswith(new.hint)
    assert len(new.hint) < 10
    assert len({new_key(bytes([n]) * 32).secret for n in range(256)}) == 256
    with pytest.raises(ValueError, match="32"):
        new_key(b"short")


def test_a_ring_finds_the_keys_of_its_last_set() -> None:
    ring = KeyRing()
    ring.replace([(hash_of("ads_a"), KEY)])
    assert ring.find("ads_a") is KEY
    assert ring.find("ads_b") is None
    assert ring.find("\udcff") is None
    ring.replace([])
    assert ring.find("ads_a") is None
