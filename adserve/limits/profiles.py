"""The table that numbers profiles. What no entry has any more leaves it; numbers are not given again."""

from collections.abc import Iterator

from adserve.limits.entries import Profile, profiles_of


class Profiles:
    """`by_number` is for reading."""

    def __init__(self) -> None:
        self.by_number: dict[int, Profile] = {}
        self._numbers: dict[Profile, int] = {}
        self._given = 0
        self._seen: set[int] = set()

    def number(self, profile: Profile) -> int:
        """For an entry that is about to be kept."""
        number = self._numbers.get(profile)
        if number is None:
            number = self._numbers[profile] = self._given
            self.by_number[number] = profile
            self._given += 1
        self._seen.add(number)
        return number

    def see(self, packed: bytes) -> None:
        self._seen.update(profiles_of(packed))

    def forget_unseen(self) -> None:
        """To be called when all entries that there are were seen since the last time."""
        for number in self.by_number.keys() - self._seen:
            del self._numbers[self.by_number.pop(number)]
        self._seen = set()

    def since(self, first: int) -> Iterator[Profile]:
        """From a number on; in the place of one that was forgotten stands an empty one."""
        return (self.by_number.get(number, ()) for number in range(first, self._given))

    def __len__(self) -> int:
        return self._given
