"""A larger network that begins where a smaller one of the same layers stands.

Units are added to every layer as in Net2WiderNet (Chen et al. 2016, "Net2Net"), but the new ones are fresh instead of
copies: what the old ones give is passed on unchanged, and the new ones begin to count as soon as they are trained.
"""

import torch
from torch import Tensor, nn

from rldistill.networks.combined_torso import CombinedTorso


@torch.no_grad()
def grow(small: nn.Module, large: nn.Module) -> bool:
    """Give a network without a memory the weights of a smaller one, so that both compute the same.

    A layer of N inputs and M outputs holds the smaller one's weights in its first n inputs and m outputs; these m
    outputs do not see the other inputs. Normalisation over a layer's units is not the same with more of them. Nor
    does a combined network grow: more features of an image would move those of other parts to other inputs.

    Args:
        small: not changed.
        large: of the same layers, each at least as wide.

    Returns:
        Whether it could; otherwise nothing is changed.
    """
    old, new = small.state_dict(), large.state_dict()
    if old.keys() != new.keys() or any("memory" in name for name in old):
        return False
    if any(isinstance(module, CombinedTorso) for module in small.modules()):
        return False
    if not all(_fits(old[name], weights) for name, weights in new.items()):
        return False
    for name, weights in new.items():
        held = old[name]
        if held.ndim > 1:
            weights[: len(held)] = 0
        weights[tuple(slice(length) for length in held.shape)] = held
    return True


def _fits(old: Tensor, new: Tensor) -> bool:
    return old.ndim == new.ndim and all(one <= other for one, other in zip(old.shape, new.shape, strict=True))
