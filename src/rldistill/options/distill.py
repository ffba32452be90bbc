"""Options of `distill`: of the student and its training, and of each kind of source by itself."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from rldistill.checks import is_whole
from rldistill.errors import UsageError
from rldistill.options.declaration import (
    Above,
    AtLeast,
    Count,
    Options,
    PathLike,
    PythonOnly,
    Share,
    default_values,
    option_types,
)
from rldistill.options.reading import Reading
from rldistill.options.shared import (
    Chosen,
    Environments,
    Folder,
    PartNames,
    Played,
    StudentSees,
    TeacherSees,
    Told,
    TrainingMachine,
)

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
    """Name of the dataset's own task. It allows importing the module in module:EnvId, so that the student can be
    played."""


@dataclass(frozen=True)
class Live(Reading, Chosen, TeacherSees, Played):
    """A teacher that plays while the student learns, with --teacher: the paper's schedule.

    They take turns: the teacher plays, then the student learns from the newest of what was played.
    """

    help_title: ClassVar[str] = "teacher that plays"
    teacher: Annotated[PolicyLike | Mapping[str, PolicyLike], PythonOnly()]
    """Policy, or its file; with `choose` several of one task, by name."""
    task: Annotated[TaskLike | None, PythonOnly()] = None
    """Task to play. Default: the teacher's own."""
    _: KW_ONLY
    collect_steps: Count | None = None
    """Decisions of each task that are played in a collection. Default: from the recipe for this kind of teacher,
    54,000 for images."""
    collect_period: Count | None = None
    """Updates between two collections; a last one is left out if fewer than half as many updates would follow it.
    Default: from the recipe for this kind of teacher, 10,000 for images."""
    replay_capacity: Count = 540_000
    """Newest decisions of each task that are kept. With --online it counts only where the algorithm has none of its
    own (pqn)."""
    replay: Literal["keep", "once"] = "keep"
    """keep: updates draw from all that is kept, as DAgger aggregates; once: from the last collection alone."""
    teacher_fraction: Annotated[Number | None, PythonOnly()] = None
    """Chance that the teacher acts in an episode (or decision: --mix), a number or a schedule such as
    'linear:1->0@0.5'; else the student acts. The teacher labels all of it. Default: 1 for images, 'linear:1->0@0.3' for
    vectors."""
    lookahead: Share = 0.0
    """Discount of the losses that the student's own choices lead to: above 0 they count too, and the student minimises
    the loss of whole episodes of its own (entropy-regularised, with reverse_kl). The student plays alone, by sampling,
    and learns from the newest play: --teacher-fraction 0 --replay once --exploration-epsilon 0."""
    value_gate: Share | None = None
    """Discount of rewards in the value gate: the student learns only where its teacher's state value is above what the
    student's own play was paid from there on. With --teacher-fraction 0 and a teacher that gives state values."""
    mix: Literal["episode", "decision"] = "episode"
    """With --teacher-fraction between 0 and 1: whether who acts is drawn for each episode or for each decision."""


@dataclass(frozen=True)
class Online(Played):
    """A teacher that still learns while it teaches, with --online."""

    help_title: ClassVar[str] = "teacher that learns"
    task: str
    """Task to learn: atari:<game>, a Gymnasium id, or module:EnvId."""
    _: KW_ONLY
    algorithm: Literal["pqn", "dqn"] = "pqn"
    """How the teacher learns: pqn or dqn."""
    num_steps: Count = 2_500_000
    """Decisions of the learner."""
    learner: Mapping[str, Any] | None = None
    """Other options of train-teacher, such as {"learning_rate": 1e-4}; on the command line a JSON object."""
    online_teacher: Literal["best", "current"] = "best"
    """Which policy teaches: best (the learner's best so far, by evaluation) or current (the learner as it is)."""
    judge_period: Count = 100_000
    """Decisions of the learner between evaluations of learner and student."""
    replay_capacity: Count = 540_000
    """Newest decisions that are kept, if the algorithm has no replay of its own."""


Named = Stored | Live | Online
Source = DataLike | Named
Several = Sequence[PathLike | Stored] | Sequence[Live]


@dataclass(frozen=True)
class DistillOptions(StudentSees, PartNames, Environments, TrainingMachine, Folder, Told):
    """Train a student on what a teacher says."""

    source: "Annotated[Source | Several, PythonOnly()]"
    """What the student learns from: a dataset folder, `Stored`, `Live` or `Online`. A list makes a student with a head
    for each of several tasks."""
    _: KW_ONLY
    out: PathLike
    """Run folder."""
    student: Annotated[StudentLike, PythonOnly()] = AUTO
    """Preset (dqn, net1, net2, net3, multitask3, multitask10), mlp:64x64, conv:8-8-8:32 or combined:8-8-8:32:64; with
    :16 at the end, each head has a hidden layer of 16 units. With a memory gru:16, lstm:32 or mlp:32+gru:16; of the
    last 4 observations stack:4+mlp:32. In Python also a module from scaled float32 observations to [B, A]. auto: a
    network that fits the observations and has at most half as many parameters as its teacher."""
    loss: Annotated[LossLike | None, PythonOnly()] = None
    """nll, q_mse, sharpened_kl, softened_kl or reverse_kl. For continuous actions diag_gaussian_kl,
    reverse_diag_gaussian_kl, mean_mse or mean_huber. One for all tasks, or by task: in Python a mapping, on the command
    line TASK=LOSS,…. In Python also a function (student [B, A], target [B, A]) -> [B]. Default: from the recipe for
    this kind of teacher."""
    temperature: Annotated[Number | Mapping[str, Number] | None, PythonOnly()] = None
    """A number, or a schedule such as 'linear:0.2->0.01@0.5'. One for all tasks, or by task: in Python a mapping, on
    the command line TASK=VALUE,…. auto: 1/7 of the median gap between the teacher's best two actions in a dataset.
    Default: with a loss that you name, 0.01 for Q-values and 1 for logits. Else what goes with the default loss."""
    loss_params: Annotated[Mapping[str, Number] | None, PythonOnly()] = None
    """Parameters of the loss besides its temperature, numbers or schedules by name: in Python {"delta": 0.5}, on the
    command line delta=0.5. delta is of mean_huber, the error from which on it is linear, in halves of the box's width.
    Default: 1."""
    feature_weight: Annotated[float, AtLeast(0)] = 0.0
    """Weight of feature regression: through a linear layer that is thrown away, the student's layer before its output
    also learns what that of the teacher holds (Actor-Mimic: 0.01). Datasets hold it after collect --store features."""
    value_weight: Annotated[float, AtLeast(0)] = 0.0
    """Weight of the squared error of state values: the student gets a head that learns its teacher's. Datasets hold
    them after collect --store value."""
    normalize_inputs: bool | None = None
    """Standardise observations by the mean and variance of the teacher's play. If the teacher already normalises, its
    statistics are used. Vectors only. With several tasks, only if no two share a kind of observation. Default: on
    where all tasks have continuous actions. With --init-from, as that file has it."""
    std: Literal["state", "parameter", "fixed"] = "state"
    """Standard deviation of a Gaussian student: state (a function of the state), parameter (learned, the same in all
    states) or fixed (the mean of the teacher's in a dataset)."""
    window: Count | None = None
    """Steps of the windows on which a student with a memory is trained, by back-propagation through all of them.
    Default: 64; for stack:4+mlp:32 single steps."""
    burn_in: Annotated[int, AtLeast(0)] | None = None
    """Steps before each window that fill the memory of the student and teach nothing. Default: 32; for stack:4+mlp:32
    at least the 3 that the stack holds."""
    task_order: Literal["in_turn", "mixed", "random"] | None = None
    """With several tasks: in_turn (each batch has rows of one task), mixed (each batch has rows of all) or random (each
    batch has rows of one task, drawn at random). Default: in_turn."""
    task_weights: Mapping[str, float] | None = None
    """With --task-order mixed or random: shares by task, in Python a mapping, on the command line TASK=WEIGHT,…. Tasks
    that are not named have 1."""
    task_balance: Literal["weights", "gradient_norms"] = "weights"
    """With several tasks: weights (every row counts alike; --task-weights shares rows out) or gradient_norms (each
    task's loss is scaled so that its gradients on the shared layers have the mean norm of all tasks')."""
    add_head: bool = False
    """Keep the heads of --init-from and add one for each new task; the rest stays frozen."""
    train_torso: bool = False
    """With --add-head: train the torso and the old heads too."""
    num_updates: Count | None = None
    """Gradient steps, over all tasks. Default: from the recipe for this kind of teacher (12,000 for images), times the
    number of tasks."""
    batch_size: Count | None = None
    """Rows per update, over all tasks. Default: from the recipe: 64 for images, 256 for vectors, 512 for students with
    recurrent layers."""
    optimizer: Literal["adam", "rmsprop"] = "adam"
    """adam or rmsprop."""
    learning_rate: Annotated[Number | None, PythonOnly()] = None
    """A number, or a schedule: one_cycle:PEAK, 'linear:START->END' or 'cosine:START->END'. Default: what was measured
    to suit this kind of teacher, one_cycle:1e-3@0.1 for images."""
    max_gradient_norm: Annotated[float, Above(0)] = 1.0
    """Gradients are scaled down to this norm; 1e9 leaves them as they are."""
    weight_decay: Annotated[float, AtLeast(0)] = 0.0
    """Weight decay; with adam decoupled from the gradient (AdamW)."""
    held_out_fraction: float | None = None
    """Share of the steps that are never trained on, in whole episodes: at least 0.1, and at least 5 episodes. Default:
    0.1; with --online nothing is held out."""
    evaluate_period: Count = 500
    """Updates between measurements on held-out steps, and between checkpoints."""
    evaluate_episodes: Annotated[int, AtLeast(0)] | None = None
    """Episodes of student, teacher and random play at the end, and of the student at each fifth measurement, on seeds
    used for nothing else (in a VectorEnv at the end alone); 0: none. Default: 10, at the end alone and as far as they
    end within a minute; none for Atari and for environments given as Python objects. With --online: episodes of
    learner, best policy and student at each evaluation, by default 10."""
    init_from: PathLike | None = None
    """Policy file whose weights the student begins with."""

    @property
    def further(self) -> dict[str, str]:
        """What the student learns besides the teacher's outputs: by the name of the field, the option that says so."""
        weights = {"value": "value_weight", "features": "feature_weight"}
        return {field: option for field, option in weights.items() if getattr(self, option) > 0}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.add_head and self.init_from is None:
            raise UsageError("add_head belongs with init_from, which names the student that gets the head.")
        if self.train_torso and not self.add_head:
            raise UsageError("train_torso belongs with add_head: without it the whole student is trained.")


_OF_ONE_STUDENT = (
    *("student", "init_from", "add_head", "evaluate_episodes", "feature_weight", "value_weight", "task_balance"),
)


@dataclass(frozen=True)
class DistillSeveral(DistillOptions):
    """Train several students at once on what a teacher says."""

    help_title: ClassVar[str] = "several students"
    _: KW_ONLY
    students: str | Sequence[str] | None = None
    """Networks that learn at once, of vectors alone: in Python a list, on the command line mlp:8,mlp:16x16."""
    seeds: int | Sequence[int] | None = None
    """With --students: seeds of their weights, in Python a list, on the command line with commas between. Every network
    learns from each. What they learn on follows from --seed and is the same for all. Default: that of --seed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for item in self.source if isinstance(self.source, list | tuple) else [self.source]:
            if isinstance(item, Live) and (item.lookahead or item.value_gate is not None):
                name = "lookahead" if item.lookahead else "value_gate"
                raise UsageError(f"{name} learns from the play of one student and does not go with students.")
        for name in _OF_ONE_STUDENT:
            if getattr(self, name) != default_values(DistillOptions)[name]:
                raise UsageError(f"{name} is of one student and does not go with students. Leave one of the two out.")
        if self.students is None:
            raise UsageError(f"seeds: got {self.seeds} without students, the networks that they are for: mlp:8,mlp:16.")
        if not self.networks or len(set(self.networks)) < len(self.networks):
            raise UsageError(f"students: got {list(self.networks)}, expected networks such as mlp:8, each once.")
        seeds = self.weight_seeds
        if not all(is_whole(seed, least=0) for seed in seeds) or not 0 < len(set(seeds)) == len(seeds):
            raise UsageError(f"seeds: got {list(seeds)}, expected whole numbers, 0 or more, each once.")

    @property
    def networks(self) -> Sequence[str]:
        """Names of the networks."""
        return (self.students,) if isinstance(self.students, str) else tuple(self.students or ())

    @property
    def weight_seeds(self) -> Sequence[int]:
        """Seeds of the weights."""
        given = self.seed if self.seeds is None else self.seeds
        return (given,) if isinstance(given, int) else tuple(given)

    @property
    def pairs(self) -> list[tuple[str, int]]:
        """Every student: its network, and the seed of its weights."""
        return [(network, seed) for network in self.networks for seed in self.weight_seeds]

    def of_one(self, network: str) -> DistillOptions:
        """Return the options of a run of one student."""
        own: dict[str, Any] = {name: getattr(self, name) for name in option_types(DistillOptions)}
        own["student"] = network
        return DistillOptions(**own)
