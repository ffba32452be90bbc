"""A user's own `nn.Module` as the network of a policy.

Its weights can be kept in a policy file; its code cannot: such a file loads only together
with the module that it belongs to.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rldistill.errors import MismatchError
from rldistill.networks.foreign import call_foreign, call_remembering
from rldistill.networks.input_layer import InputNormalization, NormalizeInput, ScaleInput, join_parts
from rldistill.networks.outputs import OutputDeclaration, raw_rows, shown_outputs
from rldistill.networks.policy_network import NetworkOutput
from rldistill.observations import Tensors
from rldistill.types import ActionLayout, State


class ModuleNetwork(nn.Module):
    """Calls a module with scaled observations; it returns rows `[B, O]`.

    They are cast to the type of its weights, or to float32 where those have several.

    Args:
        module: trained in place.
        observation_shape: of one observation.
        num_outputs: O, what the task's action layout needs.
        outputs: which of several outputs make the rows; None: it has one.
        layout: of the task's actions, where outputs are declared.
        input_scale: factor on the inputs: 1/255 for bytes.
        normalization: of the inputs by running statistics, instead of the factor.
        initial: what it remembers of one environment when an episode begins: the module then takes a state beside the
            observations, and returns its outputs and the next state.
    """

    def __init__(
        self,
        module: nn.Module,
        observation_shape: tuple[int, ...],
        num_outputs: int,
        *,
        outputs: OutputDeclaration | None = None,
        layout: ActionLayout | None = None,
        input_scale: float = 1.0,
        normalization: InputNormalization | None = None,
        initial: Sequence[Tensor] = (),
    ) -> None:
        super().__init__()
        self.observation_shape = observation_shape
        self.scale = ScaleInput(input_scale) if normalization is None else NormalizeInput(normalization)
        self.module = module
        # Whoever goes to evaluation and back must not find a module in training that was not.
        self.training = module.training
        self._outputs = outputs
        self._layout = layout
        self._num_outputs = num_outputs
        # Buffers: they are part of what the policy is, and lie in its file.
        for index, part in enumerate(initial):
            self.register_buffer(f"initial_{index}", part.clone())

    def initial_state(self, num_envs: int) -> State:
        """Return what the module remembers when an episode begins; None: it is called with observations alone."""
        parts = [part for name, part in self.named_buffers(recurse=False) if name.startswith("initial_")]
        return tuple(part.to(self.weights_dtype).repeat(num_envs, *[1] * part.dim()) for part in parts) or None

    @property
    def weights_dtype(self) -> torch.dtype:
        """The type of its weights, in which it takes observations."""
        dtypes = {weight.dtype for weight in self.module.parameters() if weight.is_floating_point()}
        # Of several types none is the module's: it converts between them itself.
        return dtypes.pop() if len(dtypes) == 1 else torch.float32

    def forward(self, observations: Tensors, head: int = 0, state: State = None) -> NetworkOutput:
        """Return the module's outputs for observations `[B, *observation_shape]`, or their parts, and the next state.

        Raises:
            MismatchError: the module failed, or returned another shape, also of a state.
        """
        assert head == 0, "a module of one's own plays one task"
        observations = join_parts(observations)
        answers, following = self.answers(observations, state)
        rows = self._rows(answers)
        if rows.shape != (len(observations), self._num_outputs):
            raise MismatchError(
                f"{self._what} returned {list(rows.shape)} for {len(observations)} observations of shape "
                f"{list(self.observation_shape)}, expected a tensor [{len(observations)}, {self._num_outputs}]."
            )
        return NetworkOutput(rows, state=following)

    def answers(self, observations: Tensor, state: State = None) -> tuple[dict[str, Tensor], State]:
        """Return everything that the module answers, by name (`foreign.named_outputs`), and the next state.

        Raises:
            MismatchError: it failed, or answered no tensors.
        """
        inputs = self.scale(observations).to(self.weights_dtype)
        # A module may write into what it is given, and observations that need no scaling are the caller's own.
        own = inputs.clone() if inputs.data_ptr() == observations.data_ptr() else inputs
        kept = state or self.initial_state(len(observations))
        if kept is None:
            return call_foreign(self._what, self.module, own), None
        return call_remembering(self._what, self.module, own, tuple(part.clone() for part in kept))

    def _rows(self, answers: dict[str, Tensor]) -> Tensor:
        if self._outputs is not None:
            return raw_rows(self._what, self._outputs, answers, self._layout)
        if len(answers) > 1:
            raise MismatchError(
                f"{self._what} returned {len(answers)} outputs: {shown_outputs(answers)}, expected one tensor "
                f"[B, {self._num_outputs}]. Return the one that acts alone."
            )
        return next(iter(answers.values())).float()

    @property
    def _what(self) -> str:
        return f"Module {type(self.module).__name__}"


def module_name(module: nn.Module) -> str:
    """Return what a policy file says of a module: where its class is defined."""
    return f"{type(module).__module__}.{type(module).__qualname__}"
