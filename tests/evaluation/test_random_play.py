"""Random play is played once and kept, and what was kept is never taken for anything else."""

import gymnasium
import numpy as np
import pytest

from rldistill.envs import make_task
from rldistill.evaluation import random_play
from rldistill.evaluation.random_play import play_random
from rldistill.events import MessageEvent
from tests.kit.payout import payout_task


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    """The folder where random play is kept."""
    monkeypatch.setenv("RLDISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "random-play"


@pytest.fixture
def task():
    return make_task("CartPole-v1", {"max_episode_steps": 30})


def play(task, num_episodes=3, *, seed=0, callbacks=()):
    """Return the episodes, and how many of them were there after each lockstep: none are told where none are played."""
    told = []
    envs = task.make_envs(2, 1)
    found = play_random(task, envs, num_episodes, seed=seed, on_step=told.append, callbacks=callbacks)
    envs.close()
    return found, told


def is_played(*arguments, **settings) -> bool:
    return bool(play(*arguments, **settings)[1])


def test_it_is_played_once(task):
    first, told = play(task)
    assert told[-1] == 3
    assert play(task) == (first, [])
    assert play(task, 2) == (random_play.PlayedEpisodes(first.episodes[:2]), [])


def test_more_episodes_are_added_to_those_that_are_kept(task, monkeypatch):
    play(task)
    more, told = play(task, 5)
    assert told[0] == 3
    assert not is_played(task, 5)
    monkeypatch.setenv("RLDISTILL_CACHE", "")
    alone, told = play(task, 5)
    assert alone == more
    assert told[0] == 0


def test_another_seed_protocol_setting_or_version_is_played_anew(task, monkeypatch):
    play(task)
    assert is_played(task, seed=1)
    assert is_played(task.with_exploration(0.5))
    assert is_played(make_task("CartPole-v1", {"max_episode_steps": 29}))
    made_by = random_play._made_by()
    for name in made_by:
        with monkeypatch.context() as patch:
            patch.setattr(random_play, "_made_by", lambda name=name: made_by | {name: "another"})
            assert is_played(task), name
    assert not is_played(task)


def test_environments_that_may_change_without_a_version_are_played_every_time(task, kept):
    for own in (
        payout_task(),  # a module of the user's
        make_task(lambda: gymnasium.make("CartPole-v1", max_episode_steps=30)),
        make_task(gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")),
        make_task("FrozenLake-v1", {"desc": ["SF", "FG"]}),  # a setting that may name a file
    ):
        assert is_played(own)
        assert is_played(own)
    assert not kept.exists()


def test_an_id_of_gymnasium_that_was_registered_anew_is_played_every_time(task, monkeypatch):
    own = gymnasium.spec("CartPole-v1")
    for name, value in (("entry_point", "tests.kit.tiny_envs:TinyChain"), ("additional_wrappers", ("one",))):
        with monkeypatch.context() as patch:
            patch.setattr(own, name, value)
            assert not random_play._is_fixed_by_versions(task)
    assert random_play._is_fixed_by_versions(task)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"episodes": [[1.0, 2]]}', '{"episodes": 3}', None])
def test_a_damaged_file_is_played_anew_and_replaced(task, kept, content):
    first, _ = play(task)
    (path,) = kept.iterdir()
    path.write_text(path.read_text().replace("0", "1") if content is None else content)
    assert play(task)[0] == first
    assert not is_played(task)


def test_a_cache_that_cannot_be_written_costs_nothing_but_a_line(task, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RLDISTILL_CACHE", str(tmp_path / "file"))
    heard = []
    found, _ = play(task, callbacks=[heard.append])
    assert len(found.episodes) == 3
    (event,) = heard
    assert isinstance(event, MessageEvent)
    assert event.text.startswith("random play is not kept for the next evaluation: Writing ")


def test_without_a_home_nothing_is_kept(task, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(random_play.Path, "home", homeless)
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert is_played(task)  # another folder is named, and none is looked for
    monkeypatch.delenv("RLDISTILL_CACHE")
    assert is_played(task) and is_played(task)


def test_play_of_an_environment_registered_with_an_object_is_not_kept(task, kept, monkeypatch):
    registered = gymnasium.registry["CartPole-v1"]
    monkeypatch.setattr(registered, "kwargs", {**registered.kwargs, "sutton_barto_reward": np.False_})
    assert is_played(task)
    assert not kept.exists()
