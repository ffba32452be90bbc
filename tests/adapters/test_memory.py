"""A memory is told by what torch calls its weights, and by nothing that only sounds like one."""

import pytest
from torch import nn

from rldistill.adapters.contents import refuse_memory
from rldistill.errors import PolicyFileError


@pytest.mark.parametrize(
    "layer", [nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell], ids=lambda layer: layer.__name__
)
def test_every_recurrent_layer_of_torch_is_one(layer):
    names = list(layer(4, 3).state_dict())
    for before in ("", "memory_a.rnn."):
        with pytest.raises(PolicyFileError, match=f"^x is recurrent: it has {before}{names[0]}"):
            refuse_memory("x", [f"{before}{name}" for name in names])


@pytest.mark.parametrize(
    "layer", [nn.Linear(4, 3), nn.MultiheadAttention(4, 2), nn.BatchNorm1d(4), nn.Bilinear(4, 4, 2)], ids=repr
)
def test_no_other_layer_is_one(layer):
    refuse_memory("x", layer.state_dict())


def test_what_only_sounds_like_one_is_none():
    refuse_memory("x", ["rnn.0.weight", "memory.weight", "lstm_features.bias", "weight_ihave.weight"])
