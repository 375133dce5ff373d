"""`adserve keys`: issues, lists and revokes API keys. A new key is shown once."""

import argparse
import asyncio
import secrets
import sys
import time

from adserve.access.keys import SECRET_BYTES, Scope, new_key, scopes_refused
from adserve.bootstrap.server import database_server
from adserve.commands.arguments import row_id
from adserve.database import schema
from adserve.database.pools import open_pool
from adserve.database.refusal import DatabaseRefused
from adserve.domain.ids import AdvertiserId, KeyId
from adserve.domain.time import SECOND_MS, from_ms
from adserve.settings import Settings
from adserve.store.errors import Missing, StoreError
from adserve.store.keys import Keys

_NAME_MAX_LENGTH = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    issue = actions.add_parser("issue", help="make a key and show it, once")
    issue.add_argument("--name", required=True, type=_name, help="who or what it is for")
    issue.add_argument(
        "--scope",
        required=True,
        action="append",
        type=_scope,
        choices=list(Scope),
        help="may be given again; a reviewer approves and rejects creatives, as an operator may",
    )
    issue.add_argument(
        "--advertiser", type=row_id, metavar="ID", help="the advertiser that the key speaks for"
    )
    actions.add_parser("list", help="every key without its secret")
    revoke = actions.add_parser("revoke", help="end a key on every replica within 5 s")
    revoke.add_argument("id", type=row_id)


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.action == "issue":
        refusal = scopes_refused(frozenset(arguments.scope), arguments.advertiser)
        if refusal is not None:
            _say(": ".join(refusal))
            return 2
    try:
        asyncio.run(_run(arguments, settings))
    except (DatabaseRefused, StoreError) as error:
        _say(str(error))
        return 1
    return 0


async def _run(arguments: argparse.Namespace, settings: Settings) -> None:
    async with database_server(settings, _say) as url:
        if settings.database_url is None:
            await schema.update(url, _say)
        pool = await open_pool(url, "adserve_operator", size=1)
        async with pool:
            await _act(arguments, Keys(pool))


async def _act(arguments: argparse.Namespace, keys: Keys) -> None:
    now = from_ms(time.time_ns() // SECOND_MS**2)
    match arguments.action:
        case "issue":
            new = new_key(secrets.token_bytes(SECRET_BYTES))
            advertiser = None if arguments.advertiser is None else AdvertiserId(arguments.advertiser)
            try:
                id_ = await keys.issue(new, arguments.name, frozenset(arguments.scope), advertiser, now)
            except StoreError as error:
                raise Missing(f"there is no advertiser {advertiser}") from error
            _say(f"key {id_}, shown this once:")
            print(new.secret)
        case "list":
            for known in await keys.known():
                key = known.key
                whose = "staff" if key.advertiser is None else f"advertiser {key.advertiser}"
                state = f"revoked {known.revoked_at:%F %T}" if known.revoked_at else "valid"
                fields = (key.id, f"{known.hint}…", ",".join(sorted(key.scopes)), whose, state, key.name)
                print(*fields, sep="\t")
        case _:
            await keys.revoke(KeyId(arguments.id), now)


def _scope(text: str) -> Scope:
    try:
        return Scope(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(Scope)}") from error


def _name(text: str) -> str:
    if not text or len(text) > _NAME_MAX_LENGTH or not text.isprintable():
        raise argparse.ArgumentTypeError(f"is 1 to {_NAME_MAX_LENGTH} printable characters")
    return text


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
