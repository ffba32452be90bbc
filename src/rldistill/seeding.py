"""Every random number comes from a named stream of one integer seed.

Episode `i` of a run is a function of `(seed, i)` alone: its environment seed and the generator of its behaviour are
drawn from streams that know nothing of the number of environments, the slot it runs in, or the episodes before it.
"""

import zlib

import numpy as np
from numpy.typing import NDArray

# ALE takes seeds as signed 32-bit integers; -1 means "do not seed".
_MAX_ENVIRONMENT_SEED = 2**31 - 1


def _sequence(seed: int, stream: str, *indices: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(entropy=seed, spawn_key=(zlib.crc32(stream.encode()), *indices))


def stream_generator(seed: int, stream: str, *indices: int) -> np.random.Generator:
    """Return the generator of a named stream; `indices` name one of many (episode, update, …)."""
    return np.random.Generator(np.random.Philox(_sequence(seed, stream, *indices)))


_UPDATES_AT_ONCE = 64


class UpdateNumbers:
    """Numbers in [0, 1) for each update, a function of seed, stream, update and their count; any thread may ask.

    They are drawn for many updates at once: to make a generator takes as long as to gather a small batch.
    """

    def __init__(self, seed: int, stream: str) -> None:
        self._seed, self._stream = seed, stream
        # Of which updates they are, and how many each has: together, so that one thread's are not taken for another's.
        self._drawn: tuple[tuple[tuple[int, ...], int], NDArray[np.float64]] | None = None

    def of(self, update: int, count: int) -> NDArray[np.float64]:
        """Return so many numbers, `[count]`, of an update."""
        group, place = divmod(update, _UPDATES_AT_ONCE)
        # Counts that vary by a few take rows of one length: from rows of their own, an update would get numbers of its
        # neighbours. A power of two is mostly the only count.
        width = 1 << (count - 1).bit_length()
        indices = (group,) if width == count else (group, width)
        drawn = self._drawn
        if drawn is None or drawn[0] != (indices, width):
            numbers = stream_generator(self._seed, self._stream, *indices).random((_UPDATES_AT_ONCE, width))
            drawn = self._drawn = (indices, width), numbers
        return drawn[1][place, :count]


def places(numbers: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Return the places among `count` things that numbers in [0, 1) choose, each as likely as any other."""
    return (numbers * count).astype(np.int64)


def stream_seed(seed: int, stream: str, *indices: int) -> int:
    """Return one integer in [0, 2³¹ − 1) of a named stream, to seed what takes integers only."""
    return int(_sequence(seed, stream, *indices).generate_state(1, np.uint64)[0] % _MAX_ENVIRONMENT_SEED)


def episode_seed(seed: int, episode: int) -> int:
    """Return the environment seed of one episode."""
    return stream_seed(seed, "environment", episode)


def episode_generator(seed: int, episode: int) -> np.random.Generator:
    """Return the generator from which one episode's behaviour draws."""
    return stream_generator(seed, "behaviour", episode)
