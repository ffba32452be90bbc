"""Datasets as Minari's own tools make them, and a comparison of two datasets of ours."""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
from minari import DataCollector, MinariDataset

from rldistill.data import Dataset

DESCRIPTION = {
    "algorithm_name": "random",
    "author": "nobody",
    "author_email": "nobody@example.org",
    "code_permalink": "https://example.org",
    "description": "made up",
}


def assert_same_episodes(ours: Dataset, theirs: Dataset) -> None:
    """Every array of every episode is equal, bit for bit; only the order of episodes in the shards may differ."""
    assert ours.num_steps == theirs.num_steps
    np.testing.assert_array_equal(ours.episode_numbers, theirs.episode_numbers)
    for number in ours.episode_numbers.tolist():
        mine, other = ours.episode_steps(number), theirs.episode_steps(number)
        for name in ours.provenance.step_fields:
            one, two = ours.field(name)[mine], theirs.field(name)[other]
            assert one.dtype == two.dtype
            np.testing.assert_array_equal(one, two)
        one, two = ours.observations(mine), theirs.observations(other)
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(ours.last_observation(number), theirs.last_observation(number))


def collect_with_minari(
    make: Callable[[], gymnasium.Env], dataset_id: str, *, num_episodes: int = 3, max_steps: int = 8, **options: Any
) -> tuple[MinariDataset, list[list[Any]]]:
    """Let Minari's collector record random play; returns what it wrote, and the observations that it was shown.

    The collector wants jax for one function over nested containers. The few lines here do what it does for dicts,
    tuples and arrays, and spare the tests a hundred megabytes.
    """
    real = {name: sys.modules.get(name) for name in ("jax", "jax.tree_util")}
    jax, tree_util = ModuleType("jax"), ModuleType("jax.tree_util")
    tree_util.tree_map = _tree_map
    jax.tree_util = tree_util
    sys.modules.update({"jax": jax, "jax.tree_util": tree_util})
    try:
        env = DataCollector(make(), **options)
        env.action_space.seed(0)
        shown = []
        for episode in range(num_episodes):
            shown.append([env.reset(seed=episode)[0]])
            for _ in range(max_steps):
                observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
                shown[-1].append(observation)
                if terminated or truncated:
                    break
        # Minari leaves these folders to the garbage collector, which complains of it, whenever that is.
        folders = [env._tmp_dir]
        dataset = env.create_dataset(dataset_id, **DESCRIPTION)
        folders.append(env._tmp_dir)
        env.close()
        for folder in folders:
            folder.cleanup()
        return dataset, shown
    finally:
        for name, module in real.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


def _tree_map(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _tree_map(function, value, *(other[key] for other in others)) for key, value in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_tree_map(function, *parts) for parts in zip(tree, *others, strict=True))
    return function(tree, *others)
