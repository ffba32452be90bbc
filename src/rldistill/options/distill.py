"""Options of `distill`: of the student and its training, and of each kind of source by itself."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rldistill.errors import UsageError
from rldistill.options.declaration import Above, AtLeast, Count, Options, PathLike, PythonOnly
from rldistill.options.reading import Reading
from rldistill.options.shared import Environments, Folder, Played, Told, TrainingMachine

if TYPE_CHECKING:
    from torch import nn

    from rldistill.data import Dataset
    from rldistill.envs import TaskLike
    from rldistill.loading.named import PolicyLike
    from rldistill.losses import CustomLoss
    from rldistill.schedules import Schedule

    DataLike = PathLike | Dataset
    StudentLike = str | nn.Module
    LossLike = str | CustomLoss | Mapping[str, str]
    Number = float | str | Schedule
else:  # The command line reads this file and must not wait for torch: of what may be given, it knows the texts.
    DataLike, PolicyLike, TaskLike, StudentLike = Path, Path, str, str
    LossLike = str | Mapping[str, str]
    Number = float | str

AUTO = "auto"
"""What follows from the data: the network of a student, a temperature."""


@dataclass(frozen=True)
class Stored(Options):
    """A dataset as what a student learns from; a folder alone stands for it."""

    data: Annotated[DataLike, PythonOnly()]
    """Dataset folder, or an open dataset."""
    _: KW_ONLY
    task: str | None = None
    """Name of the dataset's own task: allows to import the module in module:EnvId, so that the student can be played.
    """


@dataclass(frozen=True)
class Live(Reading, Played):
    """A teacher that plays while the student learns, with --teacher: the paper's schedule.

    The teacher plays `collect_steps`, the student takes `collect_period` updates on the newest `replay_capacity` of
    them, and so on.
    """

    teacher: Annotated[PolicyLike, PythonOnly()]
    """Policy, or its file."""
    task: Annotated[TaskLike | None, PythonOnly()] = None
    """Task to play. Default: the teacher's own."""
    _: KW_ONLY
    collect_steps: Count = 54_000
    """Decisions of each task played before each collect-period of updates."""
    collect_period: Count = 10_000
    """Updates between collections; a last one for less than half as many is left out."""
    replay_capacity: Count = 540_000
    """Newest decisions of each task that are kept."""
    replay: Literal["keep", "once"] = "keep"
    """keep: updates draw from all that is kept, as DAgger aggregates; once: from the last collection alone."""
    teacher_fraction: Annotated[Number, PythonOnly()] = 1.0
    """Share of the play in which the teacher acts, a number or a schedule such as 'linear:1->0@0.5'; in the rest the
    student acts. The teacher labels all of it."""
    mix: Literal["episode", "decision"] = "episode"
    """With --teacher-fraction between 0 and 1: whether who acts is drawn for each episode or for each decision."""


@dataclass(frozen=True)
class Online(Played):
    """A teacher that still learns while it teaches, with --online."""

    task: str
    """Task to learn: atari:<game>, a Gymnasium id, or module:EnvId."""
    _: KW_ONLY
    algorithm: Literal["pqn", "dqn"] = "pqn"
    """How the teacher learns: pqn or dqn."""
    num_steps: Count = 2_500_000
    """Decisions of the learner."""
    learner: Mapping[str, Any] | None = None
    """Other options of train-teacher, such as {"learning_rate": 1e-4}; on the command line as JSON."""
    online_teacher: Literal["best", "current"] = "best"
    """Who labels: the learner's best policy so far, by evaluation, or the learner as it is."""
    judge_period: Count = 100_000
    """Decisions of the learner between evaluations of learner and student."""
    replay_capacity: Count = 540_000
    """Newest decisions that are kept, where the algorithm has no replay of its own."""


Source = DataLike | Stored | Live | Online
Several = Sequence[PathLike | Stored] | Sequence[Live]


@dataclass(frozen=True)
class DistillOptions(Environments, TrainingMachine, Folder, Told):
    """Train a student on what a teacher says."""

    source: "Annotated[Source | Several, PythonOnly()]"
    """What the student learns from: a dataset folder, `Stored`, `Live` or `Online`. A list makes a student with a head
    for each of several tasks."""
    _: KW_ONLY
    out: PathLike
    """Run folder."""
    student: Annotated[StudentLike, PythonOnly()] = AUTO
    """Preset (dqn, net1, net2, net3, multitask3, multitask10), mlp:64x64, conv:8-8-8:32 or combined:8-8-8:32:64; a last
    :16 gives each head a hidden layer of its own. In Python also a module from scaled float32 observations to [B, A].
    auto: a network that fits the observations and has at most half as many parameters as its teacher."""
    loss: Annotated[LossLike | None, PythonOnly()] = None
    """nll, q_mse, sharpened_kl, softened_kl or reverse_kl; of continuous actions diag_gaussian_kl,
    reverse_diag_gaussian_kl, mean_mse or mean_huber. One for all tasks, or by task (TASK=LOSS,…). In Python also a
    function (student [B, A], target [B, A]) -> [B]. Default: what suits the teacher's outputs."""
    temperature: Annotated[Number | Mapping[str, Number] | None, PythonOnly()] = None
    """A number, or a schedule such as 'linear:0.2->0.01@0.5', for all tasks or by task (TASK=…,…). auto: 1/7 of the
    median gap between the teacher's best two actions in a dataset. Default: 0.01 for Q-values, 1 for logits."""
    std: Literal["state", "parameter", "fixed"] = "state"
    """Spread of a Gaussian student: state (a layer of its own), parameter (learned, the same in all states) or fixed
    (the teacher's in a dataset, on average)."""
    task_order: Literal["in_turn", "mixed", "random"] | None = None
    """With several tasks: in_turn (each batch has one task's rows), mixed (each batch has rows of all) or random.
    Default: in_turn."""
    task_weights: Mapping[str, float] | None = None
    """With mixed and random: shares by task (TASK=WEIGHT,…). A task that is not named has 1."""
    add_head: bool = False
    """Keep the heads of --init-from and add one for each new task; the rest stays frozen."""
    train_torso: bool = False
    """With --add-head: train the torso and the old heads too."""
    num_updates: Count = 12_000
    """Gradient steps, over all tasks."""
    batch_size: Count = 128
    """Rows per update, over all tasks."""
    optimizer: Literal["adam", "rmsprop"] = "adam"
    """adam or rmsprop."""
    learning_rate: Annotated[Number, PythonOnly()] = "one_cycle:1e-3"
    """A number, or a schedule: one_cycle:PEAK, 'linear:START->END' or 'cosine:START->END'."""
    max_gradient_norm: Annotated[float, Above(0)] = 1.0
    """Gradients are scaled down to this norm."""
    weight_decay: Annotated[float, AtLeast(0)] = 0.0
    """Decay of weights, decoupled from the gradient in adam."""
    held_out_fraction: float | None = None
    """Share of steps never trained on, in whole episodes: at least 0.1 and 5 episodes. Default: 0.1; a teacher that
    still learns has none."""
    evaluate_period: Count = 500
    """Updates between measurements on held-out steps, and between checkpoints."""
    evaluate_episodes: Annotated[int, AtLeast(0)] | None = None
    """Episodes of student, teacher and random play at the end, and of the student at each fifth measurement, on seeds
    used for nothing else; 0: none. Default: 10 at the end alone, as far as they end within a minute, none of Atari nor
    of an environment given as a Python object. With --online: of learner, best policy and student at each evaluation.
    Default: 10."""
    init_from: PathLike | None = None
    """Policy file whose weights to begin with."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.add_head and self.init_from is None:
            raise UsageError("add_head belongs with init_from, which names the student that gets the head.")
        if self.train_torso and not self.add_head:
            raise UsageError("train_torso belongs with add_head: without it the whole student is trained.")
