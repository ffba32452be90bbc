"""What a student's own module draws while it trains, such as dropout: a function of (seed, update)."""

import contextlib
from collections.abc import Generator
from contextlib import AbstractContextManager

import torch

from rldistill.networks import ModuleNetwork, Network
from rldistill.seeding import stream_seed


def drawn_for_update(network: Network, seed: int, update: int) -> AbstractContextManager[None]:
    """Let torch's global generators give an update's own numbers inside the `with`, and go on as before after it.

    So a run that was stopped and resumed draws what one that never stopped draws, and the caller's
    random numbers stay what they were. Our own networks draw nothing: for them nothing is done.

    Args:
        network: the student's.
        seed: of the run.
        update: its number.
    """
    return _drawn(network, stream_seed(seed, "forward", update)) if isinstance(network, ModuleNetwork) else _NOTHING


_NOTHING = contextlib.nullcontext()


@contextlib.contextmanager
def _drawn(network: ModuleNetwork, seed: int) -> Generator[None]:
    device = next(network.parameters()).device
    on_gpu = device.type == "cuda"
    # Of the generators that are forked, and of no other: `torch.manual_seed` would seed every GPU of the machine.
    with torch.random.fork_rng([device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
