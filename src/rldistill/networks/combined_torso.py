"""The torso of observations that are made of several parts, some of them images."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from rldistill.errors import MismatchError
from rldistill.networks.architecture import Architecture
from rldistill.networks.torsos import make_torso, run_layers, to_images
from rldistill.tasks import ObservationPart


class CombinedTorso(nn.Module):
    """Features of each image, and all other parts as they are, side by side in the order of the parts.

    Args:
        architecture: of kind `combined`: the layers of each image.
        parts: what the vector is made of; what is appended to them (zeros, a clock) goes on as it is.
        num_inputs: P, length of the vector.
        image_scale: factor on the images: 1/255 for bytes, 1 for floats.

    Attributes:
        parts: what the vector is made of; the last stands for what is appended.

    Raises:
        MismatchError: no part is an image, or the vector is shorter than its parts.
    """

    def __init__(
        self, architecture: Architecture, parts: Sequence[ObservationPart], num_inputs: int, image_scale: float
    ) -> None:
        super().__init__()
        self.image_scale = float(image_scale)
        self._float_images = architecture.float_images
        num_appended = num_inputs - sum(part.size for part in parts)
        self.parts = (*parts, ObservationPart("", (max(num_appended, 0),)))
        images = [part for part in parts if self.is_image(part)]
        if not images or num_appended < 0:
            listing = ", ".join(f"{part.name} {part.dtype} {list(part.shape)}" for part in parts) or "none"
            raise MismatchError(
                f"Network {architecture.name!r} takes observations of several parts, some of them images, got parts: "
                f"{listing} ({num_inputs} numbers). Choose mlp:64x64, or conv:8-8-8:32 for a single image."
            )
        torsos = [make_torso(replace(architecture, kind="conv", float_images=False), part.shape) for part in images]
        self.images = nn.ModuleList(torso for torso, _ in torsos)
        widths = iter(num_features for _, num_features in torsos)
        self.num_features = sum(next(widths) if self.is_image(part) else part.size for part in self.parts)

    def forward(self, observations: Tensor) -> Tensor:
        """Return features `[B, F]` of float32 vectors `[B, P]`."""
        torsos = iter(self.images)
        sizes = [part.size for part in self.parts]
        features = [
            self._image_features(next(torsos), values, part) if self.is_image(part) else values
            for values, part in zip(observations.split(sizes, dim=1), self.parts, strict=True)
        ]
        return torch.cat(features, dim=1)

    def is_image(self, part: ObservationPart) -> bool:
        """Whether a part has a torso of its own."""
        return part.is_image or (self._float_images and len(part.shape) == 3)

    def _image_features(self, torso: nn.Module, values: Tensor, part: ObservationPart) -> Tensor:
        images = to_images(values.reshape(-1, *part.shape) * self.image_scale)
        assert isinstance(torso, nn.Sequential), "as `make_torso` gives it"
        return run_layers(torso, images.contiguous(memory_format=torch.channels_last))
