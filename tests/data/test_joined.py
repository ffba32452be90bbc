"""Several datasets of one task and one teacher are one."""

from dataclasses import replace

import numpy as np
import pytest

import rldistill as rd
from rldistill.data import Dataset, split_episodes
from rldistill.errors import DatasetError, MismatchError
from tests.data.made_up import make_provenance, write_dataset
from tests.kit.cart_pole import hand_made_teacher

LENGTHS = (40, 25, 60, 1, 30)


def written(path, provenance=None, **settings) -> Dataset:
    write_dataset(path, provenance or make_provenance(**settings), lengths=LENGTHS)
    return Dataset.open(path)


def test_joined_datasets_hold_the_steps_of_each_in_their_order(tmp_path):
    parts = [written(tmp_path / str(seed), seed=seed) for seed in range(3)]
    joined = Dataset.joined(parts)
    assert joined.num_steps == 3 * sum(LENGTHS)
    for name in ("q_values", "action", "reward"):
        np.testing.assert_array_equal(joined.field(name), np.concatenate([part.field(name) for part in parts]))
    each = np.concatenate([part.observations(np.arange(part.num_steps)) for part in parts])
    np.testing.assert_array_equal(joined.observations(np.arange(joined.num_steps)), each)
    assert joined.seeds == [0, 1, 2]


def test_episodes_of_joined_datasets_stay_apart(tmp_path):
    parts = [written(tmp_path / str(seed), seed=seed) for seed in range(2)]
    joined = Dataset.joined(parts)
    assert len(joined.episode_numbers) == 2 * len(LENGTHS)
    assert sorted(len(joined.episode_steps(number)) for number in joined.episode_numbers) == sorted(2 * LENGTHS)
    split = split_episodes(joined, 0.5, seed=0)
    held_out = joined.episodes[split.held_out]
    assert {number // len(LENGTHS) for number in held_out} == {0, 1}, "episodes of both are held out"
    assert not set(held_out) & set(joined.episodes[split.train])


def test_episodes_of_one_seed_that_chance_parts_later_are_held_out_together(tmp_path):
    parts = [written(tmp_path / "0", seed=0), written(tmp_path / "1", seed=1)]
    write_dataset(
        tmp_path / "2",
        replace(make_provenance(), exploration_epsilon=0.2),
        lengths=(9, 70, *LENGTHS),
        steps_per_shard=50,
    )
    joined = Dataset.joined([*parts, Dataset.open(tmp_path / "2")])
    split = split_episodes(joined, 0.5, seed=0)
    held_out = set(joined.episodes[split.held_out])
    assert held_out | set(joined.episodes[split.train]) == set(range(17))
    for number in range(5):
        assert (number in held_out) == (number + 10 in held_out), "the first and the third begin alike"


def test_too_few_episodes_that_begin_differently_are_told_from_too_few_episodes(tmp_path):
    write_dataset(tmp_path / "other", replace(make_provenance(), exploration_epsilon=0.2), lengths=(9, 70, 33, 1, 30))
    joined = Dataset.joined([written(tmp_path / "one"), Dataset.open(tmp_path / "other")])
    with pytest.raises(DatasetError, match=r"10 episodes, of which 5 begin differently, .* with another --seed\."):
        split_episodes(joined, 0.5, seed=0)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"teacher_hash": "def"}, "but with teachers made-up (abc…) and made-up (def…): one head of a student cannot"),
        ({"frame_stack": 2}, "observation_shape"),
        ({}, "and of seed 0: their episodes are the same, and those held out of one would be trained on in the other."),
    ],
)
def test_datasets_that_do_not_add_up_are_named_with_the_reason(tmp_path, other, words):
    parts = [written(tmp_path / "a"), written(tmp_path / "b", **other)]
    with pytest.raises(MismatchError) as caught:
        Dataset.joined(parts)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'a'} and {tmp_path / 'b'} are both of task 'made-up'")
    assert words in message


def test_datasets_of_different_settings_are_joined_and_it_is_said(tmp_path):
    for seed in (0, 1):
        length = {"max_episode_steps": 20 + seed}
        rd.collect(
            hand_made_teacher(), "CartPole-v1", env_kwargs=length, num_steps=200, seed=seed, out=tmp_path / str(seed)
        )
    told: list[str] = []
    settings = {"num_updates": 2, "evaluate_episodes": 0, "callbacks": [lambda event: told.append(str(event))]}
    rd.distill([tmp_path / "0", tmp_path / "1"], student="mlp:4", out=tmp_path / "r", **settings)
    (note,) = [text for text in told if "different settings" in text]
    assert "'max_episode_steps': 20}; " in note and "'max_episode_steps': 21}" in note


def test_the_same_episodes_with_another_field_are_the_same_episodes(tmp_path):
    for name, store in (("a", None), ("b", "features")):
        rd.collect(hand_made_teacher(), num_steps=200, num_envs=2, store=store, out=tmp_path / name)
    with pytest.raises(MismatchError, match="their episodes are the same"):
        Dataset.joined([Dataset.open(tmp_path / name) for name in ("a", "b")])


@pytest.mark.parametrize("others", ["minari:a/long-v0", "minari:a/all-v0", "greedy"])
def test_episodes_of_minari_are_combined_there_for_here_nobody_knows_which_they_are(tmp_path, others):
    behaviours = {"a": "minari:a/long-v0", "b": others}
    parts = [written(tmp_path / name, replace(make_provenance(), behaviour=own)) for name, own in behaviours.items()]
    for first, other in (parts, reversed(parts)):
        with pytest.raises(MismatchError) as caught:
            Dataset.joined([first, other])
        assert "with episodes of minari:a/" in str(caught.value)
        assert str(caught.value).endswith(
            "Combine them in Minari (to_minari, minari.combine_datasets, from_minari), or name one of them."
        )


def test_a_copy_of_a_dataset_does_not_add_up_whatever_it_says_of_its_seed(tmp_path):
    first = written(tmp_path / "a")
    copy = Dataset(tmp_path / "b", replace(first.manifest, provenance=make_provenance(seed=1)), first._shards)
    with pytest.raises(MismatchError, match="their episodes are the same"):
        Dataset.joined([first, copy])
