"""Configurations of the verbs: frozen data, checked as a whole, to and from TOML.

The docstring of a field is its help on the command line.
"""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rldistill.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class TrainTeacherConfig:
    """Settings of `train-teacher`."""

    task: str
    """Task to learn: atari:<game>, a Gymnasium id, or module:EnvId."""
    out: Path
    """Run folder."""
    algorithm: str = "pqn"
    """Learning algorithm: pqn."""
    num_steps: int = 2_500_000
    """Decisions over all environments and the whole schedule."""
    network: str = "dqn"
    """Preset (dqn, net1, net2, net3), mlp:64x64 or conv:8-8-8:32."""
    layer_norm: bool = True
    """Normalise every layer of the torso: PQN needs it."""
    env_kwargs: str = "{}"
    """Settings of the task as JSON, such as '{"frame_skip": 4}'."""
    num_envs: int = 32
    """Environments stepped in parallel."""
    rollout_length: int = 32
    """Steps in each environment between updates."""
    num_epochs: int = 2
    """Passes over each rollout."""
    num_minibatches: int = 8
    """Gradient steps per pass."""
    learning_rate: float = 2.5e-4
    """Of RAdam at the start; falls linearly to 0."""
    max_gradient_norm: float = 10.0
    """Gradients are scaled down to this norm."""
    gamma: float = 0.99
    """Discount of a step."""
    return_lambda: float = 0.65
    """Mixes one-step and longer returns, in [0, 1]."""
    exploration_start: float = 1.0
    """Chance of a random action at the start."""
    exploration_end: float = 0.05
    """Chance of a random action after the first exploration-fraction of the run."""
    exploration_fraction: float = 0.1
    """Share of the run over which it falls."""
    init_from: Path | None = None
    """Policy file whose weights to begin with, with a fresh optimiser."""
    start_step: int = 0
    """With --init-from: the place in the schedule to begin at, in steps."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "auto"
    """auto, cpu or cuda."""
    precision: str = "auto"
    """auto, float32 or bfloat16."""
    num_threads: int = 0
    """Threads of torch and of the emulator; 0: one per processor."""
    checkpoint_period: int = 100_000
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        if self.algorithm != "pqn":
            raise UsageError(f"algorithm: got {self.algorithm!r}, expected pqn.")
        check_positive(self, "num_steps", "num_envs", "checkpoint_period")
        if not 0 <= self.start_step < self.num_steps:
            raise UsageError(f"start_step must lie in [0, num_steps), got {self.start_step} of {self.num_steps}.")
        if self.start_step and self.init_from is None:
            raise UsageError("start_step belongs with init_from: it says where in the schedule those weights stand.")


def parse_options(text: str) -> dict[str, Any]:
    """Read `env_kwargs`.

    Raises:
        UsageError: not a JSON object.
    """
    try:
        options = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"env_kwargs is not JSON: got {text!r} ({error}), expected an object such as '{{\"frame_skip\": 4}}'."
        ) from error
    if not isinstance(options, dict):
        raise UsageError(f"env_kwargs: got {text!r}, expected a JSON object such as '{{\"frame_skip\": 4}}'.")
    return options  # pyright: ignore[reportUnknownVariableType]


def check_positive(config: object, *names: str) -> None:
    """Check that fields are 1 or more.

    Raises:
        UsageError: names the field and its value.
    """
    for name in names:
        if getattr(config, name) < 1:
            raise UsageError(f"{name} must be 1 or more, got {getattr(config, name)}.")


def config_values(config: Any) -> dict[str, Any]:
    """Return a configuration's fields, in order."""
    return {item.name: getattr(config, item.name) for item in fields(config)}
