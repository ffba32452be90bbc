"""The files of CleanRL's scripts in JAX (`.cleanrl_model` of flax), read without JAX.

flax writes MessagePack: maps of parameters by the names of their modules, arrays as an extension type of its own. Read
are the files of dqn_jax, dqn_atari_jax, c51_jax, c51_atari_jax, ppo_atari_envpool_xla_jax (and its scan), and, where
the task says the bounds of its actions, ddpg_continuous_action_jax and td3_continuous_action_jax. Layouts: a dense
kernel is `[I, O]`, a convolution's `[k, k, C, O]`; behind convolutions, flax flattens images by rows, columns,
channels, torch by channels, rows, columns. Layout as of CleanRL's commit fe8d8a03 and flax 0.12.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import msgpack
import numpy as np
import torch
from torch import Tensor

from rldistill.adapters.arrays import build_array
from rldistill.adapters.cleanrl import found_of_choices
from rldistill.adapters.contents import KERNELS, STRIDES, UnknownLayersError
from rldistill.adapters.formats import FoundNetwork, Said
from rldistill.checks import is_finite
from rldistill.errors import PolicyFileError, first_line, shown
from rldistill.limits import TOO_MUCH, BeyondLimitsError
from rldistill.networks import ValueAtoms
from rldistill.networks.layers import Layer, NetworkLayers
from rldistill.types import ActionLayout

# A map whose first key is one of those that CleanRL's files begin with: parameters, a list (by index), weights of c51.
_START = re.compile(rb"[\x81-\x8f](\xa6params|\xa10|\xadmodel_weights)")
# Extension types of flax: an array, a NumPy scalar.
_ARRAY, _SCALAR = 1, 3
_DTYPES = frozenset({"float16", "float32", "float64", "int32", "int64", "uint32", "bool"})
# Of maps and lists: a network has two for each layer.
_MOST_CONTAINERS, _MOST_ENTRIES = 4096, 4096


def is_flax(head: bytes) -> bool:
    """Does a file begin as those of CleanRL's scripts in JAX do?"""
    return _START.match(head) is not None


def read_flax(data: bytes, *, source: str) -> object:
    """Read what flax wrote, as data: numbers, texts and tensors in maps.

    Raises:
        PolicyFileError: damaged, or it asks more of its reader than a policy needs.
    """
    num_containers = 0

    def counted(container: Any) -> Any:  # noqa: ANN401 (whatever the file holds)
        nonlocal num_containers
        num_containers += 1
        if num_containers > _MOST_CONTAINERS:
            raise BeyondLimitsError(f"holds more than {_MOST_CONTAINERS:,} maps and lists")
        return container

    most: dict[str, Any] = {"max_map_len": _MOST_ENTRIES, "max_array_len": _MOST_ENTRIES}
    try:
        return msgpack.unpackb(data, ext_hook=_array, object_hook=counted, list_hook=counted, **most)
    except BeyondLimitsError as error:
        raise PolicyFileError(f"{source} is refused: it {error}. {TOO_MUCH}") from error
    except Exception as error:  # msgpack raises ValueError, its own types, and whatever `_array` meets
        raise PolicyFileError(
            f"{source} cannot be read: it is no whole file of flax ({first_line(error)}). Fetch it again."
        ) from error


def _array(code: int, data: bytes) -> Tensor | float:
    """Return an array of flax as a tensor, a scalar as a number."""
    if code not in (_ARRAY, _SCALAR):
        raise ValueError(f"an extension of type {code}")
    shape, dtype, content = msgpack.unpackb(data)
    if dtype not in _DTYPES:
        raise ValueError("an array that is none of numbers")
    array = build_array(shape, np.dtype(dtype), content, fortran=False)
    return torch.from_numpy(array) if code == _ARRAY else array.item()


def find_flax(content: object, said: Said) -> FoundNetwork | None:
    """Return the network that acts in a file of CleanRL's scripts in JAX; None where it is no such file.

    Raises:
        UnknownLayersError: other layers than those of the scripts.
    """
    if not isinstance(content, Mapping):
        return None
    parts = cast(Mapping[str, Any], content)
    weights = parts.get("model_weights", parts)
    if _modules(weights):
        *torso, output = _layers(_modules(weights))
        args = parts.get("args", {})
        return _c51(torso, output, args) if "n_atoms" in args else found_of_choices("dqn", torso, output, ending="_jax")
    networks = parts.get("1")
    if isinstance(networks, Mapping) and all(_modules(networks.get(place)) for place in ("0", "1", "2")):
        torso, (actor,), (critic,) = (_layers(_modules(networks[place])) for place in ("0", "1", "2"))
        found = found_of_choices("ppo", torso, actor, ending="_jax")
        return replace(found, layers=replace(found.layers, kind="logits", value=critic), behaviour="sample")
    if _modules(parts.get("0")):
        *torso, output = _layers(_modules(parts["0"]))
        layers = NetworkLayers(tuple(torso), output, "actions")
        return FoundNetwork("CleanRL", "td3_continuous_action_jax", layers, _box(said, len(output.bias)))
    return None


def _box(said: Said, num_actions: int) -> ActionLayout | None:
    """Return the task's box, to which the scripts rescale tanh; None: there is no task of such actions."""
    layout = said.action_layout
    if layout is None or (layout.kind, layout.sizes) != ("box", (num_actions,)):
        return None
    if not layout.is_bounded:
        raise UnknownLayersError("actions behind a tanh, and a task whose actions have no bounds")
    return replace(layout, mapping="tanh_rescale")


def _c51(torso: Sequence[Layer], output: Layer, args: Mapping[str, Any]) -> FoundNetwork:
    low, high, count = (args.get(name) for name in ("v_min", "v_max", "n_atoms"))
    num_outputs = len(output.bias)
    if not (is_finite(low) and is_finite(high) and isinstance(count, int) and count > 1 and num_outputs % count == 0):
        raise UnknownLayersError(f"{num_outputs} outputs for {shown(count)} atoms")
    found = found_of_choices("c51", torso, output, ending="_jax")
    layers = replace(found.layers, atoms=ValueAtoms(float(low), float(high), count))
    return replace(found, layers=layers, layout=ActionLayout.discrete(num_outputs // count))


def _modules(part: object) -> Mapping[str, Any]:
    """Return the modules of a network's parameters; nothing where a part holds none."""
    modules = cast(Mapping[str, Any], part).get("params") if isinstance(part, Mapping) else None
    return cast(Mapping[str, Any], modules) if isinstance(modules, Mapping) else {}


def _layers(modules: Mapping[str, Any]) -> list[Layer]:
    """Return convolutions, then dense layers, in torch's layout."""
    names = [f"{kind}_{index}" for kind in ("Conv", "Dense") for index in range(len(modules))]
    ordered = [name for name in names if name in modules]
    if len(ordered) < len(modules):
        raise UnknownLayersError(f"{', '.join(sorted(set(modules) - set(ordered))[:6])} among its modules")
    layers = [_layer(name, modules[name]) for name in ordered]
    convolutions = [layer for layer in layers if layer.is_convolution]
    if convolutions:
        if tuple(layer.weight.shape[2] for layer in convolutions) != KERNELS or len(layers) == len(convolutions):
            raise UnknownLayersError("convolutions that are not those of Mnih et al. 2015")
        strided = [replace(layer, stride=stride) for layer, stride in zip(convolutions, STRIDES, strict=True)]
        channels, dense = len(convolutions[-1].weight), layers[len(convolutions)]
        side = math.isqrt(dense.weight.shape[1] // channels)
        if side * side * channels != dense.weight.shape[1]:
            raise UnknownLayersError(f"{dense.weight.shape[1]} inputs behind {channels} channels")
        by_pixel = dense.weight.reshape(-1, side, side, channels).permute(0, 3, 1, 2)
        layers[: len(strided) + 1] = [*strided, replace(dense, weight=by_pixel.flatten(1).contiguous())]
    return layers


def _layer(name: str, module: object) -> Layer:
    tensors = cast(Mapping[str, Any], module) if isinstance(module, Mapping) else {}
    kernel, bias = tensors.get("kernel"), tensors.get("bias")
    dims = 4 if name.startswith("Conv") else 2
    if not (isinstance(kernel, Tensor) and isinstance(bias, Tensor) and kernel.dim() == dims and len(tensors) == 2):
        raise UnknownLayersError(f"{name} has {', '.join(tensors) or 'nothing'}, expected kernel and bias")
    return Layer(kernel.permute(3, 2, 0, 1).contiguous() if dims == 4 else kernel.T.contiguous(), bias)
