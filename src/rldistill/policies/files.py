"""Load a policy from a file, checking everything a stranger could have got wrong."""

from pathlib import Path

import torch
from torch import Tensor, nn

from rldistill.errors import MismatchError, PolicyFileError, UsageError, first_line
from rldistill.networks import Network, PolicyNetwork
from rldistill.networks.foreign import holds_numbers
from rldistill.policies.file_format import unpack_policy
from rldistill.policies.spec import PolicySpec
from rldistill.policies.torch_policy import TorchPolicy, names_of_masks, stored_dtype
from rldistill.types import resolve_device


def load_policy(path: str | Path, *, device: str = "cpu", module: nn.Module | None = None) -> TorchPolicy:
    """Load a policy file; nothing in it is executed.

    Args:
        path: a `.safetensors` policy file.
        device: `auto`, `cpu` or `cuda`.
        module: for a file whose network is a module of one's own: that module, whose weights
            are replaced in place.

    Raises:
        PolicyFileError: missing, truncated, altered, not a policy, not the shapes it declares, or
            it needs a module and got none (or the other way round).
    """
    path = Path(path)
    description, weights = unpack_policy(path)
    try:
        spec = PolicySpec.from_dict(description)
        network = _empty_network(path, spec, module)
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        IndexError,
        RuntimeError,  # torch, for sizes beyond its integers
        UsageError,
        MismatchError,
    ) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else first_line(error)
        raise PolicyFileError(f"Policy file {path}: its description does not make a network ({reason}).") from error
    _check_weights(path, network, weights, spec.stored_dtype)
    # Copied: a file's tensors lie where the file has them, and where weights lie may change an answer's last bits.
    state = {name: tensor.to(stored_dtype(tensor, torch.float32), copy=True) for name, tensor in weights.items()}
    network.load_state_dict(state, assign=module is None)
    network.requires_grad_(True)
    if isinstance(network, PolicyNetwork):
        network.use_channels_last()
    return TorchPolicy(network, spec).to(resolve_device(device))


def _empty_network(path: Path, spec: PolicySpec, module: nn.Module | None) -> Network:
    """Return the network that a file declares, with any weights."""
    if spec.architecture is None:
        if module is None:
            raise PolicyFileError(
                f"Policy file {path} holds the weights of a module of its maker's own, {spec.module}, whose code no "
                "file carries. Load it in Python: load_policy(path, module=…)."
            )
        initial = [torch.zeros(shape) for shape in spec.module_state]
        return spec.network_around(module, spec.empty_normalizations[0], initial)
    if module is not None:
        raise PolicyFileError(f"Policy file {path} describes its own network ({spec.name}): leave module= out.")
    # On the meta device a network of any declared size costs nothing until its shapes are checked.
    with torch.device("meta"):
        return spec.make_network(spec.empty_normalizations)


def _check_weights(path: Path, network: Network, weights: dict[str, Tensor], dtype: torch.dtype) -> None:
    expected = {name: _kind(tensor.shape, stored_dtype(tensor, dtype)) for name, tensor in network.state_dict().items()}
    got = {name: _kind(tensor.shape, tensor.dtype) for name, tensor in weights.items()}
    if expected != got:
        wrong = sorted(name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name))
        listing = ", ".join(
            f"{name} {got.get(name, 'missing')} instead of {expected.get(name, 'nothing')}" for name in wrong[:4]
        )
        raise PolicyFileError(f"Policy file {path}: its weights do not fit the network it declares: {listing}.")
    masks = names_of_masks(network)
    for name, tensor in weights.items():
        if not holds_numbers(tensor.float(), may_be_infinite=name in masks):
            raise PolicyFileError(f"Policy file {path}: weight {name} holds NaN or infinity. Its training diverged.")


def _kind(shape: torch.Size, dtype: torch.dtype) -> str:
    return f"{str(dtype).removeprefix('torch.')} {list(shape)}"
