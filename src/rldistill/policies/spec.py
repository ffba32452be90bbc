"""What a policy file says about its weights, as plain data."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import chain
from typing import Any, get_args

import torch
from torch import Tensor, nn

from rldistill.checks import check_name, is_finite, is_whole
from rldistill.errors import shown
from rldistill.limits import MAX_LAYERS, MAX_NORMALISED, MAX_REMEMBERED
from rldistill.networks import (
    Architecture,
    GaussianOptions,
    InputNormalization,
    ModuleNetwork,
    OutputLayer,
    PolicyNetwork,
    StemmedNetwork,
    ValueAtoms,
)
from rldistill.networks.output_layer import DEFAULT_GAUSSIAN
from rldistill.networks.outputs import OutputDeclaration, parse_outputs
from rldistill.networks.stemmed import stem_problem
from rldistill.policies.behaviour import LEARNED_BEHAVIOURS, Behaviour
from rldistill.sight import Sight
from rldistill.tasks import ObservationFingerprint, Task
from rldistill.types import OutputKind

_DTYPES = {"float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True)
class HeadSpec:
    """One head."""

    task: Task  # that it plays, with the fingerprint it was made for
    behaviour: Behaviour | None = None  # how it acts; None: as the policy does by default
    output_kind: OutputKind | None = None  # which action field its outputs are; None: the policy's
    # Where the heads' tasks have different observations: the settings of the statistics that its own are normalised by,
    # as `PolicySpec.normalization` has them for all.
    normalization: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.output_kind not in (None, *get_args(OutputKind)):
            raise ValueError(f"output_kind must be {' or '.join(get_args(OutputKind))}, got {self.output_kind!r}.")
        if self.behaviour not in (None, *LEARNED_BEHAVIOURS):
            raise ValueError(f"behaviour must be {' or '.join(LEARNED_BEHAVIOURS)}, got {self.behaviour!r}.")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        own = {name: getattr(self, name) for name in ("behaviour", "output_kind", "normalization")}
        return {"task": self.task.to_dict(), **{name: value for name, value in own.items() if value is not None}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "HeadSpec":
        """Read what `to_dict` wrote."""
        own = (data.get(name) for name in ("behaviour", "output_kind", "normalization"))
        return cls(Task.from_dict(data["task"]), *own)


@dataclass(frozen=True)
class PolicySpec:
    """Everything but the weights."""

    name: str  # short, for tables
    architecture: Architecture | None  # the layers; None where the network is a module of the user's own
    heads: tuple[HeadSpec, ...]  # one per task, in the network's order
    output_kind: OutputKind = "q_values"  # which action field the outputs are, where a head does not say it
    behaviour: Behaviour = "greedy"  # how its heads act by default
    input_scale: float = 1.0  # factor on the observations
    weights_dtype: str = "float32"  # in which the file keeps the weights: `float32` or `float16`
    # How it was made: command, configuration, teacher's hash, scores.
    provenance: Mapping[str, Any] = field(default_factory=dict[str, Any])
    module: str | None = None  # the name of that module's class
    # Settings of the running statistics that observations are normalised by; the statistics themselves lie with the
    # weights. None: there are none.
    normalization: Mapping[str, Any] | None = None
    gaussian: GaussianOptions = DEFAULT_GAUSSIAN  # how Gaussian heads get their spread
    # Of the distributions whose expectations the Q-values are; None: heads give them directly.
    atoms: ValueAtoms | None = None
    is_beta: bool = False  # whether actions are the means of Beta distributions, two outputs of the network for each
    # Which of that module's outputs make the rows, as `parse_outputs` reads it; None: it has one.
    module_outputs: str | None = None
    # What that module remembers of one environment, the shape of each part; the values when an episode begins lie with
    # the weights. Empty: it remembers nothing.
    module_state: tuple[tuple[int, ...], ...] = ()
    sight: Sight | None = None  # which parts of the observations it sees; None: all of them

    def __post_init__(self) -> None:
        # Also what a stranger's file declares comes this way.
        for key, choices in (
            ("output_kind", get_args(OutputKind)),
            ("behaviour", LEARNED_BEHAVIOURS),
            ("weights_dtype", tuple(_DTYPES)),
        ):
            if getattr(self, key) not in choices:
                raise ValueError(f"{key} must be {' or '.join(choices)}, got {getattr(self, key)!r}.")
        check_name(self, "name", *(("module",) if self.module is not None else ()))
        if not is_finite(self.input_scale):
            raise ValueError(f"input_scale must be a finite number, got {shown(self.input_scale)}.")
        if not isinstance(self.provenance, Mapping):
            raise ValueError(f"provenance must be a mapping, got {shown(self.provenance)}.")
        if not self.heads or len({head.task.name for head in self.heads}) != len(self.heads):
            raise ValueError(f"heads must be of one or more different tasks, got {[h.task.name for h in self.heads]}.")
        if self.num_layers > MAX_LAYERS:
            raise ValueError(f"got {self.num_layers:,} layers, expected at most {MAX_LAYERS:,}.")
        self._check_observations()
        declared = self.declared_outputs
        if declared is not None and (self.module is None or declared.kind != self.output_kind):
            raise ValueError(f"module_outputs must be {self.output_kind} of a module, got {self.module_outputs!r}.")
        if declared is not None and declared.is_scaled and not self.heads[0].task.fingerprint.action_layout.is_bounded:
            raise ValueError(f"module_outputs need a box with bounds, got {self.module_outputs!r}.")
        if self.module_state and self.module is None:
            raise ValueError(f"module_state must be of a module, got {shown(self.module_state)}.")
        if not all(map(is_whole, chain(*self.module_state))):
            raise ValueError(f"module_state must be of whole numbers, got {shown(self.module_state)}.")
        if sum(map(math.prod, self.module_state)) > MAX_REMEMBERED or min(chain(*self.module_state), default=1) < 1:
            raise ValueError(f"module_state must be of at most {MAX_REMEMBERED:,} numbers, got {self.module_state}.")
        # Both refuse what does not belong together.
        _ = self.output_layers, self.empty_normalizations

    def _check_observations(self) -> None:
        """Check that one network can see what all heads' tasks show. Raises ValueError: it cannot."""
        seen = [self.seen_by(head) for head in range(len(self.heads))]
        if min(size for own in seen for size in (*own.observation_shape, 1)) < 1:
            raise ValueError(f"observations must have positive sizes, got {[own.observation_shape for own in seen]}.")
        if self.has_stems:
            why = "a module sees one kind" if self.architecture is None else stem_problem(self.architecture)
            if why is None and (self.sight is not None or self.normalization is not None):
                why = "sight and normalization are of one"
            if why is not None:
                raise ValueError(f"heads must have one kind of observation: {why}.")
            if any(own.observation_dtype == "uint8" for own in seen):
                raise ValueError("heads must have one kind of observation: bytes and numbers are scaled differently.")
        elif any(head.normalization is not None for head in self.heads):
            raise ValueError("the normalization of a head is for heads of different observations.")
        for head, own in zip(self.heads, seen, strict=True):
            settings = self.normalization if head.normalization is None else head.normalization
            if settings is not None and math.prod(own.observation_shape) > MAX_NORMALISED:
                raise ValueError(f"normalization is for observations of at most {MAX_NORMALISED:,} numbers.")

    @property
    def num_layers(self) -> int:
        """Layers that the description declares, over all heads; of a module of somebody's own the heads alone."""
        network = self.architecture
        if network is None:
            return len(self.heads)
        per_stage = 5 if network.kind == "impala" else 1
        is_combined = network.kind == "combined"
        num_torsos = sum(len(part.shape) == 3 for part in self.seen.observation_parts) if is_combined else 1
        torso = num_torsos * (per_stage * len(network.channels) + len(network.hidden))
        memory = network.memory_layers if network.memory else 0
        return torso + memory + max(self.stems) + len(self.heads) * (len(network.head_hidden) + 1)

    @property
    def network_description(self) -> str:
        """Its layers, as messages call them."""
        return "a module of its maker's own" if self.architecture is None else self.architecture.description

    @property
    def declared_outputs(self) -> OutputDeclaration | None:
        """Which of a module's outputs make the rows."""
        return None if self.module_outputs is None else parse_outputs(self.module_outputs)

    @property
    def head_sizes(self) -> dict[str, int]:
        """Outputs per task name, in order."""
        return {name: layer.num_outputs for name, layer in self.output_layers.items()}

    @property
    def output_layers(self) -> dict[str, OutputLayer]:
        """The kind of output per task name, in order."""
        return {
            head.task.name: OutputLayer(
                head.output_kind or self.output_kind,
                head.task.fingerprint.action_layout,
                self.gaussian,
                self.atoms,
                self.is_beta,
            )
            for head in self.heads
        }

    @property
    def stems(self) -> tuple[int, ...]:
        """Of each head, which kind of observation its task shows, by its place among the kinds."""
        kinds = [self.seen_by(head).observation_description for head in range(len(self.heads))]
        known = list(dict.fromkeys(kinds))
        return tuple(known.index(kind) for kind in kinds)

    @property
    def has_stems(self) -> bool:
        """Whether the tasks show different observations, each kind of which has a stem in the network."""
        return max(self.stems) > 0

    @property
    def empty_normalizations(self) -> list[InputNormalization | None]:
        """For each kind of observation statistics of the right size that change nothing; None: it is not normalised."""
        empty: list[InputNormalization | None] = []
        for kind in sorted(set(self.stems)):
            head = self.stems.index(kind)
            settings = self.heads[head].normalization if self.has_stems else self.normalization
            size = math.prod(self.seen_by(head).observation_shape)
            own = None if settings is None else InputNormalization.from_settings((0.0,) * size, (1.0,) * size, settings)
            empty.append(own)
        return empty

    def make_network(
        self,
        normalizations: Sequence[InputNormalization | None],
        *,
        zero_output: bool = True,
        generator: torch.Generator | None = None,
    ) -> PolicyNetwork | StemmedNetwork:
        """Return the network that is described, with freshly drawn weights; it must be one of ours.

        Args:
            normalizations: of each kind of observation.
            zero_output: start with output layers of zero.
            generator: draws the weights.
        """
        assert self.architecture is not None, "a module of its maker's own has no architecture"
        layers, stems = list(self.output_layers.items()), self.stems
        networks = [
            PolicyNetwork(
                self.architecture,
                self.seen_by(stems.index(kind)).observation_shape,
                dict(own for own, of_head in zip(layers, stems, strict=True) if of_head == kind),
                parts=self.seen_by(stems.index(kind)).observation_parts,
                input_scale=self.input_scale,
                normalization=normalization,
                zero_output=zero_output,
                generator=generator,
            )
            for kind, normalization in enumerate(normalizations)
        ]
        if not self.has_stems:
            return networks[0]
        return StemmedNetwork(networks, [(kind, stems[:head].count(kind)) for head, kind in enumerate(stems)])

    def network_around(
        self, module: nn.Module, normalization: InputNormalization | None, initial: Sequence[Tensor]
    ) -> ModuleNetwork:
        """Return the network that is described, around the module of its maker's own.

        Args:
            module: is kept, not copied.
            normalization: of the observations.
            initial: what the module remembers of one environment when an episode begins, `module_state` in shape.
        """
        return ModuleNetwork(
            module,
            self.observation_shape,
            next(iter(self.head_sizes.values())),
            outputs=self.declared_outputs,
            layout=self.heads[0].task.fingerprint.action_layout,
            input_scale=self.input_scale,
            normalization=normalization,
            initial=initial,
        )

    @property
    def stored_dtype(self) -> torch.dtype:
        """The type of the weights in the file."""
        return _DTYPES[self.weights_dtype]

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape of what the network sees of one observation; of the first head, where they differ."""
        return self.seen.observation_shape

    @property
    def num_observed(self) -> int:
        """Numbers that the network sees of one observation."""
        return math.prod(self.observation_shape)

    @property
    def seen(self) -> ObservationFingerprint:
        """What the network sees of its tasks; of the first, where they differ."""
        return self.seen_by(0)

    def seen_by(self, head: int) -> ObservationFingerprint:
        """Return what the network sees of a head's task."""
        whole = self.heads[head].task.fingerprint
        return whole if self.sight is None else self.sight.seen(whole)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data; what came to the format later stands there only where it says something."""
        has_gaussian = "gaussian" in (self.output_kind, *(head.output_kind for head in self.heads))
        later = {
            "normalization": None if self.normalization is None else dict(self.normalization),
            "gaussian": asdict(self.gaussian) if has_gaussian else None,
            "atoms": None if self.atoms is None else asdict(self.atoms),
            "is_beta": True if self.is_beta else None,
            "module_outputs": self.module_outputs,
            "module_state": [list(shape) for shape in self.module_state] or None,
            "sight": None if self.sight is None else self.sight.to_dict(),
        }
        return {key: value for key, value in later.items() if value is not None} | {
            "name": self.name,
            "architecture": None if self.architecture is None else self.architecture.to_dict(),
            "module": self.module,
            "heads": [head.to_dict() for head in self.heads],
            "output_kind": self.output_kind,
            "behaviour": self.behaviour,
            "input_scale": self.input_scale,
            "weights_dtype": self.weights_dtype,
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "PolicySpec":
        """Read what `to_dict` wrote."""
        unknown = sorted(data.keys() - {item.name for item in fields(cls)})
        if unknown:
            raise ValueError(f"unknown keys {', '.join(unknown)}")
        return cls(
            name=data["name"],
            architecture=None if data["architecture"] is None else Architecture.from_dict(data["architecture"]),
            module=data["module"],
            heads=tuple(HeadSpec.from_dict(head) for head in data["heads"]),
            output_kind=data["output_kind"],
            behaviour=data["behaviour"],
            input_scale=data["input_scale"],
            weights_dtype=data["weights_dtype"],
            provenance=data["provenance"],
            normalization=data.get("normalization"),
            gaussian=GaussianOptions(**data.get("gaussian", {})),
            atoms=ValueAtoms(**data["atoms"]) if "atoms" in data else None,
            is_beta=data.get("is_beta", False),
            module_outputs=data.get("module_outputs"),
            module_state=tuple(map(tuple, data.get("module_state", ()))),
            sight=Sight.from_dict(data["sight"]) if "sight" in data else None,
        )
