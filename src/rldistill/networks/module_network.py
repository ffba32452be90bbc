"""A user's own `nn.Module` as the network of a policy.

Its weights can be kept in a policy file; its code cannot: such a file loads only together
with the module that it belongs to.
"""

from torch import Tensor, nn

from rldistill.errors import MismatchError
from rldistill.networks.input_layer import InputNormalization, NormalizeInput, ScaleInput
from rldistill.networks.policy_network import NetworkOutput, PolicyNetwork


class ModuleNetwork(nn.Module):
    """Calls a module with scaled float32 observations; it returns rows `[B, O]`.

    Args:
        module: trained in place.
        observation_shape: of one observation.
        num_outputs: O, what the task's action layout needs.
        input_scale: factor on the inputs: 1/255 for bytes.
        normalization: of the inputs by running statistics, instead of the factor.
    """

    def __init__(
        self,
        module: nn.Module,
        observation_shape: tuple[int, ...],
        num_outputs: int,
        *,
        input_scale: float = 1.0,
        normalization: InputNormalization | None = None,
    ) -> None:
        super().__init__()
        self.observation_shape = observation_shape
        self.scale = ScaleInput(input_scale) if normalization is None else NormalizeInput(normalization)
        self.module = module
        self._num_outputs = num_outputs

    def use_channels_last(self) -> None:
        """Leave the layout of weights to the module."""

    def forward(self, observations: Tensor, head: int = 0) -> NetworkOutput:
        """Return the module's outputs for observations `[B, *observation_shape]`.

        Raises:
            MismatchError: the module returned another shape.
        """
        assert head == 0, "a module of one's own plays one task"
        outputs = self.module(self.scale(observations))
        if not isinstance(outputs, Tensor) or outputs.shape != (len(observations), self._num_outputs):
            got = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise MismatchError(
                f"Module {type(self.module).__name__} returned {got} for {len(observations)} observations of shape "
                f"{list(self.observation_shape)}, expected a tensor [{len(observations)}, {self._num_outputs}]."
            )
        return NetworkOutput(outputs.float(), outputs.float())


Network = PolicyNetwork | ModuleNetwork


def module_name(module: nn.Module) -> str:
    """Return what a policy file says of a module: where its class is defined."""
    return f"{type(module).__module__}.{type(module).__qualname__}"
