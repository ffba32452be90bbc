"""Where rows lie in memory: the last bits of a matrix product depend on it.

Measured with MKL 2024.2 as PyTorch 2.13 brings it, on AMD: a layer of few outputs sums a row that does not begin at a
multiple of 16 bytes in another order. A row's answer then depends on the array that it was cut from and, where a row
does not take a multiple of 16 bytes itself, on its place in the batch, however large the batch is. So all rows that
are computed with begin at such a multiple: whole arrays by `aligned`, the rows of a layer by `AlignedLinear`.

A function of single numbers, such as an ELU, takes 32 of them at a time with AVX-512, and rounds those that are left
over otherwise: `evenly` leaves none.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

ALIGNMENT_BYTES = 64
"""Where PyTorch's own memory begins: a multiple of 64 bytes, a cache line."""
_ALIGNED_NUMBERS = 4  # 16 bytes of float32
_NUMBERS_AT_ONCE = 32  # two vectors of AVX-512
_NUMBERS_OF_A_THREAD = 32_768  # torch gives a thread at least so many


def aligned(rows: Tensor) -> Tensor:
    """Return the same numbers, contiguous in memory that begins at a multiple of 64 bytes; copied only where needed.

    Bytes may lie anywhere: networks turn them into floats first, in new memory.
    """
    if rows.is_contiguous() and (rows.dtype.itemsize == 1 or rows.data_ptr() % ALIGNMENT_BYTES == 0):
        return rows
    return rows.clone(memory_format=torch.contiguous_format)


class AlignedLinear(nn.Linear):
    """A linear layer whose answer to a row does not depend on the row's place in the batch.

    While training the place is part of the batch, and rows stay as they are.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return `[..., O]` for `[..., I]`."""
        if not torch.is_grad_enabled() and input.is_cpu and _is_askew(input):
            input = _evened(input)
        return functional.linear(input, self.weight, self.bias)

    def of_blocks(self, rows: Tensor, block: int) -> Tensor:
        """Return what `forward` gives for so many rows at a time, `[B, O]` for `[B, I]`; without gradient."""
        if _is_askew(rows):
            rows = _evened(rows)
        outputs, weight, bias = rows.new_empty(len(rows), self.out_features), self.weight.t(), self.bias
        # Views by one call each: `split` is Python, and takes as long as a small product.
        for part, out in zip(_blocks(rows, block), _blocks(outputs, block), strict=True):
            torch.addmm(bias, part, weight, out=out)  # what `linear` calls
        return outputs


def evenly(function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """Return what a function of single numbers gives for rows `[B, ...]`, whatever the place of each.

    Only where batches are computed for play: while training, or for one row, the place does not matter.
    """
    if torch.is_grad_enabled() or len(rows) == 1 or not rows.is_cpu:
        return function(rows)
    num_numbers = rows.numel()
    if num_numbers % _NUMBERS_AT_ONCE == 0 and num_numbers <= _NUMBERS_OF_A_THREAD:
        return function(rows)
    # The number of rows would be fixed.
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        return function(rows)
    is_turned = rows.dim() == 4 and not rows.is_contiguous()  # images whose channels lie last
    laid_out = rows.permute(0, 2, 3, 1) if is_turned else rows
    numbers = functional.pad(laid_out.reshape(-1), (0, -num_numbers % _NUMBERS_AT_ONCE))
    # More of them would be shared out among threads, and each thread would leave some over.
    parts = [function(part) for part in numbers.split(_NUMBERS_OF_A_THREAD)]
    given = torch.cat(parts)[:num_numbers].view(laid_out.shape)
    return given.permute(0, 3, 1, 2) if is_turned else given


def _blocks(rows: Tensor, block: int) -> tuple[Tensor, ...]:
    """Return rows `[B, I]` as views of so many each."""
    return rows.view(-1, block, rows.shape[1]).unbind()


def _evened(rows: Tensor) -> Tensor:
    """Return rows `[..., I]` each of which begins at a multiple of 16 bytes."""
    num_inputs = rows.shape[-1]
    return functional.pad(rows, (0, -num_inputs % _ALIGNED_NUMBERS))[..., :num_inputs]


def _is_askew(rows: Tensor) -> bool:
    """Whether rows `[..., I]` of float32 begin elsewhere than at multiples of 16 bytes."""
    distances = rows.storage_offset()
    for stride in rows.stride()[:-1]:
        distances |= stride
    return distances % _ALIGNED_NUMBERS != 0
