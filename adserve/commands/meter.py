"""How far long work is, on standard error: a bar for people, nothing where nobody looks."""

import sys
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm


class Meter:
    """Called with what is being done, how many bytes of it are, and how many there are in all."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._what = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._bar is None or self._what != what:
            self.__exit__(None, None, None)
            self._what = what
            self._bar = tqdm(desc=what, unit="B", unit_scale=True, disable=None, file=sys.stderr)
        self._bar.total = total
        self._bar.update(done - self._bar.n)


def say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)
