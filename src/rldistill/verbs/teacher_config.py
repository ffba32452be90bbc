"""Configuration of `train-teacher`: what all algorithms share, then what belongs to one.

The docstring of a field is its help on the command line.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from rldistill.checks import check_not_negative, check_positive, check_types
from rldistill.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class TrainTeacherConfig:
    """Train a teacher."""

    task: str | None = None
    """Task to learn: atari:<game>, a Gymnasium id, or module:EnvId."""
    tasks: str | None = None
    """Several tasks to learn with one network, a head for each, such as atari:pong,atari:breakout."""
    out: Path
    """Run folder."""
    algorithm: str = "pqn"
    """Learning algorithm: pqn or dqn; an option below without a value has that algorithm's own."""
    num_steps: int = 2_500_000
    """Decisions over all environments and the whole schedule; with --tasks, of each task."""
    network: str = "dqn"
    """Preset (dqn, net1, net2, net3, multitask3, multitask10), mlp:64x64 or conv:8-8-8:32."""
    layer_norm: bool | None = None
    """Normalise every layer of the torso: on for pqn, which needs it, off for dqn."""
    zero_output: bool = False
    """Begin with an output layer of zero: all actions tie, and greedy play is the first action."""
    env_kwargs: str = "{}"
    """Settings of the task as JSON, such as '{"frame_skip": 4}'."""
    num_envs: int | None = None
    """Environments stepped in parallel, of each task: 32 for pqn, 4 for dqn."""
    learning_rate: float | None = None
    """pqn: 2.5e-4 at the start, falls linearly to 0; dqn: constant, 2.5e-4 with rmsprop, 6.25e-5 with adam."""
    gamma: float | None = None
    """Discount of a step: 0.99."""
    exploration_start: float | None = None
    """Chance of a random action at the start: 1."""
    exploration_end: float | None = None
    """Chance of a random action in the end: 0.05 for pqn, 0.1 for dqn."""
    clip_rewards: bool | None = None
    """Learn from rewards clipped to [-1, 1]: on. Scores are always raw."""
    cut_at_life_loss: bool | None = None
    """A lost life ends the return that is learned from, never the game: on."""
    rollout_length: int | None = None
    """pqn: steps in each environment between updates: 32."""
    num_epochs: int | None = None
    """pqn: passes over each rollout: 2."""
    num_minibatches: int | None = None
    """pqn: gradient steps per pass: 8."""
    max_gradient_norm: float | None = None
    """pqn: gradients are scaled down to this norm: 10."""
    return_lambda: float | None = None
    """pqn: mixes one-step and longer returns, in [0, 1]: 0.65."""
    exploration_fraction: float | None = None
    """pqn: share of the run over which exploration falls: 0.1."""
    replay_capacity: int | None = None
    """dqn: newest steps that are kept, of each task: 1,000,000."""
    learning_starts: int | None = None
    """dqn: steps of random play before the first update, of each task: 50,000."""
    steps_per_update: int | None = None
    """dqn: steps of play for each update: 4."""
    batch_size: int | None = None
    """dqn: transitions per update: 32."""
    target_network_update_period: int | None = None
    """dqn: updates between copies to the target network: 10,000."""
    optimizer: str | None = None
    """dqn: rmsprop (centred, as in the paper) or adam (better): rmsprop."""
    double_q: bool | None = None
    """dqn: the online network selects the next action, the target network evaluates it: off."""
    num_return_steps: int | None = None
    """dqn: rewards that are summed before the value takes over: 1."""
    exploration_steps: int | None = None
    """dqn: steps after learning starts over which exploration falls: 1,000,000."""
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
    """Steps between checkpoints, over all tasks."""

    def __post_init__(self) -> None:
        check_types(self)
        if (self.task is None) == (self.tasks is None):
            raise UsageError("give --task ID, or --tasks ID,ID,… to learn several with one network.")
        twice = [name for name in self.task_names if self.task_names.count(name) > 1]
        if twice or not all(self.task_names):
            problem = f"{twice[0]} twice" if twice else f"{self.tasks!r}"
            raise UsageError(f"tasks: got {problem}, expected different tasks, separated by commas.")
        if self.algorithm not in ("pqn", "dqn"):
            raise UsageError(f"algorithm: got {self.algorithm!r}, expected pqn or dqn.")
        check_positive(self, "num_steps", "checkpoint_period")
        check_not_negative(self, "seed", "num_threads")
        if not 0 <= self.start_step < self.num_steps:
            raise UsageError(f"start_step must lie in [0, num_steps), got {self.start_step} of {self.num_steps}.")
        if self.start_step and self.init_from is None:
            raise UsageError("start_step belongs with init_from: it says where in the schedule those weights stand.")

    @property
    def task_names(self) -> tuple[str, ...]:
        """What is to be learned, in the order of the heads."""
        if self.task is not None:
            return (self.task,)
        return tuple(name.strip() for name in (self.tasks or "").split(","))


class TrainTeacherSettings(TypedDict, total=False):
    """The fields of `TrainTeacherConfig` that have defaults, for keyword arguments in Python."""

    algorithm: str
    network: str
    layer_norm: bool
    zero_output: bool
    num_envs: int
    learning_rate: float
    gamma: float
    exploration_start: float
    exploration_end: float
    clip_rewards: bool
    cut_at_life_loss: bool
    rollout_length: int
    num_epochs: int
    num_minibatches: int
    max_gradient_norm: float
    return_lambda: float
    exploration_fraction: float
    replay_capacity: int
    learning_starts: int
    steps_per_update: int
    batch_size: int
    target_network_update_period: int
    optimizer: str
    double_q: bool
    num_return_steps: int
    exploration_steps: int
    init_from: Path | None
    start_step: int
    seed: int
    device: str
    precision: str
    num_threads: int
    checkpoint_period: int
