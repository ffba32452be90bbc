"""The one loop: what an update does to the weights, by hand, and what it does when a number is not finite."""

import math
from collections.abc import Generator
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rldistill.distillation import OPTIMIZERS, Distiller, HeldOut, Minibatch, Window, distil
from rldistill.distillation.likeness import Likeness
from rldistill.errors import NumericalError
from rldistill.losses import make_loss
from rldistill.losses.on_policy import score_term
from rldistill.networks import ModuleNetwork
from rldistill.schedules import constant, linear
from rldistill.types import ActionLayout
from tests.kit.small_policies import small_policy, vector_task


def squared_error(student, target):
    return ((student - target) ** 2).sum(dim=1)


def make_network() -> ModuleNetwork:
    """One input, two outputs: the input times 1, and the input times 0."""
    module = nn.Linear(1, 2, bias=False)
    module.weight.data = torch.tensor([[1.0], [0.0]])
    return ModuleNetwork(module, (1,), 2)


def make_distiller(network=None, *, loss=squared_error, learning_rate=None, max_gradient_norm=100.0, **options):
    network = network or make_network()
    return Distiller(
        network,
        {0: make_loss(loss, "q_values")},
        torch.optim.SGD(network.parameters(), lr=1.0),
        learning_rate=learning_rate or constant(0.1),
        parameters={0: options},
        num_updates=10,
        max_gradient_norm=max_gradient_norm,
        precision="float32",
    )


# By hand: outputs [2, 0] and [1, 0], errors [1, -1] and [1, 0], losses 2 and 1, and the mean gradient is
# (2·1·2 + 2·1·1) ÷ 2 = 3 for the first weight and (2·(−1)·2) ÷ 2 = −2 for the second.
OBSERVATIONS, TARGETS = torch.tensor([[2.0], [1.0]]), torch.tensor([[1.0, 1.0], [0.0, 0.0]])


def single_steps(head, observations, targets, origin="") -> Window:
    return Window.of_steps(head, {"observation": observations}, {"q_values": targets}, origin)


BATCH = single_steps(0, OBSERVATIONS, TARGETS, "steps 0, 1 of d")


def weights(distiller) -> list[float]:
    return distiller.network.module.weight.flatten().tolist()


def test_an_update_steps_down_the_mean_gradient_of_the_batch():
    distiller = make_distiller()
    record = distiller.update((BATCH,), 0)
    assert weights(distiller) == pytest.approx([1 - 0.1 * 3, 0 + 0.1 * 2])
    assert record.loss == 1.5
    assert record.gradient_norm == pytest.approx(math.sqrt(13))
    assert (record.update, record.heads, record.learning_rate, record.parameters) == (0, (0,), 0.1, ({},))


def test_a_gradient_that_is_too_long_keeps_its_direction():
    distiller = make_distiller(max_gradient_norm=1.0)
    record = distiller.update((BATCH,), 0)
    assert weights(distiller) == pytest.approx([1 - 0.1 * 3 / math.sqrt(13), 0.1 * 2 / math.sqrt(13)], rel=1e-5)
    assert record.gradient_norm == pytest.approx(math.sqrt(13)), "the norm before it was clipped"


@pytest.mark.parametrize("share", [0.5, 0.9985, 0.9995, 1.0, 1.0000005, 1.5])
def test_clipping_that_is_left_out_would_have_multiplied_by_one(share):
    norm = make_distiller().update((BATCH,), 0).gradient_norm
    distiller, expected = make_distiller(max_gradient_norm=norm / share), make_distiller()
    distiller.update((BATCH,), 0)
    module = expected.network.module
    expected.network.zero_grad()
    squared_error(module(OBSERVATIONS), TARGETS).mean().backward()
    torch.nn.utils.clip_grad_norm_(module.parameters(), norm / share)
    module.weight.data -= 0.1 * module.weight.grad
    assert weights(distiller) == weights(expected)


def test_doubling_the_batch_changes_nothing():
    once, twice = make_distiller(), make_distiller()
    doubled = single_steps(0, OBSERVATIONS.repeat(2, 1), TARGETS.repeat(2, 1))
    assert once.update((BATCH,), 0).loss == twice.update((doubled,), 0).loss
    assert weights(once) == weights(twice)


def test_gradients_do_not_add_up_over_updates():
    distiller = make_distiller(learning_rate=constant(0.0))
    norms = [distiller.update((BATCH,), update).gradient_norm for update in range(3)]
    assert norms[0] == norms[1] == norms[2]


def test_schedules_are_read_at_the_updates_share_of_the_run():
    temperature = linear(2.0, 1.0)
    distiller = make_distiller(loss="sharpened_kl", learning_rate=linear(1.0, 0.0), temperature=temperature)
    records = [distiller.update((BATCH,), update) for update in (0, 5, 9)]
    assert [record.learning_rate for record in records] == pytest.approx([1.0, 0.5, 0.1])
    assert [record.parameters[0]["temperature"] for record in records] == pytest.approx([2.0, 1.5, 1.1])


def test_the_schedules_temperature_reaches_the_loss():
    low, high = (make_distiller(loss="sharpened_kl", temperature=constant(value)) for value in (0.5, 2.0))
    expected = [
        float(make_loss("sharpened_kl", "q_values", temperature=value)(torch.tensor([[2.0, 0.0]]), TARGETS[:1]))
        for value in (0.5, 2.0)
    ]
    one_row = single_steps(0, OBSERVATIONS[:1], TARGETS[:1])
    assert [low.update((one_row,), 0).loss, high.update((one_row,), 0).loss] == pytest.approx(expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_update_and_rows_and_changes_no_weight(bad):
    distiller = make_distiller(loss=lambda student, target: squared_error(student, target) * bad)
    with pytest.raises(NumericalError) as caught:
        distiller.update((BATCH,), 7)
    line = str(caught.value)
    assert line.startswith(f"Update 7 diverged: loss {bad:g}, gradient norm ")
    assert "on a batch of steps 0, 1 of d. The weights before it are kept." in line
    assert weights(distiller) == [1.0, 0.0]


def test_an_update_that_fails_leaves_running_statistics_as_they_were():
    network = ModuleNetwork(nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 2)), (1,), 2)
    distiller = make_distiller(network, loss=lambda student, target: squared_error(student, target) * math.nan)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(NumericalError):
        distiller.update((BATCH,), 0)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_gradient_that_is_not_finite_is_stopped_though_the_loss_is_fine():
    # The square root of 0 is 0, its slope is not.
    distiller = make_distiller(loss=lambda student, _target: (student[:, 1] * 0).sqrt())
    with pytest.raises(NumericalError, match="loss 0, gradient norm nan"):
        distiller.update((BATCH,), 0)
    assert weights(distiller) == [1.0, 0.0]


def test_measuring_gives_loss_and_agreement_of_all_rows_and_teaches_nothing():
    distiller = make_distiller()
    # Greedy actions: the student's is 0 in both rows; the teacher's are 0 (a tie: the first counts) and 1.
    held_out = single_steps(0, torch.tensor([[2.0], [1.0]]), torch.tensor([[1.0, 1.0], [0.0, 3.0]]))
    measured = distiller.measure(HeldOut.of(held_out, 2, ActionLayout.discrete(2), "q_values"), 3)
    assert measured.loss == (2 + (1 + 9)) / 2
    assert measured.likeness == Likeness("agreement", 0.5)
    assert weights(distiller) == [1.0, 0.0]
    assert distiller.network.module.weight.grad is None


def test_measuring_many_rows_in_parts_gives_their_mean():
    distiller = make_distiller()
    rows = torch.arange(1000.0)[:, None]
    measured = distiller.measure(
        HeldOut.of(single_steps(0, rows, torch.zeros(1000, 2)), 1000, ActionLayout.discrete(2), "q_values"), 0
    )
    assert measured.loss == pytest.approx(float((rows**2).mean()))


def same_batch(num_updates: int) -> Generator[Minibatch]:
    for _ in range(num_updates):
        yield (BATCH,)


def test_the_loop_numbers_its_updates_from_where_it_goes_on():
    records = list(distil(make_distiller(), same_batch(3), first_update=7))
    assert [record.update for record in records] == [7, 8, 9]


def test_going_on_from_a_saved_state_is_bit_equal_to_not_stopping():
    for name in OPTIMIZERS:
        states = []
        for stops in ((10,), (4, 10)):
            distiller, at = None, 0
            for stop in stops:
                network = small_policy(vector_task(num_actions=2, num_inputs=1)).network
                fresh = Distiller(
                    network,
                    {0: make_loss("q_mse", "q_values")},
                    OPTIMIZERS[name](network.parameters(), 0.1, 0.01),
                    learning_rate=linear(0.1, 0.0),
                    parameters={},
                    num_updates=10,
                    max_gradient_norm=1.0,
                    precision="float32",
                )
                if distiller is not None:
                    fresh.load_state_dict(distiller.state_dict())
                distiller = fresh
                list(distil(distiller, same_batch(stop - at), first_update=at))
                at = stop
            states.append(distiller.state_dict()["network"])
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0]), name


def test_leaving_the_loop_early_closes_the_source():
    batches = same_batch(10)
    records = distil(make_distiller(), batches)
    next(records)
    records.close()
    assert next(batches, None) is None


def test_each_head_is_taught_by_its_own_loss_and_leaves_the_others_alone():
    distiller = two_headed_distiller("nll", max_gradient_norm=1.0)
    before = {name: tensor.clone() for name, tensor in distiller.network.state_dict().items()}
    record = distiller.update((single_steps(1, OBSERVATIONS, TARGETS),), 0)
    assert (record.heads, record.parameters) == ((1,), ({"temperature": 0.5},))
    after = distiller.network.state_dict()
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert {name for name in changed if name.startswith("heads.")} == {"heads.1.output.weight", "heads.1.output.bias"}


def two_headed_distiller(first_loss: str = "q_mse", max_gradient_norm: float = 100.0) -> Distiller:
    policy = small_policy(vector_task(2, 1, "first"), vector_task(2, 1, "second"))
    return Distiller(
        policy.network,
        {0: make_loss(first_loss, "q_values"), 1: make_loss("sharpened_kl", "q_values")},
        torch.optim.SGD(policy.network.parameters(), lr=0.1),
        learning_rate=constant(0.1),
        parameters={1: {"temperature": constant(0.5)}},
        num_updates=10,
        max_gradient_norm=max_gradient_norm,
        precision="float32",
    )


def test_in_a_mixed_batch_every_row_counts_alike_whichever_task_it_belongs_to():
    first = single_steps(0, OBSERVATIONS, TARGETS)
    second = single_steps(1, OBSERVATIONS.repeat(3, 1), TARGETS.repeat(3, 1))
    alone = [two_headed_distiller().update((part,), 0).loss for part in (first, second)]
    record = two_headed_distiller().update((first, second), 0)
    assert record.heads == (0, 1)
    assert record.parameters == ({}, {"temperature": 0.5})
    assert record.losses == pytest.approx(alone)
    assert record.loss == pytest.approx((2 * alone[0] + 6 * alone[1]) / 8)


def test_a_mixed_batch_that_diverges_names_the_rows_of_all_its_tasks():
    first = single_steps(0, OBSERVATIONS, TARGETS * math.nan, "steps 0 of a")
    second = single_steps(1, OBSERVATIONS, TARGETS, "steps 5 of b")
    with pytest.raises(NumericalError, match=r"on a batch of steps 0 of a and steps 5 of b\."):
        two_headed_distiller().update((first, second), 0)


def test_what_followed_is_part_of_the_gradient():
    layout = ActionLayout.discrete(2)

    def step(future):
        network = make_network()
        own = Distiller(
            network,
            {0: make_loss("nll", "q_values", layout)},
            torch.optim.SGD(network.parameters(), lr=1.0),
            learning_rate=constant(1.0),
            parameters={},
            num_updates=10,
            max_gradient_norm=1e9,
            precision="float32",
        )
        own.update((replace(BATCH, actions=torch.tensor([[1, 0]]), future=torch.tensor([future])),), 0)
        return network.module.weight.detach()

    weight = make_network().module.weight
    rows = score_term(OBSERVATIONS @ weight.T, torch.tensor([1, 0]), torch.tensor([4.0, 1.0]), layout)
    (gradient,) = torch.autograd.grad(rows.mean(), weight)
    torch.testing.assert_close(step([4.0, 1.0]), step([0.0, 0.0]) - gradient)


def test_a_balance_makes_the_gradient_and_is_told_the_shares():
    distiller, told = two_headed_distiller(), []

    def backward(losses, shares, heads):
        told.append((shares, heads))
        losses[1].backward()

    distiller._balance = SimpleNamespace(backward=backward)
    more = single_steps(1, OBSERVATIONS.repeat(3, 1), TARGETS.repeat(3, 1))
    distiller.update((single_steps(0, OBSERVATIONS, TARGETS), more), 0)
    assert told == [([0.25, 0.75], [0, 1])]
    assert distiller.network.heads[0].output.weight.grad is None


def test_a_loss_on_held_out_steps_that_is_not_finite_names_update_and_rows():
    distiller = make_distiller()
    far = single_steps(0, OBSERVATIONS, TARGETS * 1e30, "steps 3, 4 of d")
    held_out = HeldOut.of(far, 2, ActionLayout.discrete(2), "q_values")
    with pytest.raises(NumericalError, match=r"^After update 7 .* loss inf, on steps 3, 4 of d\. Begin anew"):
        distiller.measure(held_out, 7)


def test_outputs_that_are_not_numbers_on_held_out_steps_name_update_and_rows():
    distiller = make_distiller()
    torch.nn.init.constant_(distiller.network.module.weight, float("nan"))
    held_out = HeldOut.of(single_steps(0, OBSERVATIONS, TARGETS, "d"), 2, ActionLayout.discrete(2), "q_values")
    with pytest.raises(NumericalError, match=r"^After update 7 the student diverged .*: loss nan, on d\. Begin anew"):
        distiller.measure(held_out, 7)
