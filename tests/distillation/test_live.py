"""The live schedule: what is played when, what batches are drawn from, and what a stop leaves."""

import gymnasium
import numpy as np
import pytest
import torch

from rldistill.distillation import Batches, LiveSource
from rldistill.distillation.live_play import LivePlay
from rldistill.envs import make_task
from rldistill.events import ProgressEvent
from rldistill.options.declaration import option_types
from rldistill.options.distill import Live
from rldistill.policies import TorchPolicy
from rldistill.rollout.player import EpisodePlayer
from rldistill.schedules import TaskSchedule, constant, linear
from tests.kit.cart_pole import hand_made_teacher, mirrored_teacher, short_cart_pole, short_mirrored_cart_pole

NUM_ENVS = 4


def no_loss(student, target, progress):
    """Sources that only draw rows have no use for it."""
    raise AssertionError


def live_play(capacity: int = 400, *, seed: int = 3) -> LivePlay:
    teacher = hand_made_teacher()
    return LivePlay(
        teacher,
        teacher,
        lambda: short_cart_pole().make_envs(NUM_ENVS, 1),
        capacity=capacity,
        seed=seed,
        exploration_epsilon=0.3,
    )


def mirrored_in_place() -> TorchPolicy:
    """A student that does the opposite of the teacher."""
    student = hand_made_teacher()
    with torch.no_grad():
        for parameter in student.network.heads.parameters():
            parameter.neg_()
    return student


def live_source(
    *, head: int = 0, teacher: TorchPolicy | None = None, student: TorchPolicy | None = None, playable=None, **settings
) -> LiveSource:
    teacher = teacher or hand_made_teacher()
    own = {"collect_steps": 100, "collect_period": 5, "replay_capacity": 400, "teacher_fraction": 1.0}
    said = Live(teacher, **own | {name: settings.pop(name) for name in option_types(Live) if name in settings})
    options = {"seed": 3, "num_envs": NUM_ENVS, "num_updates": 1000} | settings
    source = LiveSource(teacher, teacher, (playable or short_cart_pole()).with_exploration(0.3), said, **options)
    source.teach(head, student or teacher, no_loss)
    return source


def batches_of(*sources: LiveSource) -> Batches:
    return Batches(sources, TaskSchedule("in_turn", (1.0,) * len(sources)), batch_size=8)


def num_played(source: LiveSource) -> int:
    return source.replays[0].num_appended


def test_before_each_period_of_updates_so_many_steps_are_played():
    source, played = live_source(), []
    batches = batches_of(source).of_updates(0, 12)
    for _ in range(12):
        next(batches)
        played.append(num_played(source))
    assert played == [100] * 5 + [200] * 5 + [300] * 2
    source.close()


@pytest.mark.parametrize(
    ("fraction", "collect_period", "said"),
    [
        (1.0, 1000, None),
        ("linear:1->0@0.5", 600, None),
        ("linear:1->0@0.5", 1000, "where teacher_fraction is 1 and only the teacher acts"),
        (0.25, 1000, "where teacher_fraction is 0.25 and the student acts untrained"),
    ],
)
def test_who_acts_is_warned_about_where_all_play_is_over_before_the_student_learns(fraction, collect_period, said):
    source = live_source(teacher_fraction=fraction, collect_period=collect_period)
    assert len(source.warnings) == (said is not None)
    assert all(said in warning and "--collect-period" in warning for warning in source.warnings)
    source.close()


def test_only_the_newest_steps_are_kept():
    source = live_source(replay_capacity=160)
    list(batches_of(source).of_updates(0, 25))
    assert num_played(source) == 500
    assert 140 <= source.replays[0].num_steps <= 160
    source.close()


def test_rows_are_what_the_teacher_saw_and_said():
    task = live_play(capacity=10_000)
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
    stored = task.replay.store.observations(np.arange(200))
    assert {row.tobytes() for row in stored} == seen.keys()


def seen(window) -> torch.Tensor:
    return window.observations["observation"]


def test_rows_of_an_update_are_the_same_each_time_they_are_drawn():
    task = live_play()
    task.play(num_steps=100)
    task.close()
    assert torch.equal(seen(task.draw(7, 16)), seen(task.draw(7, 16)))
    assert not torch.equal(seen(task.draw(7, 16)), seen(task.draw(8, 16)))


def test_two_runs_draw_the_same_batches():
    runs = [[seen(part) for batch in batches_of(live_source()).of_updates(0, 12) for part in batch] for _ in range(2)]
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))


def test_each_task_has_its_own_pool_and_store():
    sources = [
        live_source(),
        live_source(head=1, teacher=mirrored_teacher(), playable=short_mirrored_cart_pole(), seed=4),
    ]
    batches = list(batches_of(*sources).of_updates(0, 6))
    assert [batch[0].head for batch in batches] == [0, 1] * 3
    assert [batch[0].targets["q_values"].shape[2] for batch in batches] == [2, 3] * 3
    assert [num_played(source) for source in sources] == [200, 200]


def test_a_stop_in_the_middle_of_a_collection_loses_no_step_of_it(tmp_path):
    class Stop(Exception):
        pass

    def stop(event: ProgressEvent) -> None:
        if (
            event.done >= 60 and event.total == 100
        ):  # of the play that is learned from: that which is held out has no such total
            raise Stop

    first = live_source(callbacks=[stop])
    with pytest.raises(Stop):
        next(batches_of(first).of_updates(0, 5))
    assert num_played(first) == 60
    state = first.state_dict()
    assert state["learned"]["next_episode"] >= NUM_ENVS, "the episodes that were begun are not begun again"
    second = live_source()
    second.load_state_dict(state)
    for number, (old, new) in enumerate(zip(first.replays, second.replays, strict=True)):
        (tmp_path / str(number)).mkdir()
        new.read(tmp_path / str(number), old.write(tmp_path / str(number)))
    next(batches_of(second).of_updates(0, 5))
    assert num_played(second) == 100
    second.close()


def test_progress_tells_the_task_and_how_far_its_collection_is():
    told = []
    source = live_source(callbacks=[told.append])
    list(batches_of(source).of_updates(0, 6))
    collections = told[-50:]
    assert collections[0] == ProgressEvent("play CartPole-v1", 4, 100, "steps")
    assert collections[24] == ProgressEvent("play CartPole-v1", 100, 100, "steps")
    assert collections[25] == ProgressEvent("play CartPole-v1", 4, 100, "steps")


def test_held_out_play_comes_first_and_ends_five_episodes_at_least():
    told = []
    source = live_source(held_out_steps=50, callbacks=[told.append])
    batches = batches_of(source).of_updates(0, 6)
    next(batches)
    measured, held_out = source.replays[1], source.held_out
    assert source.state_dict()["measured"]["num_episodes"] >= 5
    assert held_out.num_steps == measured.num_steps == held_out.batch.num_steps >= 50
    assert held_out.constant.value == pytest.approx(
        np.bincount(measured.field("q_values").argmax(axis=1)).max() / held_out.num_steps
    )
    assert (told[-25].done, told[-25].total) == (4, 100), "the collection follows"
    list(batches)
    assert measured.num_steps == held_out.num_steps, "it is played once"


def test_held_out_play_that_was_stopped_goes_on_with_new_episodes(tmp_path):
    class Stop(Exception):
        pass

    def stop(event: ProgressEvent) -> None:
        if event.done >= 40:
            raise Stop

    stopped = live_source(held_out_steps=120, callbacks=[stop])
    with pytest.raises(Stop):
        next(batches_of(stopped).of_updates(0, 5))
    state, listed = stopped.state_dict(), stopped.replays[1].write(tmp_path)
    stopped.close()
    resumed = live_source(held_out_steps=120)
    resumed.load_state_dict(state)
    measured = resumed.replays[1]
    measured.read(tmp_path, listed)
    next(batches_of(resumed).of_updates(0, 5))
    assert measured.num_steps >= 120
    assert resumed.state_dict()["measured"]["num_episodes"] >= 5
    rows = measured.store.observations(np.arange(measured.num_steps))
    assert len({row.tobytes() for row in rows}) == len(rows), "no episode was played twice"
    resumed.close()


def test_environments_that_both_kinds_of_play_share_are_used_by_one_at_a_time():
    """Two players in the same environments would store episodes that never happened."""
    envs = gymnasium.make_vec("CartPole-v1", num_envs=3, vectorization_mode="sync")
    playable = make_task(envs)
    teacher = hand_made_teacher(playable)
    shared = live_source(teacher=teacher, playable=playable, held_out_steps=60, replay_capacity=10_000)
    list(batches_of(shared).of_updates(0, 12))
    shared.close()
    replay = shared.replays[0]
    store = replay.store
    rows = store.observations(np.arange(replay.num_steps))
    follows = np.flatnonzero((np.diff(store.steps_in_episode) == 1) & (np.diff(store.episodes) == 0))
    assert len(follows) > 200
    # The position changes by 0.02 s × velocity: a row that does not follow from the one before is another episode's.
    np.testing.assert_allclose(rows[follows + 1, 0] - rows[follows, 0], 0.02 * rows[follows, 1], atol=1e-5)


# The student acts.


def test_a_student_that_acts_is_labelled_by_its_teacher():
    student = mirrored_in_place()
    source = live_source(student=student, teacher_fraction=constant(0.0), replay_capacity=10_000)
    rows = next(batches_of(source).of_updates(0, 1))[0]
    source.close()
    seen_rows, targets = rows.observations["observation"][0], rows.targets["q_values"][0]
    answers = hand_made_teacher()(seen_rows.numpy())[0].raw
    torch.testing.assert_close(targets, answers, atol=1e-5, rtol=0)


def test_a_share_of_one_is_the_teachers_play_bit_for_bit():
    plays = [live_source(), live_source(teacher_fraction=constant(1.0), mix="decision")]
    batches = [[seen(part) for batch in batches_of(source).of_updates(0, 6) for part in batch] for source in plays]
    assert all(torch.equal(one, other) for one, other in zip(*batches, strict=True))


def test_the_students_play_is_not_the_teachers_and_its_share_follows_the_schedule():
    own = live_source(student=mirrored_in_place(), teacher_fraction=constant(0.0))
    teachers = live_source()
    first = [next(batches_of(source).of_updates(0, 1))[0] for source in (own, teachers)]
    assert not torch.equal(seen(first[0]), seen(first[1]))
    falling = live_source(student=mirrored_in_place(), teacher_fraction=linear(1.0, 0.0), num_updates=10)
    batches = batches_of(falling).of_updates(0, 10)
    next(batches)
    assert falling._mixture.fraction == 1
    for _ in range(5):
        next(batches)
    assert falling._mixture.fraction == 0.5
    for source in (own, teachers, falling):
        source.close()


def test_no_step_that_is_held_out_is_learned_from():
    source = live_source(held_out_steps=50, replay_capacity=10_000)
    next(batches_of(source).of_updates(0, 1))
    source.close()
    learned, measured = (
        {row.tobytes() for row in r.store.observations(np.arange(r.num_steps))} for r in source.replays
    )
    assert measured and not learned & measured


def test_live_play_explores_as_its_task_says():
    def first(epsilon):
        teacher = hand_made_teacher()
        task = short_cart_pole().with_exploration(epsilon)
        said = Live(teacher, collect_steps=400, collect_period=5, teacher_fraction=1.0)
        source = LiveSource(teacher, teacher, task, said, seed=3, num_envs=4)
        source.teach(0, teacher, no_loss)
        (window,) = next(batches_of(source).of_updates(0, 1))
        source.close()
        return seen(window)

    assert not torch.equal(first(0.0), first(0.3))


def looking_ahead(*, collect_steps: int, num_updates: int = 1) -> LiveSource:
    teacher = hand_made_teacher(kind="logits")
    said = Live(teacher, collect_steps=collect_steps, collect_period=5, teacher_fraction=0.0, lookahead=0.5)
    return LiveSource(teacher, teacher, short_cart_pole(), said, seed=3, num_envs=4, num_updates=num_updates)


def test_actions_are_those_of_the_steps_they_stand_beside():
    student, source = hand_made_teacher(kind="logits", scale=1e4), looking_ahead(collect_steps=200)
    source.teach(0, student, lambda own, target, progress: (own - target).abs().sum(1))
    (window,) = next(batches_of(source).of_updates(0, 1))
    source.close()
    np.testing.assert_array_equal(window.actions[0], student.act(seen(window)[0].numpy())[0])


def test_what_followed_is_measured_at_the_moment_of_play():
    told, source = [], looking_ahead(collect_steps=100, num_updates=10)

    def loss(own, target, progress):
        told.append(progress)
        return (own - target).abs().sum(1)

    source.teach(0, hand_made_teacher(kind="logits"), loss)
    list(batches_of(source).of_updates(0, 10))
    source.close()
    assert told == [0.0, 0.5]
