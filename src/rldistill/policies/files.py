"""Load a policy from a file, checking everything a stranger could have got wrong."""

from pathlib import Path

import torch
from torch import Tensor

from rldistill.errors import PolicyFileError, RldistillError
from rldistill.networks import PolicyNetwork
from rldistill.policies.file_format import unpack_policy
from rldistill.policies.spec import PolicySpec
from rldistill.policies.torch_policy import TorchPolicy
from rldistill.types import resolve_device


def load_policy(path: str | Path, *, device: str = "cpu") -> TorchPolicy:
    """Load a policy file; nothing in it is executed.

    Args:
        path: a `.safetensors` policy file.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        PolicyFileError: missing, truncated, altered, not a policy, not the shapes it declares.
    """
    path = Path(path)
    description, weights = unpack_policy(path)
    try:
        spec = PolicySpec.from_dict(description)
        # On the meta device a network of any declared size costs nothing until its shapes are checked.
        with torch.device("meta"):
            network = PolicyNetwork(
                spec.architecture, spec.observation_shape, spec.head_sizes, input_scale=spec.input_scale
            )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RldistillError) as error:
        raise PolicyFileError(f"Policy file {path}: its description does not make a network ({error}).") from error
    _check_weights(path, network, weights)
    network.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    network.use_channels_last()
    return TorchPolicy(network, spec).to(resolve_device(device))


def _check_weights(path: Path, network: PolicyNetwork, weights: dict[str, Tensor]) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    got = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if expected != got:
        wrong = sorted(name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name))
        listing = ", ".join(
            f"{name} {got.get(name, 'missing')} instead of {expected.get(name, 'nothing')}" for name in wrong[:4]
        )
        raise PolicyFileError(f"Policy file {path}: its weights do not fit the network it declares: {listing}.")
    for name, tensor in weights.items():
        if not torch.isfinite(tensor.float()).all():
            raise PolicyFileError(f"Policy file {path}: weight {name} holds NaN or infinity. Its training diverged.")
