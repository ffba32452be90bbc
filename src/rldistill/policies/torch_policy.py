"""A policy whose network is ours."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rldistill.errors import MismatchError, NumericalError
from rldistill.networks import (
    Architecture,
    GaussianOptions,
    InputNormalization,
    ModuleNetwork,
    Network,
    NormalizeInput,
    PolicyNetwork,
    module_name,
    network_of,
)
from rldistill.networks.foreign import holds_numbers
from rldistill.networks.output_layer import DEFAULT_GAUSSIAN
from rldistill.networks.outputs import OutputDeclaration
from rldistill.observations import Tensors, as_tensors, moved, num_rows
from rldistill.policies.behaviour import Behaviour, choose_actions
from rldistill.policies.file_format import pack_policy, policy_hash
from rldistill.policies.padded import ROWS_PER_BATCH, check_answers, check_observations, check_state, run_padded
from rldistill.policies.protocol import Observations
from rldistill.policies.spec import HeadSpec, PolicySpec
from rldistill.sight import Sight, shown_to
from rldistill.storage import write_atomically
from rldistill.tasks import ObservationFingerprint, Task
from rldistill.types import Actions, OutputKind, PolicyOutput, State


class TorchPolicy:
    """A network with what it takes to play: tasks, output kind, behaviour.

    Args:
        network: its heads are those of `spec`.
        spec: everything but the weights.
        task_index: which head plays.
    """

    def __init__(self, network: Network, spec: PolicySpec, *, task_index: int = 0) -> None:
        self.network = network
        self.spec = spec
        self._task_index = task_index
        self._task = spec.heads[task_index].task
        # A parameter stays the same object where a network is moved, as buffers do not; to look for one takes time.
        self._first_weight = next(network.parameters(), None)
        if not isinstance(network, ModuleNetwork):
            network.eval()  # once, and not around every call; a module of somebody's own keeps its mode

    @classmethod
    def create(
        cls,
        architecture: Architecture,
        tasks: Sequence[Task],
        *,
        output_kind: OutputKind = "q_values",
        behaviour: Behaviour = "greedy",
        gaussian: GaussianOptions = DEFAULT_GAUSSIAN,
        normalization: InputNormalization | None = None,
        sight: Sight | None = None,
        name: str | None = None,
        zero_output: bool = True,
        generator: torch.Generator | None = None,
    ) -> "TorchPolicy":
        """Return a new policy with freshly drawn weights."""
        seen = shown_to(tasks[0], sight).fingerprint
        spec = PolicySpec(
            name=name or architecture.name,
            architecture=architecture,
            heads=tuple(HeadSpec(task) for task in tasks),
            output_kind=output_kind,
            behaviour=behaviour,
            input_scale=input_scale_of(architecture, seen),
            gaussian=gaussian,
            normalization=None if normalization is None else normalization.settings,
            sight=sight,
        )
        normalizations = spec.empty_normalizations if spec.has_stems else [normalization]
        return cls.from_spec(spec, normalizations, zero_output=zero_output, generator=generator)

    @classmethod
    def from_spec(
        cls,
        spec: PolicySpec,
        normalizations: Sequence[InputNormalization | None],
        *,
        zero_output: bool = True,
        generator: torch.Generator | None = None,
    ) -> "TorchPolicy":
        """Return what a description declares, with freshly drawn weights; its network must be one of ours."""
        return cls(spec.make_network(normalizations, zero_output=zero_output, generator=generator), spec)

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        task: Task,
        *,
        output_kind: OutputKind,
        behaviour: Behaviour = "greedy",
        normalization: InputNormalization | None = None,
        outputs: OutputDeclaration | None = None,
        initial: Sequence[Tensor] = (),
        sight: Sight | None = None,
    ) -> "TorchPolicy":
        """Return a policy around a module of one's own: scaled or normalised observations to rows `[B, O]`.

        `outputs` says which of several outputs make the rows; without it the module returns one tensor. `initial` is
        what the module remembers of one environment when an episode begins, where it takes and returns a state.
        """
        spec = PolicySpec(
            name=type(module).__name__,
            architecture=None,
            heads=(HeadSpec(task),),
            output_kind=output_kind,
            behaviour=behaviour,
            input_scale=input_scale_of(None, shown_to(task, sight).fingerprint),
            module=module_name(module),
            module_outputs=None if outputs is None else outputs.text,
            module_state=tuple(tuple(part.shape) for part in initial),
            normalization=None if normalization is None else normalization.settings,
            sight=sight,
        )
        return cls(spec.network_around(module, normalization, initial), spec)

    def __repr__(self) -> str:
        """Return name, size and tasks in a line."""
        names = ", ".join(task.name for task in self.tasks)
        return f"<TorchPolicy {self.name}: {self.num_parameters:,} parameters, plays {names}, {self.behaviour}>"

    @property
    def name(self) -> str:
        """A short name for tables."""
        return self.spec.name

    @property
    def num_parameters(self) -> int:
        """Weights and biases of its network, heads of all tasks included."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks it can play; the current one first."""
        tasks = [head.task for head in self.spec.heads]
        return (tasks[self._task_index], *tasks[: self._task_index], *tasks[self._task_index + 1 :])

    @property
    def output_kind(self) -> OutputKind:
        """Which action field its outputs have."""
        return self.spec.heads[self._task_index].output_kind or self.spec.output_kind

    @property
    def behaviour(self) -> Behaviour:
        """How it acts by default on its current task; where its outputs are the actions there is nothing to draw."""
        if self.output_kind == "actions":
            return "greedy"
        return self.spec.heads[self._task_index].behaviour or self.spec.behaviour

    @property
    def head(self) -> int:
        """Which of the network's heads plays."""
        return self._task_index

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        if self._first_weight is not None and self._first_weight.is_meta:
            # Made without weights, which it was given since then, as new parameters.
            self._first_weight = next(self.network.parameters())
        if self._first_weight is not None:
            return self._first_weight.device
        # A module of somebody's own may have no weights.
        return next((tensor.device for tensor in self.network.buffers()), torch.device("cpu"))

    @property
    def hash(self) -> str:
        """SHA-256 over description and weights: the policy's identity."""
        return policy_hash(self.spec.to_dict(), self.stored_weights())

    def stored_weights(self) -> dict[str, Tensor]:
        """Return the weights as a file keeps them: on the CPU, contiguous, in the file's dtype."""
        dtype = self.spec.stored_dtype
        weights = {name: tensor.detach().cpu() for name, tensor in self.network.state_dict().items()}
        return {name: tensor.to(stored_dtype(tensor, dtype)).contiguous() for name, tensor in weights.items()}

    @property
    def normalization(self) -> InputNormalization | None:
        """The running statistics that it normalises observations by; None: it has none."""
        layer = network_of(self.network, self._task_index)[0].scale
        return layer.statistics() if isinstance(layer, NormalizeInput) else None

    def __call__(self, observations: Observations, state: State = None) -> tuple[PolicyOutput, State]:
        """Return outputs for `[B, *observation_shape]`, without gradient, and the next state; None begins an episode.

        Raises:
            MismatchError: observations of another shape, or no integers where the policy takes bytes; or a state of
                another number of environments.
            NumericalError: it answered NaN or infinity.
        """
        return self._answer(self._seen(observations), state, ROWS_PER_BATCH[self.device.type])

    def _seen(self, observations: Observations) -> Tensors:
        """Return what the network sees of observations, after checking that they are the task's."""
        rows = as_tensors(observations, self._task.fingerprint)
        check_observations(self.name, rows, self._task.fingerprint)
        return rows if self.spec.sight is None else self.spec.sight.choose(rows)

    def _answer(self, rows: Tensors, state: State, batch_size: int | None) -> tuple[PolicyOutput, State]:
        """Return what `__call__` does, computed in batches of this size; None: with the rows as they are."""
        network = self.network
        was_training = network.training
        if was_training:  # setting the mode walks over all modules
            network.eval()
        try:
            with torch.inference_mode():
                # Moved before it is padded: what is padded need not travel.
                rows = moved(rows, self.device)
                initial = network.initial_state(num_rows(rows))
                if initial is not None and state is not None:
                    check_state(self.name, state, initial)
                remembered = () if initial is None else initial if state is None else state
                if batch_size is None:
                    columns = self._forward(rows, *remembered)
                else:
                    own, _ = network_of(network, self._task_index)
                    takes_blocks = isinstance(own, PolicyNetwork) and own.takes_blocks
                    forward = partial(self._in_blocks, batch_size) if takes_blocks else self._forward
                    columns = run_padded(rows, batch_size, forward, *remembered, takes_blocks=takes_blocks)
        finally:
            if was_training:
                network.train()
        outputs, features, value, *following = columns
        assert outputs is not None, "every network has outputs"
        check_answers(self.name, self.output_kind, rows, outputs)
        layout = self._task.fingerprint.action_layout
        output = PolicyOutput.from_raw(layout, self.output_kind, outputs, value=value, features=features)
        return output, tuple([part for part in following if part is not None]) or state

    def _forward(self, rows: Tensors, *state: Tensor) -> tuple[Tensor | None, ...]:
        output = self.network(rows, self._task_index, state or None)
        return output.outputs, output.features, output.value, *(output.state or ())

    def _in_blocks(self, block: int, rows: Tensors) -> tuple[Tensor | None, ...]:
        """Return what `_forward` gives for so many rows at a time."""
        several = None if num_rows(rows) == block else block
        output = self.network(rows, self._task_index, None, several)
        return output.outputs, output.features, output.value

    def act(
        self,
        observations: Observations,
        *,
        state: State = None,
        rng: np.random.Generator | Sequence[np.random.Generator] | None = None,
        exploration_epsilon: float = 0.0,
    ) -> tuple[Actions, State]:
        """Return one action per row, `[B, *action_shape]`, by the policy's own behaviour, and the next state.

        One row alone is not padded to a batch: its outputs may differ in their last bits from those of `__call__`.

        Args:
            observations: `[B, *observation_shape]`.
            state: what the last call returned, or `initial_state(B)`.
            rng: one generator, or one per row; needed where something is drawn.
            exploration_epsilon: chance of a uniformly random action, in [0, 1].
        """
        rows = self._seen(observations)
        batch_size = None if num_rows(rows) == 1 else ROWS_PER_BATCH[self.device.type]
        output, state = self._answer(rows, state, batch_size)
        return choose_actions(output, self.behaviour, rng=rng, exploration_epsilon=exploration_epsilon), state

    def initial_state(self, num_envs: int) -> State:
        """Return what the network remembers at the start of an episode; None: nothing."""
        return self.network.initial_state(num_envs)

    def copy(self) -> "TorchPolicy":
        """Return the policy as it is now, with weights of its own."""
        return TorchPolicy(copy.deepcopy(self.network), self.spec, task_index=self._task_index)

    def for_task(self, name: str) -> "TorchPolicy":
        """Return the same policy (the same weights) playing another of its tasks.

        Raises:
            MismatchError: it has no head of that name; lists those it has.
        """
        names = list(self.spec.head_sizes)
        if name not in names:
            raise MismatchError(f"Policy {self.name!r} has no head for {name!r}, only for {', '.join(names)}.")
        return TorchPolicy(self.network, self.spec, task_index=names.index(name))

    def single_task(self, name: str) -> "TorchPolicy":
        """Return a policy of its own that has the torso and one head only, to be kept or saved alone.

        It plays that task exactly as this policy does, shares no weights with it and has its own hash;
        its provenance goes on from this policy's, and says under `single_task_of` where it came from. A policy of one
        head is returned as it is.

        Raises:
            MismatchError: there is no head of that name; lists those there are.
        """
        chosen = self.for_task(name)
        if isinstance(self.network, ModuleNetwork) or len(self.spec.heads) == 1:
            return chosen
        origin = {"name": self.name, "hash": self.hash, "tasks": list(self.spec.head_sizes)}
        head = self.spec.heads[chosen.head]
        spec = replace(
            self.spec,
            heads=(replace(head, output_kind=None, normalization=None),),
            output_kind=chosen.output_kind,
            normalization=head.normalization or self.spec.normalization,
            provenance={**self.spec.provenance, "single_task_of": origin},
        )
        return TorchPolicy(self.network.with_head(chosen.head), spec)

    def with_spec(self, **changes: object) -> "TorchPolicy":
        """Return the same weights under a changed description."""
        return TorchPolicy(self.network, replace(self.spec, **changes), task_index=self._task_index)

    def acting(self, behaviour: Behaviour) -> "TorchPolicy":
        """Return the same weights, all of whose heads act so."""
        heads = tuple(replace(head, behaviour=None) for head in self.spec.heads)
        return self.with_spec(heads=heads, behaviour=behaviour)

    def with_provenance(self, provenance: Mapping[str, Any]) -> "TorchPolicy":
        """Return the same weights with another record of how they were made."""
        return self.with_spec(provenance=provenance)

    def save(self, path: str | Path) -> None:
        """Write the policy file, atomically.

        Raises:
            NumericalError: a weight is no number, or too large for the file's dtype: nobody could load the file.
        """
        weights, own = self.stored_weights(), self.network.state_dict()
        masks = names_of_masks(self.network)
        for name, tensor in weights.items():
            if not holds_numbers(tensor, may_be_infinite=name in masks, before=own[name].cpu()):
                raise NumericalError(
                    f"Policy {self.name!r} is not saved to {path}: weight {name} holds NaN or infinity in "
                    f"{self.spec.weights_dtype}. Its training diverged."
                )
        write_atomically(Path(path), pack_policy(self.spec.to_dict(), weights))

    def to(self, device: torch.device) -> "TorchPolicy":
        """Move the weights; returns itself."""
        self.network.to(device)
        return self


def names_of_masks(network: Network) -> frozenset[str]:
    """Return the names of tensors that may hold infinity: buffers of a module of somebody's own."""
    if not isinstance(network, ModuleNetwork):
        return frozenset()
    return frozenset(name for name, _ in network.named_buffers() if name.startswith("module."))


def stored_dtype(tensor: Tensor, dtype: torch.dtype) -> torch.dtype:
    """Return the type in which a file of `dtype` keeps a tensor.

    Counters, such as those of a batch norm, stay the integers they are, and statistics of observations in float64.
    """
    return dtype if tensor.is_floating_point() and tensor.dtype != torch.float64 else tensor.dtype


def input_scale_of(architecture: Architecture | None, seen: ObservationFingerprint) -> float:
    """Return the factor on what a network sees: 1/255 for bytes; of several parts it is applied to images alone."""
    images_only = architecture is not None and architecture.kind == "combined" and not architecture.float_images
    return 1 / 255 if images_only or seen.observation_dtype == "uint8" else 1.0
