"""The residual stages of IMPALA's deep network, without its recurrent part.

Source: Espeholt et al. 2018, "IMPALA", figure 3, right: a 3x3 convolution, a max-pooling of 3x3 with
stride 2, and two residual blocks of two convolutions each. Everything is padded.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class ResidualBlock(nn.Module):
    """Adds to its input what two convolutions make of it, a ReLU before each."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(num_channels, num_channels, 3, padding=1)
        self.second = nn.Conv2d(num_channels, num_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Return images `[B, C, H, W]` of the same shape."""
        return images + self.second(torch.relu(self.first(torch.relu(images))))


class ImpalaStage(nn.Module):
    """Convolution, pooling and two residual blocks.

    Args:
        num_inputs: channels of the images.
        num_outputs: channels after the convolution.
        kernel_size: of the convolution, odd.
        stride: of the pooling.
    """

    def __init__(self, num_inputs: int, num_outputs: int, kernel_size: int = 3, stride: int = 2) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(num_inputs, num_outputs, kernel_size, padding=kernel_size // 2)
        self.blocks = nn.Sequential(ResidualBlock(num_outputs), ResidualBlock(num_outputs))
        self.stride = stride

    def forward(self, images: Tensor) -> Tensor:
        """Return images of ⌈H ÷ stride⌉ x ⌈W ÷ stride⌉."""
        pooled = functional.max_pool2d(self.convolution(images), kernel_size=3, stride=self.stride, padding=1)
        return self.blocks(pooled)
