"""Torch's thread count for the time of one run."""

import contextlib
from collections.abc import Generator

import torch


@contextlib.contextmanager
def use_threads(num_threads: int) -> Generator[None]:
    """Let torch use so many threads; 0 leaves its own choice, one per processor."""
    before = torch.get_num_threads()
    if num_threads > 0:
        torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
