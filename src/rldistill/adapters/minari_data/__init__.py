"""Datasets to and from Minari, Farama's format for offline reinforcement learning.

What both directions agree on is described in `docs/minari.md`.
"""

from rldistill.adapters.minari_data.reading import from_minari as from_minari
from rldistill.adapters.minari_data.writing import to_minari as to_minari
