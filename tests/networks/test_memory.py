"""Where rows lie in memory changes nothing: they are brought to one place before they are computed with."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from rldistill.networks import Architecture, parse_architecture
from rldistill.networks.memory import AlignedLinear, aligned
from tests.kit.small_policies import small_policy, vector_task


def at_offset(num_bytes, shape, seed=0):
    """Return the same numbers every time, `num_bytes` behind a multiple of 64 bytes."""
    size = int(np.prod(shape))
    memory = torch.empty(size + 32)
    behind = (-memory.data_ptr() % 64 + num_bytes) // 4
    rows = memory[behind : behind + size].view(shape)
    rows.copy_(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))
    assert rows.data_ptr() % 64 == num_bytes
    return rows


@pytest.fixture
def inputs_of_layers(monkeypatch):
    """Collect what every linear layer gets, of one batch or of several at once."""
    found, linear, addmm = [], functional.linear, torch.addmm

    def spy(rows, *rest):
        found.append(rows)
        return linear(rows, *rest)

    def spy_on_blocks(bias, rows, *rest, **options):
        found.append(rows)
        return addmm(bias, rows, *rest, **options)

    monkeypatch.setattr(functional, "linear", spy)
    monkeypatch.setattr(torch, "addmm", spy_on_blocks)
    return found


@pytest.mark.parametrize("num_bytes", [0, 4, 8, 12, 16, 60])
def test_aligned_rows_begin_at_a_multiple_of_64_bytes_and_are_the_same_numbers(num_bytes):
    rows = at_offset(num_bytes, (5, 7))
    found = aligned(rows)
    assert (found.data_ptr() % 64, found.is_contiguous()) == (0, True)
    assert torch.equal(found, rows)
    assert (found is rows) is (num_bytes == 0)


def test_aligned_rows_are_contiguous_whatever_they_were():
    turned = at_offset(0, (7, 5)).T
    pictures = torch.zeros(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    for rows in (turned, turned[:, ::2], pictures):
        assert aligned(rows).is_contiguous()
        assert torch.equal(aligned(rows), rows)


def test_bytes_are_not_copied_only_for_their_place():
    frames = torch.zeros(65, dtype=torch.uint8)[1:]
    assert aligned(frames) is frames


@pytest.mark.parametrize("architecture", ["mlp:6x7", "mlp:8:5", Architecture("x", "mlp", (3,), value_head=True)])
@pytest.mark.parametrize("num_inputs", [4, 5, 97])
def test_each_row_of_each_layer_begins_at_a_multiple_of_16_bytes(inputs_of_layers, architecture, num_inputs):
    policy = small_policy(vector_task(num_inputs=num_inputs), network=architecture)
    policy(at_offset(12, (20, num_inputs)))
    assert len(inputs_of_layers) >= 2
    for rows in inputs_of_layers:
        assert (rows.data_ptr() % 16, rows.stride(0) * rows.itemsize % 16, rows.stride(1)) == (0, 0, 1)


def test_rows_that_are_moved_give_the_same_answers_and_gradients_need_no_move(inputs_of_layers):
    layer, rows = AlignedLinear(5, 3), at_offset(0, (20, 5))
    with torch.no_grad():
        moved = layer(rows)
    torch.testing.assert_close(moved, rows @ layer.weight.T + layer.bias)
    torch.testing.assert_close(layer(rows), moved)
    assert [found.stride(0) for found in inputs_of_layers] == [8, 5]


def test_parts_of_a_vector_are_moved_too():
    layer = AlignedLinear(4, 3)
    vectors = at_offset(0, (20, 9))
    with torch.no_grad():
        torch.testing.assert_close(layer(vectors[:, 5:]), vectors[:, 5:] @ layer.weight.T + layer.bias)


def test_weights_of_layers_keep_their_names():
    names = set(small_policy(network=parse_architecture("mlp:6")).network.state_dict())
    assert names == {"torso.1.weight", "torso.1.bias", "heads.0.output.weight", "heads.0.output.bias"}


@pytest.mark.parametrize("shape", [(7,), (5, 7), (3, 5, 7)])
@pytest.mark.parametrize("has_gradient", [True, False])
def test_a_layer_takes_any_leading_dimensions(shape, has_gradient):
    layer, rows = AlignedLinear(7, 3), torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.set_grad_enabled(has_gradient):
        torch.testing.assert_close(layer(rows), functional.linear(rows, layer.weight, layer.bias))
