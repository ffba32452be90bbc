"""PQN: one update worked by hand, its schedules, what stops it, and what it takes to go on."""

import pytest
import torch

from rldistill.errors import NumericalError, UsageError
from rldistill.networks import Architecture, OutputLayer, PolicyNetwork, parse_architecture
from rldistill.training.pqn import PQNLearner, PQNSettings
from rldistill.training.stream import Rollout

ONE_STEP = {
    "num_envs": 1,
    "rollout_length": 1,
    "num_epochs": 1,
    "num_minibatches": 1,
    "learning_rate": 0.1,
    "max_gradient_norm": 100.0,
}


def linear_network(num_inputs=2, num_actions=3):
    return PolicyNetwork(Architecture("linear", "mlp", ()), (num_inputs,), {"task": OutputLayer.choice(num_actions)})


def make_learner(network, seed=0, **settings):
    generator = torch.Generator().manual_seed(seed)
    return PQNLearner(network, PQNSettings(**ONE_STEP | settings), precision="float32", generator=generator)


def make_rollout(observations, actions, rewards, discounts, next_values, truncated=None):
    """All `[T, N, …]`, as lists."""
    rewards = torch.tensor(rewards)
    is_cut = torch.zeros_like(rewards, dtype=torch.bool) if truncated is None else torch.tensor(truncated)
    return Rollout(
        torch.tensor(observations),
        torch.tensor(actions),
        rewards,
        torch.tensor(discounts),
        torch.tensor(next_values),
        is_cut,
        (),
    )


def random_rollout(num_steps=8, num_envs=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Rollout(
        torch.randn(num_steps, num_envs, 2, generator=generator),
        torch.randint(0, 3, (num_steps, num_envs), generator=generator),
        torch.randn(num_steps, num_envs, generator=generator),
        torch.full((num_steps, num_envs), 0.9),
        torch.randn(num_steps, num_envs, generator=generator),
        torch.zeros(num_steps, num_envs, dtype=torch.bool),
        (),
    )


def weights_of(network):
    output = network.heads[0].output
    return output.weight.detach().clone(), output.bias.detach().clone()


# q = 0 everywhere; the action 1 taken in (1, 2) returned 3 + 0.5 · 4 = 5, so the gradient of ½(q − 5)² is −5 for q and
# −5·(1, 2), −5 for the weights of action 1. RAdam's first five steps are those of plain momentum, the first one of SGD.
BY_HAND = make_rollout([[[1.0, 2.0]]], [[1]], [[3.0]], [[0.5]], [[4.0]])


def test_one_update_worked_by_hand():
    network = linear_network()
    loss = make_learner(network).learn(BY_HAND, progress=0.0)
    weight, bias = weights_of(network)
    assert loss == 12.5
    torch.testing.assert_close(weight, torch.tensor([[0.0, 0.0], [0.5, 1.0], [0.0, 0.0]]))
    torch.testing.assert_close(bias, torch.tensor([0.0, 0.5, 0.0]))


def test_the_loss_is_the_mean_over_a_batch():
    two = make_rollout([[[1.0, 2.0]], [[1.0, 2.0]]], [[1], [1]], [[3.0], [1.0]], [[0.0], [0.0]], [[0.0], [0.0]])
    network = linear_network()
    assert make_learner(network, rollout_length=2).learn(two, progress=0.0) == (4.5 + 0.5) / 2
    torch.testing.assert_close(weights_of(network)[1], torch.tensor([0.0, 0.2, 0.0]))  # −(3 + 1)/2 · 0.1


def test_gradients_are_scaled_down_to_the_largest_norm():
    # The gradient (−5, −10, −5) has norm 12.25.
    network = linear_network()
    make_learner(network, max_gradient_norm=1.0).learn(BY_HAND, progress=0.0)
    weight, bias = weights_of(network)
    assert torch.cat([weight.flatten(), bias]).norm().item() == pytest.approx(0.1, rel=1e-4)
    assert weight[1].tolist() == pytest.approx([0.1 * 5 / 150**0.5, 0.1 * 10 / 150**0.5], rel=1e-4)


@pytest.mark.parametrize(("progress", "share"), [(0.0, 1.0), (0.25, 0.75), (0.9, 0.1)])
def test_the_learning_rate_falls_linearly_with_progress(progress, share):
    network = linear_network()
    learner = make_learner(network)
    learner.learn(BY_HAND, progress=progress)
    torch.testing.assert_close(weights_of(network)[1], torch.tensor([0.0, 0.5 * share, 0.0]))
    assert learner.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * share)


@pytest.mark.parametrize(
    ("return_lambda", "first_target"),
    [
        (0.0, 1 + 0.5 * 10),  # the value of the state it led to
        (1.0, 1 + 0.5 * (2 + 0.5 * 20)),  # the rewards, then the last value
        (0.5, 1 + 0.5 * (0.5 * 12 + 0.5 * 10)),  # half and half
    ],
)
def test_targets_are_lambda_returns(return_lambda, first_target):
    rollout = make_rollout([[[1.0, 0.0]], [[0.0, 1.0]]], [[0], [1]], [[1.0], [2.0]], [[0.5], [0.5]], [[10.0], [20.0]])
    learner = make_learner(linear_network(), rollout_length=2, return_lambda=return_lambda)
    assert learner.learn(rollout, progress=0.0) == pytest.approx((first_target**2 + 12**2) / 4)


def test_truncated_steps_end_the_return_but_not_the_value():
    rollout = make_rollout(
        [[[1.0, 0.0]], [[0.0, 1.0]]], [[0], [1]], [[1.0], [2.0]], [[0.5], [0.5]], [[10.0], [20.0]], [[True], [False]]
    )
    learner = make_learner(linear_network(), rollout_length=2, return_lambda=1.0)
    assert learner.learn(rollout, progress=0.0) == pytest.approx((6**2 + 12**2) / 4)


def test_each_epoch_passes_over_every_step_once():
    network = linear_network()
    learner = make_learner(network, num_envs=4, rollout_length=8, num_epochs=3, num_minibatches=8, learning_rate=1e-9)
    seen = []
    network.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    rollout = random_rollout()
    learner.learn(rollout, progress=0.0)
    assert [len(batch) for batch in seen] == [4] * 24
    expected = rollout.observations.flatten(0, 1).sort(dim=0).values
    for epoch in range(3):
        torch.testing.assert_close(torch.cat(seen[8 * epoch : 8 * epoch + 8]).sort(dim=0).values, expected)
    assert not torch.equal(torch.cat(seen[:8]), torch.cat(seen[8:16])), "epochs are shuffled anew"


def test_equal_seeds_learn_equal_weights_and_others_do_not():
    def learned(seed):
        network = linear_network()
        make_learner(network, seed, num_envs=4, rollout_length=8, num_minibatches=4).learn(
            random_rollout(), progress=0.0
        )
        return weights_of(network)[0]

    assert torch.equal(learned(0), learned(0))
    assert not torch.equal(learned(0), learned(1))


def test_going_on_from_a_state_equals_not_stopping():
    def make():
        network = PolicyNetwork(
            parse_architecture("mlp:8", layer_norm=True),
            (2,),
            {"task": OutputLayer.choice(3)},
            zero_output=False,
            generator=torch.Generator().manual_seed(0),
        )
        return make_learner(network, num_envs=4, rollout_length=8, num_minibatches=4, num_epochs=2)

    straight, stopped = make(), make()
    for step in range(4):
        straight.learn(random_rollout(seed=step), progress=step / 10)
    for step in range(2):
        stopped.learn(random_rollout(seed=step), progress=step / 10)
    state = {key: value for key, value in stopped.state_dict().items()}
    resumed = make()
    resumed.load_state_dict(state)
    for step in range(2, 4):
        resumed.learn(random_rollout(seed=step), progress=step / 10)
    for name, tensor in straight.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[name]), name


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_training(value):
    rollout = make_rollout([[[1.0, 2.0]]], [[1]], [[value]], [[0.5]], [[4.0]])
    with pytest.raises(NumericalError) as caught:
        make_learner(linear_network()).learn(rollout, progress=0.0)
    assert (
        str(caught.value)
        == f"PQN diverged: the loss of a rollout is {value}. Begin anew with --overwrite and a lower learning rate."
    )


def test_q_values_carry_no_gradient():
    learner = make_learner(linear_network())
    q_values = learner.q_values(torch.ones(5, 2))
    assert q_values.shape == (5, 3)
    assert not q_values.requires_grad


def test_the_defaults_are_those_of_the_paper_but_for_what_the_module_says():
    settings = PQNSettings()
    assert (settings.gamma, settings.return_lambda, settings.learning_rate) == (0.99, 0.65, 2.5e-4)
    assert (settings.num_epochs, settings.max_gradient_norm) == (2, 10.0)
    assert (settings.num_envs, settings.exploration_end, settings.steps_per_rollout) == (32, 0.05, 1024)


@pytest.mark.parametrize(
    ("progress", "epsilon"), [(0.0, 1.0), (0.05, 0.525), (0.1, 0.05), (0.5, 0.05), (1.0, 0.05), (1.2, 0.05)]
)
def test_exploration_falls_linearly_within_its_share_of_the_run(progress, epsilon):
    assert PQNSettings().exploration_epsilon(progress) == pytest.approx(epsilon)


def test_exploration_without_a_share_stands_at_its_end():
    assert PQNSettings(exploration_fraction=0.0).exploration_epsilon(0.0) == 0.05


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_envs": 0}, "num_envs must lie in [1, 4096], got 0."),
        ({"num_epochs": -1}, "num_epochs must be 1 or more, got -1."),
        ({"gamma": 1.5}, "gamma must lie in [0, 1], got 1.5."),
        ({"return_lambda": float("nan")}, "return_lambda must lie in [0, 1], got nan."),
        ({"exploration_fraction": -0.1}, "exploration_fraction must lie in [0, 1], got -0.1."),
        ({"learning_rate": 0.0}, "learning_rate must be > 0, got 0.0."),
        ({"max_gradient_norm": float("nan")}, "max_gradient_norm must be > 0, got nan."),
        ({"num_minibatches": 7}, "num_minibatches must divide num_envs × rollout_length, got 7 and 1024."),
    ],
)
def test_a_setting_out_of_range_is_refused(settings, message):
    with pytest.raises(UsageError) as caught:
        PQNSettings(**settings)
    assert str(caught.value) == message
