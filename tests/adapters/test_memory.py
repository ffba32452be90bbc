"""A memory is told by what torch calls its weights, and by nothing that only sounds like one."""

import pytest
from torch import nn

from rldistill.adapters.contents import memory_among


@pytest.mark.parametrize(
    "layer", [nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell], ids=lambda layer: layer.__name__
)
def test_every_recurrent_layer_of_torch_is_one(layer):
    names = list(layer(4, 3).state_dict())
    assert memory_among(names) == names[0]
    assert memory_among(f"memory_a.rnn.{name}" for name in names) == f"memory_a.rnn.{names[0]}"


@pytest.mark.parametrize(
    "layer", [nn.Linear(4, 3), nn.MultiheadAttention(4, 2), nn.BatchNorm1d(4), nn.Bilinear(4, 4, 2)], ids=repr
)
def test_no_other_layer_is_one(layer):
    assert memory_among(layer.state_dict()) is None


def test_what_only_sounds_like_one_is_none():
    assert memory_among(["rnn.0.weight", "memory.weight", "lstm_features.bias", "weight_ihave.weight"]) is None
