"""Options of `train_teacher`: those of all algorithms first, then those of one."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, Literal

from rldistill.errors import UsageError
from rldistill.options.declaration import Count, PathLike, PythonOnly
from rldistill.options.shared import Folder, Told, TrainingMachine


@dataclass(frozen=True)
class TrainTeacherOptions(TrainingMachine, Folder, Told):
    """Train a teacher for a task, or one network for several tasks."""

    task: Annotated[str | Sequence[str], PythonOnly()]
    """Task to learn: atari:<game>, a Gymnasium id, or module:EnvId. Several, in Python a list, on the command line with
    commas between, are learned by one network with a head for each."""
    _: KW_ONLY
    out: PathLike
    """Run folder."""
    algorithm: Literal["pqn", "dqn"] = "pqn"
    """Learning algorithm: pqn or dqn. Options that are not given have its defaults."""
    num_steps: Count = 2_500_000
    """Decisions in all environments together, over the whole schedule; with several tasks, of each task."""
    network: str = "auto"
    """Network of the teacher: a preset (dqn, net1, net2, net3, multitask3, multitask10), mlp:64x64, conv:8-8-8:32 or
    combined:8-8-8:32:64. auto: dqn for images, mlp:64x64 for vectors, combined:32-64-64:256:64x64 where an image is
    one of several parts."""
    layer_norm: bool | None = None
    """Normalise every layer of the torso. Default: on for pqn, which needs it; off for dqn."""
    zero_output: bool = False
    """Begin with an output layer of zeros: all actions tie, and greedy play takes the first one."""
    env_kwargs: Mapping[str, Any] | None = None
    """Settings of the environment, such as {"frame_skip": 4}; on the command line a JSON object."""
    num_envs: int | None = None
    """Environments stepped in parallel, of each task. Default: 32 for pqn, 4 for dqn."""
    learning_rate: float | None = None
    """Constant for dqn; for pqn that of the start, from which it falls linearly to 0. Default: 2.5e-4; 6.25e-5 for dqn
    with adam."""
    gamma: float | None = None
    """Discount of a step. Default: 0.99."""
    exploration_start: float | None = None
    """Chance of a random action at the start. Default: 1."""
    exploration_end: float | None = None
    """Chance of a random action in the end. Default: 0.05 for pqn, 0.1 for dqn."""
    repeat_exponent: float | None = None
    """Let a random action last for n steps, with probabilities proportional to n^-repeat_exponent, which explores games
    such as Freeway (2 is usual). The chances above are then those that such a stretch begins. Default: one step."""
    clip_rewards: bool | None = None
    """Learn from rewards clipped to [-1, 1]; scores are always raw. Default: on."""
    cut_at_life_loss: bool | None = None
    """A lost life ends the return that is learned from, never the game. Default: on."""
    rollout_length: int | None = None
    """pqn: steps in each environment between updates. Default: 32."""
    num_epochs: int | None = None
    """pqn: passes over each rollout. Default: 2."""
    num_minibatches: int | None = None
    """pqn: gradient steps per pass. Default: 8."""
    max_gradient_norm: float | None = None
    """pqn: gradients are scaled down to this norm; 1e9 leaves them as they are. Default: 10."""
    return_lambda: float | None = None
    """pqn: λ of the λ-returns, which mix one-step and longer returns, in [0, 1]. Default: 0.65."""
    exploration_fraction: float | None = None
    """pqn: share of the run over which exploration falls. Default: 0.1."""
    replay_capacity: int | None = None
    """dqn: newest steps that are kept, of each task. Default: 1000000."""
    learning_starts: int | None = None
    """dqn: steps of random play before the first update, of each task. Default: 50000."""
    steps_per_update: int | None = None
    """dqn: steps of play for each update. Default: 4."""
    batch_size: int | None = None
    """dqn: transitions per update. Default: 32."""
    target_network_update_period: int | None = None
    """dqn: updates between copies to the target network. Default: 10000."""
    optimizer: str | None = None
    """dqn: rmsprop (centred, as in the paper) or adam (better). Default: rmsprop."""
    double_q: bool | None = None
    """dqn: the online network selects the next action, the target network evaluates it. Default: off."""
    num_return_steps: int | None = None
    """dqn: n of the n-step returns: rewards that are summed before bootstrapping. Default: 1."""
    exploration_steps: int | None = None
    """dqn: steps after learning starts over which exploration falls. Default: 1000000."""
    init_from: PathLike | None = None
    """Policy file whose weights the teacher begins with; its optimiser begins anew."""
    start_step: int = 0
    """With --init-from: step of the schedule to begin at."""
    checkpoint_period: Count = 100_000
    """Steps between checkpoints, over all tasks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        names = self.task_names
        if not all(isinstance(name, str) for name in names):  # pyright: ignore[reportUnnecessaryIsInstance] Python lets anything in
            raise UsageError(
                f"task: got a {type(self.task).__name__}, expected an id, or a list of ids: a run writes down what it "
                'plays, to go on with it. Register yours with gymnasium.register(id="Mine-v0", entry_point=…) in a '
                "module of your own, and pass 'module:Mine-v0'."
            )
        twice = [name for name in names if names.count(name) > 1]
        if twice or not all(names) or not names:
            problem = f"{twice[0]} twice" if twice else f"{self.task!r}"
            raise UsageError(f"task: got {problem}, expected different tasks.")
        if not 0 <= self.start_step < self.num_steps:
            raise UsageError(f"start_step must lie in [0, num_steps), got {self.start_step} of {self.num_steps}.")
        if self.start_step and self.init_from is None:
            raise UsageError("start_step belongs with init_from: it says where in the schedule those weights stand.")

    @property
    def task_names(self) -> tuple[str, ...]:
        """What is to be learned, in the order of the heads."""
        return (self.task,) if isinstance(self.task, str) or not isinstance(self.task, Sequence) else tuple(self.task)
