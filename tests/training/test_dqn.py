"""DQN: one update worked by hand, the target network, the settings; and its play against scripts."""

import numpy as np
import pytest
import torch

from rldistill.data import Transitions
from rldistill.errors import NumericalError, UsageError
from rldistill.networks import Architecture, OutputLayer, PolicyNetwork
from rldistill.tasks import ObservationFingerprint, Task
from rldistill.training.dqn import DQNLearner, DQNSettings, DQNTraining
from rldistill.training.stream import TrainingStream
from rldistill.types import ActionLayout
from tests.kit.scripted_envs import Moment, ScriptedEnvs, moments

GAMMA = 0.5
SCRIPTED = Task("scripted", ObservationFingerprint((1,), "float32", ActionLayout.discrete(2)))
SMALL = {"num_envs": 1, "replay_capacity": 64, "learning_starts": 4, "steps_per_update": 1, "batch_size": 8}


def linear_network(num_inputs=2, num_actions=3, heads=("task",), zero_output=True):
    return PolicyNetwork(
        Architecture("linear", "mlp", ()),
        (num_inputs,),
        dict.fromkeys(heads, OutputLayer.choice(num_actions)),
        zero_output=zero_output,
        generator=torch.Generator().manual_seed(0),
    )


def make_learner(network, **settings):
    return DQNLearner(network, DQNSettings(**{"batch_size": 1, "learning_rate": 0.1} | settings), precision="float32")


def batch_of(observations, actions, returns, discounts, next_observations):
    return Transitions(
        np.arange(len(actions)),
        np.array(observations, np.float32),
        np.array(actions, np.int32),
        np.array(returns, np.float32),
        np.array(discounts, np.float32),
        np.array(next_observations, np.float32),
    )


def head_of(network, head=0):
    return network.heads[head].output


# One update


def test_one_update_worked_by_hand():
    network = linear_network()
    loss = make_learner(network).learn(batch_of([[1, 2]], [1], [3.0], [0.5], [[9, 9]]))
    # q = 0, target 3: the TD error is clipped to 1, the loss 3 − ½. Gradients −1, −2 and −1 (bias), then RMSProp's
    # first step: 0.1 ÷ √(0.0475 + 0.01) and 0.2 ÷ √(0.19 + 0.01).
    assert loss.item() == 2.5
    torch.testing.assert_close(head_of(network).weight[1], torch.tensor([0.417029, 0.447214]))
    torch.testing.assert_close(head_of(network).bias, torch.tensor([0.0, 0.417029, 0.0]))


def test_small_errors_are_not_clipped():
    network = linear_network()
    assert make_learner(network).learn(batch_of([[1, 2]], [1], [0.5], [0.5], [[9, 9]])).item() == 0.125
    # Gradient −½ for the bias: 0.05 ÷ √(0.0475 ÷ 4 + 0.01)
    assert head_of(network).bias[1].item() == pytest.approx(0.05 / (0.0475 / 4 + 0.01) ** 0.5)


@pytest.mark.parametrize(("double_q", "next_value"), [(False, 5.0), (True, -1.0)])
def test_targets_come_from_the_target_network_and_double_q_selects_with_the_online_one(double_q, next_value):
    learner = make_learner(linear_network(), double_q=double_q)
    with torch.no_grad():
        head_of(learner.target_network).bias.copy_(torch.tensor([5.0, 0.0, -1.0]))
        head_of(learner.network).bias.copy_(torch.tensor([0.0, 0.0, 2.0]))
    # The action 1 has value 0 and the target 0.25 + ½ · next_value.
    error = 0.25 + 0.5 * next_value
    expected = 0.5 * error**2 if abs(error) <= 1 else abs(error) - 0.5
    assert learner.learn(batch_of([[1, 2]], [1], [0.25], [0.5], [[1, 1]])).item() == pytest.approx(expected)


def test_the_target_network_is_copied_at_its_period_and_stands_still_between():
    learner = make_learner(linear_network(), target_network_update_period=3)
    batch = batch_of([[1, 2]], [1], [3.0], [0.5], [[1, 0]])
    for update in range(1, 7):
        before = head_of(learner.target_network).bias.clone()
        learner.learn(batch)
        is_copy = torch.equal(head_of(learner.target_network).bias, head_of(learner.network).bias)
        assert is_copy == (update % 3 == 0)
        assert is_copy or torch.equal(head_of(learner.target_network).bias, before)
    assert learner.num_updates == 6


def test_only_the_torso_and_the_head_of_the_task_are_trained():
    network = linear_network(heads=("one", "two"), zero_output=False)
    before = head_of(network, 0).weight.clone()
    make_learner(network).learn(batch_of([[1, 2]], [1], [3.0], [0.5], [[1, 0]]), head=1)
    assert torch.equal(head_of(network, 0).weight, before)


def test_going_on_from_a_state_equals_not_stopping():
    batches = [
        batch_of(
            *(np.random.default_rng(i).normal(size=(4, 2)), [0, 1, 2, 0], np.ones(4), np.full(4, 0.9)), np.ones((4, 2))
        )
        for i in range(6)
    ]
    straight, stopped = (make_learner(linear_network(), batch_size=4, target_network_update_period=2) for _ in range(2))
    for batch in batches:
        straight.learn(batch)
    for batch in batches[:3]:
        stopped.learn(batch)
    resumed = make_learner(linear_network(), batch_size=4, target_network_update_period=2)
    resumed.load_state_dict(stopped.state_dict())
    for batch in batches[3:]:
        resumed.learn(batch)
    for name in ("network", "target_network"):
        for key, tensor in straight.state_dict()[name].items():
            assert torch.equal(tensor, resumed.state_dict()[name][key])
    assert resumed.num_updates == 6


# Settings


def test_the_defaults_are_those_of_the_paper():
    settings = DQNSettings()
    assert (settings.replay_capacity, settings.batch_size, settings.steps_per_update) == (1_000_000, 32, 4)
    assert (settings.target_network_update_period, settings.learning_starts, settings.gamma) == (10_000, 50_000, 0.99)
    assert (settings.optimizer, settings.learning_rate) == ("rmsprop", 2.5e-4)
    assert (settings.double_q, settings.num_return_steps) == (False, 1)
    assert settings.clip_rewards and settings.cut_at_life_loss


@pytest.mark.parametrize(
    ("step", "epsilon"), [(0, 1.0), (50_000, 1.0), (550_000, 0.55), (1_050_000, 0.1), (9_000_000, 0.1)]
)
def test_exploration_falls_over_a_million_steps_once_learning_has_started(step, epsilon):
    assert DQNSettings().exploration_epsilon(step) == pytest.approx(epsilon)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_envs": 0}, "num_envs must lie in [1, 4096], got 0."),
        ({"num_return_steps": 0}, "num_return_steps must be 1 or more, got 0."),
        ({"exploration_steps": 0}, "exploration_steps must be 1 or more, got 0."),
        ({"gamma": float("nan")}, "gamma must lie in [0, 1], got nan."),
        ({"learning_rate": 0.0}, "learning_rate must be > 0, got 0.0."),
        ({"optimizer": "sgd"}, "optimizer: got 'sgd', expected rmsprop or adam."),
        ({"replay_capacity": 100}, "learning_starts must not exceed replay_capacity, got 50000 and 100."),
    ],
)
def test_a_setting_out_of_range_is_refused(settings, message):
    with pytest.raises(UsageError) as caught:
        DQNSettings(**settings)
    assert str(caught.value) == message


# Play


def make_training(*scripts, num_steps=1000, with_lives=False, num_tasks=1, steps_per_iteration=1000, **settings):
    options = DQNSettings(**SMALL | {"gamma": GAMMA, "num_envs": len(scripts[0])} | settings)
    network = linear_network(1, 2, heads=[str(number) for number in range(num_tasks)])
    streams = [
        TrainingStream(
            ScriptedEnvs(*task_scripts, with_lives=with_lives),
            2,
            first_seed=0,
            gamma=GAMMA,
            clip_rewards=options.clip_rewards,
            cut_at_life_loss=options.cut_at_life_loss,
        )
        for task_scripts in scripts
    ]
    return DQNTraining(
        DQNLearner(network, options, precision="float32"),
        streams,
        [SCRIPTED] * num_tasks,
        num_steps=num_steps,
        seed=0,
        rng=np.random.default_rng(0),
        steps_per_iteration=steps_per_iteration,
    )


def remembered(training, task=0):
    """Every transition in the replay, in the order of the play: (observation, return, discount, next observation)."""
    replay = training.replays[task]
    replay.seal()
    steps = np.unique(replay.draw(np.random.default_rng(0).random(1000)))
    found = replay.transitions(steps)
    rows = zip(
        found.observations[:, 0].tolist(),
        found.returns.tolist(),
        found.discounts.tolist(),
        found.next_observations[:, 0].tolist(),
        strict=True,
    )
    return sorted(rows)


def test_what_is_remembered_is_what_was_played_with_the_habits_of_training():
    game = [Moment(7.0, lives=3), Moment(0.25, lives=2), Moment(-3.0, truncated=True, lives=2)]
    training = make_training(
        [[game, [Moment(1.0, lives=2), Moment(1.0, terminated=True, lives=0)], moments(0.0)]],
        with_lives=True,
        num_steps=5,
        learning_starts=64,
    )
    record = training.iterate([0])
    assert (record.num_steps, record.loss, list(record.scores)) == (5, None, [4.25, 2.0])
    assert remembered(training) == [
        (0.0, 1.0, GAMMA, 1.0),
        (1.0, 0.25, 0.0, 2.0),  # a life lost
        (2.0, -1.0, GAMMA, 3.0),  # cut off: the last observation, not the first of the next game
        (100.0, 1.0, GAMMA, 101.0),
        (101.0, 1.0, 0.0, 102.0),
    ]


def test_returns_of_two_steps_are_summed():
    training = make_training(
        [[moments(1.0, 1.0, 1.0), moments(0.0)]], num_steps=3, learning_starts=64, num_return_steps=2
    )
    training.iterate([0])
    assert remembered(training) == [(0.0, 1.5, GAMMA**2, 2.0), (1.0, 1.5, 0.0, 3.0), (2.0, 1.0, 0.0, 3.0)]


@pytest.mark.parametrize(
    ("num_envs", "steps_per_update", "num_steps", "num_updates"),
    [
        (1, 4, 40, 9),  # due at 4, 8, …, 40; from the 8th on
        (2, 4, 40, 9),
        (8, 4, 40, 8),  # nothing can be drawn at 8: nobody knows yet what followed
        (3, 2, 30, 12),  # 9 steps are the first to reach 8; one update is due for 7 and 8
    ],
)
def test_updates_follow_the_steps_they_are_due_for_once_learning_has_started(
    num_envs, steps_per_update, num_steps, num_updates
):
    long_game = [moments(*[0.0] * 60)]
    training = make_training(
        [long_game] * num_envs, num_steps=num_steps, learning_starts=8, steps_per_update=steps_per_update
    )
    record = training.iterate([0])
    assert record.num_steps == num_steps
    assert training.state_dict()["num_updates"] == num_updates
    assert record.loss is not None


def test_an_iteration_ends_at_its_steps_and_the_last_one_with_the_run():
    training = make_training([[moments(*[0.0] * 100)]], num_steps=50, steps_per_iteration=20)
    sizes, steps = [], 0
    while steps < 50:
        record = training.iterate([steps])
        sizes.append(record.num_steps)
        steps += record.num_steps
    assert sizes == [20, 20, 10]


def test_a_loss_that_is_no_number_stops_training():
    training = make_training([[moments(*[float("inf")] * 20)]], num_steps=20, clip_rewards=False)
    with pytest.raises(
        NumericalError,
        match=r"^DQN diverged: its mean loss up to update \d+ is .*Begin anew with --overwrite and a lower",
    ):
        training.iterate([0])


def test_the_same_seed_plays_and_learns_the_same():
    def learned():
        training = make_training([[moments(*[1.0, 0.0] * 30)]], num_steps=60)
        training.iterate([0])
        return training.state_dict()["network"]

    for tensor, other in zip(learned().values(), learned().values(), strict=True):
        assert torch.equal(tensor, other)


# Several tasks


def test_the_next_task_has_its_turn_when_an_episode_ends_and_tasks_that_are_done_are_passed_over():
    scripts = [[[moments(*[0.0] * length) for _ in range(20)]] for length in (2, 3, 5)]
    training = make_training(*scripts, num_tasks=3, num_steps=6)
    steps, turns = [0, 0, 0], []
    while min(steps) < 6:
        record = training.iterate(steps)
        steps[record.task] += record.num_steps
        turns.append((record.task, record.num_steps))
    assert turns == [(0, 2), (1, 3), (2, 5), (0, 2), (1, 3), (2, 1), (0, 2)]
    assert [replay.num_appended for replay in training.replays] == [6, 6, 6]


def test_whose_turn_it_is_survives_a_stop():
    scripts = [[[moments(0.0, 0.0) for _ in range(20)]] for _ in range(2)]
    training = make_training(*scripts, num_tasks=2)
    training.iterate([0, 0])
    other = make_training(*scripts, num_tasks=2)
    other.load_state_dict(training.state_dict())
    assert other.iterate([2, 0]).task == 1
