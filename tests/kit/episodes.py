"""A dataset as its episodes, to compare two that were made in different ways."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rldistill.data import Dataset

Episode = Mapping[str, np.ndarray]


def read_episodes(path: Path) -> dict[int, Episode]:
    """Return every field of every episode, `[T, …]`, and `last_observation` where it ended."""
    dataset = Dataset.open(path)
    return {number: _read(dataset, number) for number in dataset.episode_numbers.tolist()}


def _read(dataset: Dataset, number: int) -> Episode:
    steps = dataset.episode_steps(number)
    np.testing.assert_array_equal(dataset.steps_in_episode[steps], np.arange(len(steps)))
    episode = {name: dataset.field(name)[steps] for name in dataset.provenance.step_fields}
    episode["observation"] = dataset.observations(steps)
    last = dataset.last_observation(number)
    return episode if last is None else episode | {"last_observation": last}


def assert_same_episodes(got: Mapping[int, Episode], expected: Mapping[int, Episode]) -> None:
    """Compare all that is stored, bit for bit."""
    lengths = [{number: len(episode["action"]) for number, episode in side.items()} for side in (got, expected)]
    assert lengths[0] == lengths[1]
    for number, episode in expected.items():
        assert got[number].keys() == episode.keys(), f"episode {number}"
        for name, values in episode.items():
            np.testing.assert_array_equal(got[number][name], values, err_msg=f"{name} of episode {number}")


def assert_prefixes(got: Mapping[int, Episode], expected: Mapping[int, Episode]) -> None:
    """Check that of two episodes with the same number one goes on with the other."""
    for number in got.keys() & expected.keys():
        length = min(len(got[number]["action"]), len(expected[number]["action"]))
        for name in got[number].keys() - {"last_observation"}:
            np.testing.assert_array_equal(
                got[number][name][:length], expected[number][name][:length], err_msg=f"{name} of episode {number}"
            )
