"""Published scores of the paper's ten games, from starts with up to 30 no-ops.

Keys are ale-py's names of the games. Source: the table of DeepMind's DQN Zoo (`atari_data.py`), with
up to 108,000 frames an episode.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class ReferenceScores:
    """Mean raw scores of two players of one game."""

    human: float  # a professional games tester
    random: float  # uniformly random actions


REFERENCE_SCORES: Mapping[str, ReferenceScores] = MappingProxyType(
    {
        "beam_rider": ReferenceScores(16926.5, 363.9),
        "breakout": ReferenceScores(30.5, 1.7),
        "enduro": ReferenceScores(860.5, 0.0),
        "freeway": ReferenceScores(29.6, 0.0),
        "ms_pacman": ReferenceScores(6951.6, 307.3),
        "pong": ReferenceScores(14.6, -20.7),
        "qbert": ReferenceScores(13455.0, 163.9),
        "riverraid": ReferenceScores(17118.0, 1338.5),
        "seaquest": ReferenceScores(42054.7, 68.4),
        "space_invaders": ReferenceScores(1668.7, 148.0),
    }
)
