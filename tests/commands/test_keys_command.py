import asyncio

import pytest

from adserve.__main__ import main
from adserve.access.keys import hash_of
from adserve.database.pools import open_pool


async def ran(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str]]:
    code = await asyncio.to_thread(main, ["keys", *words])
    return code, capsys.readouterr().out.splitlines()


async def test_a_key_is_issued_listed_and_revoked(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADSERVE_DATABASE_URL", database_url)
    code, (secret,) = await ran(
        capsys, "issue", "--name", "Status feed", "--scope", "feed", "--scope", "analyst"
    )
    assert code == 0
    pool = await open_pool(database_url, "adserve_catalogue", size=1)
    async with pool:
        assert await pool.fetchval("SELECT id FROM api_keys WHERE hash = $1", hash_of(secret)) == 1
    _, (listed,) = await ran(capsys, "list")
    assert secret not in listed
    assert listed.split("\t")[2:] == ["analyst,feed", "staff", "valid", "Status feed"]
    assert (await ran(capsys, "revoke", "1"))[0] == 0
    _, (listed,) = await ran(capsys, "list")
    assert "revoked" in listed


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("issue", "--name", "a", "--scope", "advertiser"), 2),
        (("issue", "--name", "a", "--scope", "operator", "--advertiser", "1"), 2),
        (("issue", "--name", "a", "--scope", "advertiser", "--advertiser", "999"), 1),
        (("revoke", "999"), 1),
    ],
)
async def test_what_contradicts_itself_or_is_not_there_is_refused(
    words: tuple[str, ...],
    code: int,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ADSERVE_DATABASE_URL", database_url)
    assert await ran(capsys, *words) == (code, [])


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("issue", "--name", "a", "--scope", "bogus"), "'bogus' is none of feed, "),
        (("issue", "--name", "a", "--scope", "analyst", "--advertiser", "9" * 20), "is no id"),
        (("revoke", "9" * 20), "is no id"),
    ],
)
def test_what_cannot_be_is_refused(
    words: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["keys", *words])
    assert (refused.value.code, why in capsys.readouterr().err) == (2, True)
