"""The replays of a run in its folder, kept in step with the checkpoint that lists them.

Chunks come before the checkpoint that lists them and go after the one that does not: whenever
the process is killed, the checkpoint that stands finds its chunks.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from rldistill.data import Replay


class ReplayFiles:
    """Writes only the chunks that are not yet there.

    Args:
        root: folder that holds one folder per replay, by number; made when there is something to write.
        replays: always in the same order.
    """

    def __init__(self, root: Path, replays: Sequence[Replay]) -> None:
        self._folders = [(replay, root / str(number)) for number, replay in enumerate(replays)]

    def write(self) -> str:
        """Write what is not yet there; return the text for the checkpoint that is written next.

        Raises:
            DiskFullError: no space; what was there before is intact.
        """
        return json.dumps([replay.write(folder) for replay, folder in self._folders])

    def prune(self) -> None:
        """Delete what the checkpoint that was just written does not list."""
        for replay, folder in self._folders:
            replay.prune(folder)

    def read(self, text: str) -> None:
        """Take up what `write` described; episodes under way are broken off.

        Raises:
            DatasetError: a chunk is missing or damaged.
        """
        for (replay, folder), state in zip(self._folders, json.loads(text), strict=True):
            replay.read(folder, state)
