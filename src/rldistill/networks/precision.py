"""Which numbers a network is trained in: a fixed rule of device and processor, never a timing."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import torch

from rldistill.errors import UsageError

Precision = Literal["float32", "bfloat16"]


def resolve_precision(name: str, device: torch.device, *, images: bool = True) -> Precision:
    """Return the precision that `auto`, `float32` or `bfloat16` stands for.

    `auto` is bfloat16 autocast for networks that see images, on a GPU that has it and on processors with instructions
    for it: AMX (`dqn` trains about twice as fast) or AVX-512 (1.5 times). Else it is float32: networks of vectors are
    small, and the casts cost more than the products save (a processor with AMX trains `mlp:64x64` 1.4 to 2 times as
    fast without, `gru:16` 2.3 times). Weights, losses and optimisers stay float32.

    Args:
        name: what the user said.
        device: of the network.
        images: whether the network sees images.

    Raises:
        UsageError: another name.
    """
    if name == "auto":
        if not images:
            return "float32"
        has_bfloat16 = torch.cuda.is_bf16_supported() if device.type == "cuda" else _computes_bfloat16()
        return "bfloat16" if has_bfloat16 else "float32"
    if name == "float32" or name == "bfloat16":
        return name
    raise UsageError(f"precision: got {name!r}, expected auto, float32 or bfloat16.")


def _computes_bfloat16() -> bool:
    # Linux tells processor flags here; elsewhere the rule says float32.
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.is_file() else ""
    return any(flag in flags for flag in (" amx_bf16", " avx512_bf16"))


def autocast(precision: Precision, device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """Return a maker of contexts in which forward passes run at this precision."""
    if precision == "float32":
        return contextlib.nullcontext  # torch's own context costs a small network 1 % of its updates, also switched off
    return lambda: torch.autocast(device.type, torch.bfloat16)
