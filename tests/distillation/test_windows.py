"""Windows of several steps: what is padded teaches nothing, and a memory begins anew where an episode does."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rldistill.data import Dataset
from rldistill.distillation import Distiller, HeldOut, StoredSource, Window
from rldistill.distillation.batch import make_window
from rldistill.losses import make_loss
from rldistill.schedules import constant
from rldistill.types import ActionLayout
from tests.data.made_up import make_provenance, write_dataset
from tests.kit.cart_pole import hand_made_teacher
from tests.kit.small_policies import small_policy, vector_task

TIME, BATCH = 5, 4


def gru(num_inputs: int = 2, num_actions: int = 3, *, width: int = 8):
    return small_policy(vector_task(num_actions, num_inputs), network=f"gru:{width}").network


def no_loss(student, target, progress):
    """Sources that only draw rows have no use for it."""
    raise AssertionError


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def window(*, is_real=None, is_first=None, seed: int = 0) -> Window:
    observations, targets = drawn(TIME, BATCH, 2, seed=seed), drawn(TIME, BATCH, 3, seed=seed + 1)
    return Window(0, {"observation": observations}, {"q_values": targets}, "", is_real=is_real, is_first=is_first)


def distiller(network=None, *, learning_rate: float = 0.0) -> Distiller:
    network = network or gru()
    return Distiller(
        network,
        {0: make_loss("q_mse", "q_values")},
        torch.optim.Adam(network.parameters(), lr=learning_rate),
        learning_rate=constant(learning_rate),
        parameters={},
        num_updates=1000,
        max_gradient_norm=10.0,
        precision="float32",
    )


NETWORKS = [
    pytest.param(gru, id="with a memory"),
    pytest.param(lambda: small_policy(vector_task(3, 2)).network, id="without"),
]


@pytest.mark.parametrize("make_network", NETWORKS)
def test_the_loss_of_a_window_is_the_mean_over_its_steps(make_network):
    network, batch = make_network(), window()
    record = distiller(network).update((batch,), 0)
    losses, state = [], network.initial_state(BATCH)
    for observations, targets in zip(batch.observations["observation"], batch.targets["q_values"], strict=True):
        output = network(observations, 0, state)
        losses.append((output.outputs - targets).square().sum(dim=1))
        state = output.state
    assert record.loss == pytest.approx(torch.stack(losses).mean().item())


@pytest.mark.parametrize("make_network", NETWORKS)
def test_padded_steps_count_nothing(make_network):
    is_real = torch.arange(TIME)[:, None] < torch.tensor([5, 3, 1, 4])
    batch, other = window(is_real=is_real), window(seed=7)
    noise = {
        name: torch.where(is_real[..., None], part, 1e6 * getattr(other, group)[name])
        for group in ("observations", "targets")
        for name, part in getattr(batch, group).items()
    }
    padded = replace(batch, observations={"observation": noise["observation"]}, targets={"q_values": noise["q_values"]})
    first, second = make_network(), make_network()
    records = [distiller(first).update((batch,), 0), distiller(second).update((padded,), 0)]
    assert records[0].loss == records[1].loss
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
    assert batch.num_steps == 13


def test_a_memory_begins_anew_where_an_episode_does():
    is_first = torch.zeros(TIME, BATCH, dtype=torch.bool)
    is_first[3] = True
    whole = window(is_first=is_first)
    observations, targets = whole.observations["observation"], whole.targets["q_values"]
    cuts = (slice(0, 3), slice(3, 5))
    parts = [Window(0, {"observation": observations[cut]}, {"q_values": targets[cut]}, "") for cut in cuts]
    losses = [distiller().update((part,), 0).loss for part in parts]
    assert distiller().update((whole,), 0).loss == pytest.approx((3 * losses[0] + 2 * losses[1]) / 5)
    assert distiller().update((window(),), 0).loss != pytest.approx((3 * losses[0] + 2 * losses[1]) / 5, rel=1e-3)


def test_in_a_mixed_batch_the_real_steps_of_all_tasks_count_alike():
    is_real = torch.arange(TIME)[:, None] < torch.tensor([2, 1, 1, 1])
    short, full = window(is_real=is_real), window(seed=5)
    alone = [distiller().update((part,), 0).loss for part in (short, full)]
    together = distiller().update((short, full), 0).loss
    assert together == pytest.approx((5 * alone[0] + 20 * alone[1]) / 25)


def test_measuring_windows_gives_the_loss_of_their_real_steps():
    is_real = torch.arange(TIME)[:, None] < torch.tensor([2, 1, 1, 1])
    batch = window(is_real=is_real)
    trained = distiller()
    held_out = HeldOut.of(batch, 5, ActionLayout.discrete(3), "q_values")
    assert trained.measure(held_out, 0).loss == pytest.approx(trained.update((batch,), 0).loss)


def test_stored_windows_hold_what_is_stored_and_mask_what_is_not(tmp_path):
    write_dataset(
        tmp_path / "d", make_provenance(vector=2, frame_stack=1), lengths=(7, 4, 1, 9, 3, 5, 5), steps_per_shard=6
    )
    dataset = Dataset.open(tmp_path / "d")
    source = StoredSource(dataset, seed=0, window_length=4)
    source.teach(0, hand_made_teacher(), no_loss)
    batch = source.draw(0, 256)
    assert batch.observations["observation"].shape == (4, 64, 2)
    assert batch.is_real is not None and batch.is_real[0].all() and not batch.is_real.all()
    rows, seen = batch.rows(batch.observations["observation"]).numpy(), dataset.observations(range(dataset.num_steps))
    steps = [int(np.flatnonzero((seen == row).all(axis=1))[0]) for row in rows]
    np.testing.assert_array_equal(batch.target_rows("q_values"), dataset.field("q_values")[steps])
    np.testing.assert_array_equal(batch.rows(batch.is_first), dataset.steps_in_episode[steps] == 0)


def test_padding_before_a_window_is_no_past_and_begins_nothing_itself():
    """Two windows of four after a burn-in of three: the first of an episode, and one of whose past nothing is held."""
    steps = np.array([[-1, -1, -1, 0, 1, 2, 3], [-1, -1, 9, 10, 11, -1, -1]]).T
    seen, network = drawn(20, 2).numpy(), gru()
    batch = make_window(
        steps,
        head=0,
        burn_in=3,
        observations=lambda chosen: {"observation": seen[chosen]},
        targets=lambda chosen: {"q_values": np.zeros((len(chosen), 3), np.float32)},
        steps_in_episode=np.arange(20),
        where="here",
        values={},
    )
    assert batch.is_first is not None
    assert batch.is_first.nonzero().tolist() == [[2, 1], [3, 0]]
    given = network.over_windows(batch.observations["observation"].flatten(0, 1), 2, 0, batch.is_first, 3).outputs
    for column, first, length in ((0, 0, 4), (1, 9, 3)):
        rows, state, alone = torch.from_numpy(seen[first : first + length]), None, []
        for row in rows:
            output = network(row[None], 0, state)
            state = output.state
            alone.append(output.outputs[0])
        held = 4 if column == 0 else 2
        torch.testing.assert_close(
            given.view(4, 2, -1)[:held, column], torch.stack(alone)[-held:], atol=1e-5, rtol=1e-4
        )


@pytest.mark.learning
def test_a_student_with_a_memory_learns_what_only_the_first_step_tells():
    """Targets repeat the first observation; later ones are noise. Without a memory the loss stays near 1 · 4 ÷ 5."""

    def batch(seed: int) -> Window:
        observations = drawn(TIME, 64, 1, seed=seed)
        targets = observations[:1].expand(TIME, 64, 1)
        is_first = torch.arange(TIME)[:, None].expand(TIME, 64) == 0
        inputs = torch.cat([observations, is_first[..., None].float()], dim=-1)
        return Window(0, {"observation": inputs}, {"q_values": targets}, "")

    networks = [gru(2, 1, width=16), small_policy(vector_task(1, 2), network="mlp:16").network]
    losses = []
    for network in networks:
        student = distiller(network, learning_rate=0.01)
        losses.append([student.update((batch(update),), update).loss for update in range(400)][-1])
    assert losses[0] < 0.1 < 0.6 < losses[1]
