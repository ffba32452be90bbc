"""Networks that remember: the cells are those of PyTorch, the stack is the last observations, sizes are exact."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from rldistill.errors import UsageError
from rldistill.networks import measure_size, parse_architecture
from rldistill.networks.recurrent import RecurrentCell, Stack
from rldistill.policies import TorchPolicy, load_policy
from tests.kit.small_policies import small_policy, vector_task


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("kind", "theirs"), [("gru", nn.GRUCell), ("lstm", nn.LSTMCell)])
def test_cells_compute_what_those_of_pytorch_do(kind, theirs):
    ours, cell = RecurrentCell(kind, 3, 5), theirs(3, 5)
    weights = dict(cell.named_parameters())
    names = {"input": "ih", "recurrent": "hh"}
    ours.load_state_dict(
        {f"{own}.{what}": weights[f"{what}_{name}"] for own, name in names.items() for what in ("weight", "bias")}
    )
    state, expected = ours.initial_state(4), None
    for step in range(6):
        rows = drawn(4, 3, seed=step)
        hidden, state = ours(rows, state)
        expected = cell(rows, expected)
        torch.testing.assert_close(hidden, expected if kind == "gru" else expected[0])


def test_a_stack_is_the_last_observations_oldest_first_and_zeros_before_the_first():
    stack, earlier = Stack(3, 2), torch.zeros(1, 4)
    seen = []
    for step in range(1, 5):
        stacked, earlier = stack(torch.full((1, 2), float(step)), earlier)
        seen.append(stacked[0, ::2].tolist())
    assert seen == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]


@pytest.mark.parametrize(
    ("name", "num_parameters", "num_macs"),
    [
        # 4 inputs, 3 outputs: gates see 4 or 6 features and 5 units; 32 x 5 and so on by hand.
        ("gru:5", 15 * 4 + 15 * 5 + 30 + 18, 15 * 4 + 15 * 5 + 15),
        ("lstm:5", 20 * 4 + 20 * 5 + 40 + 18, 20 * 4 + 20 * 5 + 15),
        ("mlp:6+gru:5", 30 + 15 * 6 + 15 * 5 + 30 + 18, 24 + 15 * 6 + 15 * 5 + 15),
        ("stack:3+mlp:6", 78 + 21, 72 + 18),
    ],
)
def test_sizes_of_networks_that_remember_are_counted_exactly(name, num_parameters, num_macs):
    size = measure_size(small_policy(vector_task(3, 4), network=name).network)
    assert (size.num_parameters, size.num_macs) == (num_parameters, num_macs)


@pytest.mark.parametrize(
    ("name", "num_layers"), [("gru:5", 1), ("lstm:5", 1), ("mlp:6+gru:5", 1), ("stack:3+mlp:6", 1), ("lstm:5", 3)]
)
def test_windows_at_once_give_what_step_by_step_does(name, num_layers):
    """Episodes begin within windows, and the first two steps only fill the memory: no gradient goes back to them."""
    architecture = replace(parse_architecture(name), memory_layers=num_layers)
    generator = torch.Generator().manual_seed(0)
    network = TorchPolicy.create(architecture, [vector_task(3, 2)], zero_output=False, generator=generator).network
    observations, begins = drawn(7, 4, 2), torch.zeros(7, 4, dtype=torch.bool)
    begins[[0, 3, 4], [1, 1, 2]] = True

    def gradients(outputs):
        return torch.autograd.grad(outputs.square().mean(), list(network.parameters()), allow_unused=True)

    state, initial, rows = network.initial_state(4), network.initial_state(4), []
    for time, (now, is_first) in enumerate(zip(observations, begins, strict=True)):
        state = tuple(torch.where(is_first[:, None], new, old) for old, new in zip(state, initial, strict=True))
        with torch.set_grad_enabled(time >= 2):
            output = network(now, 0, state)
        state = output.state
        rows += [output.outputs] if time >= 2 else []
    at_once = network.over_windows(observations.flatten(0, 1), 4, 0, begins, burn_in=2).outputs
    torch.testing.assert_close(at_once, torch.cat(rows))
    for one, other in zip(gradients(at_once), gradients(torch.cat(rows)), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["gru:5", "lstm:5", "mlp:6+gru:5", "stack:3+mlp:6"])
def test_a_policy_that_remembers_is_saved_and_loaded_and_keeps_the_state_of_each_environment_apart(name, tmp_path):
    policy = small_policy(vector_task(3, 4), network=name)
    policy.save(tmp_path / "p.safetensors")
    loaded = load_policy(tmp_path / "p.safetensors")
    assert loaded.hash == policy.hash
    together, alone = loaded.initial_state(3), policy.initial_state(1)
    assert together is not None
    for step in range(5):
        rows = drawn(3, 4, seed=step)
        output, together = loaded(rows, together)
        single, alone = policy(rows[1:2], alone)
        assert torch.equal(output.raw[1:2], single.raw)
    assert not torch.equal(policy(rows)[0].raw, output.raw)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rnn:16", r"got 'rnn:16', expected gru:16, lstm:32, mlp:32\+gru:16"),
        ("gru", r"got 'gru', expected gru:16"),
        ("mlp:32+gru", r"got 'mlp:32\+gru', expected gru:16"),
        ("mlp:32+lstm:4+gru:4", r"expected gru:16"),
        ("stack:1+mlp:8", r"a stack is of 2 to 256 observations, got 1"),
        ("stack:4+conv:8:8", r"a stack is of 2 or more observations that are vectors, and goes with an mlp"),
        ("mpl:32+gru:4", r"Did you mean 'mlp:32'\?"),
    ],
)
def test_a_memory_that_is_misspelt_is_refused_with_what_there_is(text, message):
    with pytest.raises(UsageError, match=message):
        parse_architecture(text)


def test_convolutions_may_have_a_memory_above_them():
    architecture = parse_architecture("conv:8-8-8:32+gru:64")
    assert (architecture.kind, architecture.memory, architecture.memory_size) == ("conv", "gru", 64)
    assert type(architecture).from_dict(architecture.to_dict()) == architecture


@pytest.mark.parametrize("name", ["gru:5", "lstm:5", "stack:3+mlp:6"])
def test_each_head_above_a_memory_is_its_own(name):
    network = small_policy(vector_task(3, 2, "a"), vector_task(3, 2, "b"), network=name).network
    rows = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    each = [network(rows, head, network.initial_state(4)).outputs for head in (0, 1)]
    assert not torch.equal(*each)
    for head, expected in enumerate(each):
        torch.testing.assert_close(network.over_windows(rows, 4, head, None, 0).outputs, expected)
