"""What a policy remembers, by name: the same names in contracts and in ONNX files.

C has them in the struct of its state, but for a stack, whose observations, the newest included, lie there side by side.
"""

import math
from dataclasses import dataclass

from rldistill.errors import RldistillError
from rldistill.networks import PolicyNetwork
from rldistill.networks.architecture import MemoryKind
from rldistill.policies import TorchPolicy

EARLIER = "earlier"
"""Of the observations before the newest, oldest first, scaled or normalised as the first layer takes them."""


@dataclass(frozen=True)
class StatePart:
    """One part of a state; zero when an episode begins."""

    name: str
    shape: tuple[int, ...]  # of one environment's

    @property
    def size(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)


def names_of_cell(kind: MemoryKind, number: int) -> tuple[str, ...]:
    """Return the names of what the recurrent layer of a number, from 1, remembers: `h`, and `c` of an LSTM."""
    suffix = "" if number == 1 else f"_{number}"
    return tuple(f"{name}{suffix}" for name in ("h", "c")[: 1 if kind == "gru" else 2])


def state_parts(policy: TorchPolicy) -> tuple[StatePart, ...]:
    """Return the parts of a policy's state, in the order of `initial_state`; none: it remembers nothing.

    Raises:
        RldistillError: it is a module of its maker's own with a state that no format here can keep.
    """
    if policy.initial_state(1) is None:
        return ()
    if not isinstance(policy.network, PolicyNetwork):
        raise RldistillError(
            f"Policy {policy.name!r} is a module of its maker's own ({policy.spec.module}) with a memory, and no "
            "export keeps the state of such a module. Distil it into a network of ours: --student gru:16."
        )
    stack, cells = policy.network.stack, enumerate(policy.network.cells, start=1)
    earlier = () if stack is None else (StatePart(EARLIER, (stack.width - stack.num_inputs,)),)
    kept = (StatePart(name, (cell.size,)) for number, cell in cells for name in names_of_cell(cell.kind, number))
    return (*earlier, *kept)
