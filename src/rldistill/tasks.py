"""A task: an environment, how it is observed, and under which protocol it is played.

Two records, never mixed. The *observation fingerprint* says what a network sees and which actions it has: it must match
between policy and task. The *protocol* says how episodes start and end and how much of the play is random: it is
recorded and shown, and never a reason to refuse. Number of environments and threads stand in neither.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from rldistill.checks import check_kind, check_name, check_shape, check_share, check_whole
from rldistill.errors import UsageError, shown
from rldistill.types import ActionLayout

ATARI_PREFIX = "atari:"
# A file may declare anything; these are what environments and networks compute with.
_DTYPES = frozenset({"bool", "float16", "float32", "float64"}) | {
    f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)
}
UNNAMED_TASK = "unnamed"
"""The task of a policy whose file says neither its environment nor how frames were made."""


@dataclass(frozen=True)
class ObservationPart:
    """One piece of an observation that was made of several and is given to networks as one vector."""

    name: str  # its key; of nested ones all keys, joined by dots; of a tuple the index
    shape: tuple[int, ...]  # before it was flattened; of a one-hot code its length
    dtype: str = "float32"  # `uint8` where its values are bytes, else `float32`

    def __post_init__(self) -> None:
        check_name(self, "name", "dtype")
        check_shape(self, "shape", least=0)

    @property
    def size(self) -> int:
        """Numbers that it takes in the vector."""
        return math.prod(self.shape)

    @property
    def is_image(self) -> bool:
        """Whether it is a picture of bytes, which convolutions suit."""
        return self.dtype == "uint8" and len(self.shape) == 3


@dataclass(frozen=True)
class ObservationFingerprint:
    """What a network sees of a task, and the meaning of its actions."""

    observation_shape: tuple[int, ...]  # of one stacked observation: `(stack, height, width)` in Atari
    observation_dtype: str  # numpy name, such as `uint8`
    action_layout: ActionLayout  # kind and size of the action space
    action_set: tuple[str, ...] = ()  # meanings of discrete actions, in order; empty where none are known
    grayscale: bool | None = None  # whether frames are grey; None where the task has no frames
    frame_stack: int = 1  # consecutive frames in one observation; 1 means no stacking
    stack_padding: str | None = None  # what fills the stack after a reset
    frame_skip: int = 1  # emulator frames per decision
    max_pool: bool = False  # whether a frame is the pixelwise maximum of the last two emulator frames
    # What the vector is made of, in order, where the environment gives several.
    observation_parts: tuple[ObservationPart, ...] = ()
    # Zeros appended to the environment's vector, in place of inputs that were dead where the policy was trained.
    zero_padding: int = 0
    time_feature: int | None = None  # T, where a clock is appended after them: 1 − t / T, t steps since the reset

    def __post_init__(self) -> None:
        # Also what a file declares comes this way.
        check_shape(self, "observation_shape", least=0)
        check_whole(self, "zero_padding", least=0)
        check_whole(self, "frame_stack", "frame_skip", *(("time_feature",) if self.time_feature is not None else ()))
        if self.observation_dtype not in _DTYPES:
            raise UsageError(f"observation_dtype must be a type of numbers, got {shown(self.observation_dtype)}.")
        check_name(self, *(("stack_padding",) if self.stack_padding is not None else ()))
        check_kind(self, bool, "max_pool", *(("grayscale",) if self.grayscale is not None else ()))
        if not all(isinstance(meaning, str) for meaning in self.action_set):
            raise UsageError("action_set must hold texts.")

    @property
    def separate_parts(self) -> tuple[ObservationPart, ...]:
        """The parts that are stored and taught from each by itself; none where numbers are appended behind them."""
        size = sum(part.size for part in self.observation_parts)
        return self.observation_parts if self.observation_shape == (size,) and self.frame_stack == 1 else ()

    @property
    def part_names(self) -> tuple[str, ...]:
        """What a policy sees, in order: the names of the parts, or `observation` where it is one."""
        return tuple(part.name for part in self.separate_parts) or ("observation",)

    @property
    def observation_description(self) -> str:
        """Type, shape and parts of an observation, as messages call them: what one torso can see."""
        whole = f"{self.observation_dtype} {list(self.observation_shape)}"
        return f"{whole} ({_shown(self.observation_parts)})" if self.observation_parts else whole

    def differences(self, other: "ObservationFingerprint", *, says_frames: bool = True) -> list[str]:
        """List what differs, as `name: mine against theirs`; empty when the two match.

        Of actions the kind and the sizes count. How an output reaches its box is the policy's own affair, and the
        bounds are compared where a policy meets the task that it is to play (`fit_policy`).

        Args:
            other: theirs.
            says_frames: whether mine says how frames are made and what actions mean; else these are not compared.
        """
        # Beside a vector, how an image was made is no news.
        says_frames = says_frames and len(self.observation_shape) == len(other.observation_shape)
        return [
            f"{item.name}: {_shown(getattr(self, item.name))} against {_shown(getattr(other, item.name))}"
            for item in fields(self)
            if _compared(getattr(self, item.name)) != _compared(getattr(other, item.name))
            and (says_frames or item.name not in _OF_FRAMES)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data; what came later than the rest stands there only where it is used."""
        data = asdict(self)
        data |= {"observation_shape": list(self.observation_shape), "action_set": list(self.action_set)}
        data |= {"action_layout": self.action_layout.to_dict()}
        data |= {"observation_parts": [asdict(part) | {"shape": list(part.shape)} for part in self.observation_parts]}
        return {
            name: value for name, value in data.items() if name not in _LATER_FIELDS or value != _LATER_FIELDS[name]
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ObservationFingerprint":
        """Read what `to_dict` wrote."""
        values = dict(data)
        values["observation_shape"] = tuple(values["observation_shape"])
        values["action_set"] = tuple(values["action_set"])
        values["action_layout"] = ActionLayout.from_dict(values["action_layout"])
        parts = values.get("observation_parts", ())
        values["observation_parts"] = tuple(
            ObservationPart(part["name"], tuple(part["shape"]), part["dtype"]) for part in parts
        )
        return cls(**values)


# Left out of records where they have these values, so that files and hashes from before them stay as they are.
_LATER_FIELDS: Mapping[str, object] = {"observation_parts": [], "zero_padding": 0, "time_feature": None}


_OF_FRAMES = frozenset({"action_set", "grayscale", "frame_stack", "stack_padding", "frame_skip", "max_pool"})


def _compared(value: object) -> object:
    return (value.kind, value.sizes) if isinstance(value, ActionLayout) else value


def _shown(value: object) -> str:
    if isinstance(value, ActionLayout):
        return f"{value.kind} {list(value.sizes)}"
    if isinstance(value, tuple):
        items: tuple[Any, ...] = value
        if items and isinstance(items[0], ObservationPart):
            return ", ".join(f"{part.name} {part.dtype} {list(part.shape)}" for part in items)
        return f"{len(items)} actions {'/'.join(items)}" if items and isinstance(items[0], str) else str(list(items))
    return str(value)


@dataclass(frozen=True)
class Protocol:
    """How episodes start and end, and how much of the play is random."""

    # Atari: an episode starts after 0 to `noop_max` − 1 emulator frames without action, drawn by the episode's seed (so
    # there are `noop_max` different starts).
    noop_max: int | None = None
    max_frames: int | None = None  # Atari: emulator frames, no-ops not counted, after which an episode is truncated
    fire_at_reset: bool | None = None  # Atari: press FIRE once after a reset where the game knows it
    sticky_action_probability: float = 0.0  # Atari: chance that the emulator repeats the last action
    exploration_epsilon: float = 0.0  # chance that a decision is a uniformly random action

    def __post_init__(self) -> None:
        check_share(self, "sticky_action_probability", "exploration_epsilon")
        if self.noop_max is not None:
            check_whole(self, "noop_max", least=0)
        if self.max_frames is not None:
            check_whole(self, "max_frames")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return asdict(self)


@dataclass(frozen=True)
class Task:
    """One environment with the way it is observed and played."""

    name: str  # `atari:pong`, a Gymnasium id, `module:EnvId`, or a name given in Python
    fingerprint: ObservationFingerprint  # what must match between policy and task
    protocol: Protocol = field(default_factory=Protocol)  # what is recorded and shown
    # Passed to the environment's constructor (not used by Atari).
    environment_kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        check_name(self, "name")
        check_kind(self, Mapping, "environment_kwargs")

    @property
    def is_atari(self) -> bool:
        """Whether the task runs on the Atari emulator."""
        return self.name.startswith(ATARI_PREFIX)

    @property
    def game(self) -> str:
        """The Atari game's name, without its prefix."""
        return self.name.removeprefix(ATARI_PREFIX)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint.to_dict(),
            "protocol": self.protocol.to_dict(),
            "environment_kwargs": dict(self.environment_kwargs),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Task":
        """Read what `to_dict` wrote."""
        return cls(
            data["name"],
            ObservationFingerprint.from_dict(data["fingerprint"]),
            Protocol(**data["protocol"]),
            data["environment_kwargs"],
        )
