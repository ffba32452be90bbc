"""Published scores of the paper's ten games, from starts with up to 30 no-ops.

Keys are ale-py's names of the games. Source: the table of DeepMind's DQN Zoo (`atari_data.py`), with
up to 108,000 frames an episode.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class ReferenceScores:
    """Mean raw scores of three players of one game."""

    nature_dqn: float  # Mnih et al. 2015 (Nature 518)
    human: float  # a professional games tester
    random: float  # uniformly random actions


REFERENCE_SCORES: Mapping[str, ReferenceScores] = MappingProxyType(
    {
        "beam_rider": ReferenceScores(6846.0, 16926.5, 363.9),
        "breakout": ReferenceScores(401.2, 30.5, 1.7),
        "enduro": ReferenceScores(301.8, 860.5, 0.0),
        "freeway": ReferenceScores(30.3, 29.6, 0.0),
        "ms_pacman": ReferenceScores(2311.0, 6951.6, 307.3),
        "pong": ReferenceScores(18.9, 14.6, -20.7),
        "qbert": ReferenceScores(10596.0, 13455.0, 163.9),
        "riverraid": ReferenceScores(8316.0, 17118.0, 1338.5),
        "seaquest": ReferenceScores(5286.0, 42054.7, 68.4),
        "space_invaders": ReferenceScores(1976.0, 1668.7, 148.0),
    }
)
