"""Parses the command line and dispatches to one file a command."""

import argparse
import gc
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from adserve import settings
from adserve.database.refusal import DatabaseRefused
from adserve.store.errors import AWAY

COMMANDS = {
    "serve": "answer slot requests and record events",
    "demo": "ads in a sample Status feed, in the browser or (--once) without a person",
    "replay": "turn a real log into slot requests under a virtual clock, and report what came of it",
    "train": "train the relevance model from a log or from recorded events",
    "reconcile": "derive every balance again from the events; exit 1 on any difference",
    "rejudge": "judge the traffic of a period again by the newest rules, and credit what was charged wrongly",
    "explain": "show a recorded decision and make it again; exit 1 when it is not the same",
    "charge": "show what an event was charged and rate it again; exit 1 when it is not the same",
    "ramp": "show, make and move plans of staged ramps, and stop all ads at once",
    "keys": "issue, list and revoke API keys",
    "backup": "copy the data home into a folder while it is served, and prove the copy",
    "restore": "put a backup into an empty data home; exit 1 when it is damaged or not the same",
    "migrate": "bring the database to the newest schema",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; answers its exit code: 0 done, 1 it did not add up or was refused, 2 a usage error."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    named = next((word for word in words if not word.startswith("-")), None)
    if named == "serve":  # a pause that comes before somebody hears it waits: by itself it would end us
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    parser = argparse.ArgumentParser(
        prog="adserve",
        description="The ad service between a Status feed and its clients.",
        epilog="Settings are ADSERVE_... in the environment, or in the TOML file that ADSERVE_CONFIG names; "
        "docs/settings.md has them all.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == named:  # only the command that runs is imported: some bring heavy libraries
            _imported(name).add_arguments(command)
    parsed = parser.parse_args(words)
    try:
        loaded = settings.load()
        code: int = _imported(parsed.command).run(parsed, loaded)
    except settings.SettingsError as error:
        print(f"adserve: {error}", file=sys.stderr)
        return 2
    except DatabaseRefused as refused:
        print(f"adserve: {refused}", file=sys.stderr)
        return 1
    except AWAY as error:
        print(f"adserve: {error or type(error).__name__}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _imported(command: str) -> ModuleType:
    """What is imported stays, so that looking for garbage in it would be in vain: it takes a sixth of a start."""
    gc.disable()
    try:
        return import_module(f"adserve.commands.{command}")
    finally:
        gc.enable()


if __name__ == "__main__":
    sys.exit(main())
