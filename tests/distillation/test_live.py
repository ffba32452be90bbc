"""The live schedule: what is played when, what batches are drawn from, and what a stop leaves."""

import gymnasium
import numpy as np
import pytest
import torch

from rldistill.distillation import LiveSource, LiveTask
from rldistill.envs import make_task
from rldistill.policies import TorchPolicy
from rldistill.rollout.player import EpisodePlayer
from rldistill.schedules import TaskSchedule
from tests.kit.cart_pole import hand_made_teacher, mirrored_teacher, short_cart_pole, short_mirrored_cart_pole

NUM_ENVS = 4


def live_task(
    capacity: int = 400, *, seed: int = 3, head: int = 0, teacher: TorchPolicy | None = None, playable=None
) -> LiveTask:
    playable = playable or short_cart_pole()
    return LiveTask(
        teacher or hand_made_teacher(),
        lambda: playable.make_envs(NUM_ENVS, 1),
        capacity=capacity,
        seed=seed,
        exploration_epsilon=0.3,
        head=head,
    )


def source(tasks, **settings) -> LiveSource:
    options = {"batch_size": 8, "collect_steps": 100, "collect_period": 5} | settings
    return LiveSource(tasks, schedule=TaskSchedule("in_turn", (1.0,) * len(tasks)), **options)


def test_before_each_period_of_updates_so_many_steps_are_played():
    task = live_task()
    batches = source([task]).batches(0, 12)
    played = []
    for _ in range(12):
        next(batches)
        played.append(task.replay.num_appended)
    assert played == [100] * 5 + [200] * 5 + [300] * 2


def test_only_the_newest_steps_are_kept():
    task = live_task(capacity=160)
    list(source([task]).batches(0, 25))
    assert task.replay.num_appended == 500
    assert 140 <= task.replay.num_steps <= 160
    task.close()


def test_rows_are_what_the_teacher_saw_and_said():
    task = live_task(capacity=10_000)
    task.play(num_steps=200)
    task.close()
    seen = {}
    playable = short_cart_pole()
    envs = playable.make_envs(NUM_ENVS, 1)
    teacher = hand_made_teacher()
    player = EpisodePlayer(teacher, envs, range(100), seed=3, exploration_epsilon=0.3, labellers={"teacher": teacher})
    for _, record in zip(range(50), player.play(), strict=False):
        for row in range(NUM_ENVS):
            seen[record.observations[row].tobytes()] = record.labels["teacher"].raw[row]
    envs.close()
    rows = task.draw(0, 64)
    assert rows.head == 0
    for observation, target in zip(rows.observations["observation"][0], rows.targets["q_values"][0], strict=True):
        assert torch.equal(seen[observation.numpy().tobytes()], target)
    stored = task.replay.observations(np.arange(200))
    assert {row.tobytes() for row in stored} == seen.keys()


def seen(window) -> torch.Tensor:
    return window.observations["observation"]


def test_rows_of_an_update_are_the_same_each_time_they_are_drawn():
    task = live_task()
    task.play(num_steps=100)
    task.close()
    assert torch.equal(seen(task.draw(7, 16)), seen(task.draw(7, 16)))
    assert not torch.equal(seen(task.draw(7, 16)), seen(task.draw(8, 16)))


def test_two_runs_draw_the_same_batches():
    batches = [[seen(part) for batch in source([live_task()]).batches(0, 12) for part in batch] for _ in range(2)]
    assert all(torch.equal(one, other) for one, other in zip(*batches, strict=True))


def test_each_task_has_its_own_pool_and_store():
    tasks = [
        live_task(),
        live_task(head=1, teacher=mirrored_teacher(), playable=short_mirrored_cart_pole(), seed=4),
    ]
    batches = list(source(tasks).batches(0, 6))
    assert [batch[0].head for batch in batches] == [0, 1] * 3
    assert [batch[0].targets["q_values"].shape[2] for batch in batches] == [2, 3] * 3
    assert [task.replay.num_appended for task in tasks] == [200, 200]


def test_a_stop_in_the_middle_of_a_collection_loses_no_step_of_it(tmp_path):
    class Stop(Exception):
        pass

    def stop(_name: str, done: int, _total: int) -> None:
        if done >= 60:
            raise Stop

    first = live_task()
    with pytest.raises(Stop):
        next(source([first], on_play=stop).batches(0, 5))
    assert first.replay.num_appended == 60
    state, listed = source([first]).state_dict(), first.replay.write(tmp_path)
    assert state["episodes"][0][0] >= NUM_ENVS, "the episodes that were begun are not begun again"
    second = live_task()
    resumed = source([second])
    resumed.load_state_dict(state)
    second.replay.read(tmp_path, listed)
    next(resumed.batches(0, 5))
    assert second.replay.num_appended == 100
    resumed.close()


def test_progress_tells_the_task_and_how_far_its_collection_is():
    told = []
    task = live_task()
    list(source([task], on_play=lambda *values: told.append(values)).batches(0, 6))
    assert told[0] == ("CartPole-v1", 4, 100)
    assert told[24] == ("CartPole-v1", 100, 100)
    assert told[25] == ("CartPole-v1", 4, 100)
    assert len(told) == 50


def test_held_out_play_comes_first_and_ends_five_episodes_at_least():
    task, measured = live_task(), live_task(capacity=2**62, seed=9)
    told = []
    batches = source(
        [task], held_out=[measured], held_out_steps=50, on_play=lambda *values: told.append(values)
    ).batches(0, 6)
    next(batches)
    assert measured.num_episodes >= 5
    held_out = measured.held_out()
    assert held_out.num_steps == measured.replay.num_steps == held_out.batch.num_steps >= 50
    assert held_out.constant.agreement == pytest.approx(
        np.bincount(measured.replay.field("q_values").argmax(axis=1)).max() / held_out.num_steps
    )
    assert told[len(told) - 25][1:] == (4, 100), "the collection follows"
    list(batches)
    assert measured.replay.num_steps == held_out.num_steps, "it is played once"


def test_held_out_play_that_was_stopped_goes_on_with_new_episodes(tmp_path):
    class Stop(Exception):
        pass

    def stop(_name: str, done: int, _total: int) -> None:
        if done >= 40:
            raise Stop

    task, measured = live_task(), live_task(capacity=2**62, seed=9)
    stopped = source([task], held_out=[measured], held_out_steps=120, on_play=stop)
    with pytest.raises(Stop):
        next(stopped.batches(0, 5))
    state, listed = stopped.state_dict(), measured.replay.write(tmp_path)
    stopped.close()
    again, measured = live_task(), live_task(capacity=2**62, seed=9)
    resumed = source([again], held_out=[measured], held_out_steps=120)
    resumed.load_state_dict(state)
    measured.replay.read(tmp_path, listed)
    next(resumed.batches(0, 5))
    assert measured.replay.num_steps >= 120
    assert measured.num_episodes >= 5
    rows = measured.replay.observations(np.arange(measured.replay.num_steps))
    assert len({row.tobytes() for row in rows}) == len(rows), "no episode was played twice"
    resumed.close()


def test_environments_that_both_kinds_of_play_share_are_used_by_one_at_a_time():
    """Two players in the same environments would store episodes that never happened."""
    envs = gymnasium.make_vec("CartPole-v1", num_envs=3, vectorization_mode="sync")
    playable = make_task(envs)
    teacher = hand_made_teacher(playable)
    task, measured = (live_task(10_000, seed=seed, teacher=teacher, playable=playable) for seed in (3, 9))
    shared = source([task], held_out=[measured], held_out_steps=60)
    list(shared.batches(0, 12))
    shared.close()
    rows = task.replay.observations(np.arange(task.replay.num_steps))
    store = task.replay._store
    follows = np.flatnonzero((np.diff(store.steps_in_episode) == 1) & (np.diff(store.episodes) == 0))
    assert len(follows) > 200
    # The position changes by 0.02 s × velocity: a row that does not follow from the one before is another episode's.
    np.testing.assert_allclose(rows[follows + 1, 0] - rows[follows, 0], 0.02 * rows[follows, 1], atol=1e-5)
