"""Networks that other libraries build themselves, and what of a policy fits into them: plain MLPs, and NatureCNN."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rldistill.errors import RldistillError
from rldistill.exports.formats import Export
from rldistill.networks import PolicyNetwork
from rldistill.networks.input_layer import ScaleInput
from rldistill.networks.layers import plain_layers
from rldistill.networks.output_layer import OutputRows
from rldistill.networks.torsos import ACTIVATIONS


@dataclass(frozen=True)
class DensePolicy:
    """A policy of linear layers, below them perhaps convolutions, each followed by an activation and nothing else."""

    convolutions: tuple[nn.Conv2d, ...]
    convolution_activations: tuple[type[nn.Module], ...]
    hidden: tuple[nn.Linear, ...]  # of torso and head
    activations: tuple[type[nn.Module], ...]  # after each of them
    output: nn.Linear
    rows: OutputRows
    input_scale: float


def dense_policy(export: Export, what: str) -> DensePolicy:
    """Return the layers of a policy that other libraries can hold.

    Raises:
        RldistillError: its network has other layers; says which, and what still works.
    """
    policy = export.policy
    network = policy.network
    assert isinstance(network, PolicyNetwork), "a module was refused before"
    scale, *layers, output, rows = plain_layers(network, policy.head)
    layers = [layer for layer in layers if not isinstance(layer, nn.Flatten)]
    pairs = list(zip(layers[::2], layers[1::2], strict=False))
    odd = [layer for layer, _ in pairs if not isinstance(layer, nn.Conv2d | nn.Linear)]
    odd += [layer for _, layer in pairs if type(layer) not in ACTIVATIONS.values()]
    if odd or len(layers) % 2:
        raise misfit(export, what, f"has a {type(odd[0] if odd else layers[-1]).__name__}")
    assert isinstance(output, nn.Linear) and isinstance(rows, OutputRows), "the last two layers"
    images = [(layer, type(own)) for layer, own in pairs if isinstance(layer, nn.Conv2d)]
    dense = [(layer, type(own)) for layer, own in pairs if isinstance(layer, nn.Linear)]
    return DensePolicy(
        tuple(layer for layer, _ in images),
        tuple(own for _, own in images),
        tuple(layer for layer, _ in dense),
        tuple(own for _, own in dense),
        output,
        rows,
        scale.scale if isinstance(scale, ScaleInput) else 1.0,
    )


def misfit(export: Export, what: str, why: str) -> RldistillError:
    """Return the error of a policy that a library cannot hold."""
    return RldistillError(
        f"--to {what}: the network of policy {export.policy.name!r} {why}, which the library cannot hold. --to onnx "
        "and --to torchscript still work."
    )


def constant_log_std(export: Export, found: DensePolicy) -> Tensor:
    """Return one spread for all states, `[D]`, for libraries whose Gaussians have no other.

    It is the policy's own where that does not depend on the state, and else its mean over observations of the dataset;
    without a dataset, and for policies without a spread, 0: a standard deviation of 1.
    """
    layer = found.rows.layer
    if layer.kind == "gaussian" and layer.gaussian.std in ("parameter", "fixed"):
        assert isinstance(found.rows.log_std, Tensor), "of these kinds a vector"
        return found.rows.log_std.detach().cpu().clone()
    if layer.kind != "gaussian" or export.calibration is None:
        return torch.zeros(layer.num_linear)
    log_std = export.policy(export.calibration.observations)[0].log_std
    assert log_std is not None, "a Gaussian has one"
    return log_std.mean(dim=0).cpu()


def copy_layers(sources: Sequence[nn.Module], targets: Sequence[nn.Module]) -> None:
    """Write weights and biases of linear layers and convolutions into others of the same shape."""
    for source, target in zip(sources, targets, strict=True):
        target.load_state_dict(source.state_dict())
