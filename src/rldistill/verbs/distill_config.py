"""The configuration of `distill`."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from rldistill.checks import check_not_negative, check_num_envs, check_positive, check_types
from rldistill.errors import UsageError

AUTO_STUDENT = "auto"
"""A network that follows from the observations and the teachers' size."""


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Train a student on what a teacher said."""

    data: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Dataset folder; several, one per task, for a student with a head for each."""
    teacher: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """Instead of a dataset: policy file of a teacher that plays while the student learns; once for each."""
    task: str | None = None
    """With --teacher and --online: task to play, several separated by commas; none: the teacher's own. With a dataset:
    its own task, to allow --evaluate-episodes to import the module in `module:EnvId`."""
    trust: bool = False
    """With --teacher: a file that is a program (TorchScript, torch.export) may run the code in it; ONNX runs without
    limits."""
    outputs: str | None = None
    """With --teacher: what a file gives that does not say it: q_values, logits, gaussian or actions; of several outputs
    also which, such as logits=policy or gaussian=mu,log_std. Of a box whose bounds -1 and 1 stand for:
    actions=rescale."""
    input_scale: str | None = None
    """With --teacher: of a program that takes floats where the task gives bytes: 1 if it scales them itself,
    else 1/255."""
    activation: str | None = None
    """With --teacher: of a checkpoint, which does not say it: elu, relu, tanh, …; none: elu for rsl_rl's, that of the
    script for CleanRL's."""
    normalizer: Path | None = None
    """With --teacher: running statistics of its observations: vecnormalize.pkl, or an .npz or .safetensors with mean
    and var; none: what lies beside a Stable-Baselines3 zip; the word none: without."""
    behaviour: str | None = None
    """With --teacher: how it acts: greedy, or sample from its distribution. Default: as its file says, but a Gaussian
    is sampled while it is recorded."""
    online: bool = False
    """Instead of a dataset: teach the student while its teacher learns --task."""
    algorithm: str | None = None
    """With --online: how the teacher learns, pqn or dqn; none: pqn."""
    num_steps: int | None = None
    """With --online: decisions of the learner; none: 2,500,000."""
    learner: str = "{}"
    """With --online: other options of train-teacher as JSON, such as '{"learning_rate": 1e-4}'."""
    online_teacher: str = "best"
    """With --online: best (the learner's best policy so far, by evaluation) or current (as it is)."""
    judge_period: int = 100_000
    """With --online: decisions of the learner between evaluations of learner and student."""
    env_kwargs: str = "{}"
    """With --teacher and --online: settings of the task as JSON, such as '{"frame_skip": 4}'."""
    exploration_epsilon: float | None = None
    """With --teacher: chance of a uniformly random action; with --online: in evaluations alone; none: the
    protocol's, 0.05 for Atari."""
    collect_steps: int = 54_000
    """With --teacher: decisions of each task played before each collect-period of updates."""
    collect_period: int = 10_000
    """With --teacher: updates between collections; a last one for less than half as many is left out."""
    replay_capacity: int = 540_000
    """With --teacher: decisions of each task that are kept, the newest."""
    out: Path
    """Run folder."""
    student: str = AUTO_STUDENT
    """Preset (dqn, net1, net2, net3, multitask3, multitask10), mlp:64x64, conv:8-8-8:32 or combined:8-8-8:32:64; a
    last :16 gives each head a hidden layer of its own; auto: one that fits the observations and has at most half as
    many parameters as its teacher."""
    loss: str | None = None
    """nll, q_mse, sharpened_kl, softened_kl or reverse_kl, of continuous actions diag_gaussian_kl,
    reverse_diag_gaussian_kl, mean_mse or mean_huber; for all tasks or as TASK=LOSS,…; none: what suits the
    teacher's outputs."""
    std: str = "state"
    """Spread of a Gaussian student: state (a layer of its own), parameter (learned, the same in all states)
    or fixed (the teacher's, on average)."""
    temperature: str | None = None
    """A number, or a schedule such as 'linear:0.2->0.01@0.5', for all tasks or as TASK=…,…; none: 0.01
    for Q-values, 1 for logits; auto: 1/7 of the median gap between the teacher's best two actions."""
    task_order: str = "in_turn"
    """With several tasks: in_turn (each batch one task's), mixed (each batch has rows of all), random."""
    task_weights: str | None = None
    """With mixed and random: shares as TASK=WEIGHT,…; a task that is not named has 1."""
    add_head: bool = False
    """Keep the heads of --init-from and add one per new task; the rest stays frozen."""
    train_torso: bool = False
    """With --add-head: train the torso and the old heads too."""
    num_updates: int = 12_000
    """Gradient steps, over all tasks."""
    batch_size: int = 128
    """Rows per update, over all tasks."""
    optimizer: str = "adam"
    """adam or rmsprop."""
    learning_rate: str = "one_cycle:1e-3"
    """A number, or a schedule: one_cycle:PEAK, 'linear:START->END', 'cosine:START->END'."""
    max_gradient_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    weight_decay: float = 0.0
    """Decay of weights, decoupled from the gradient in adam."""
    precision: str = "auto"
    """auto, float32 or bfloat16."""
    held_out_fraction: float = 0.1
    """Share of steps never trained on, in whole episodes; at least 0.1 and 5 episodes."""
    evaluate_period: int = 500
    """Updates between measurements on held-out steps; also between checkpoints."""
    evaluate_episodes: int | None = None
    """Episodes of student, teacher and random play at the end, and of the student at each fifth measurement, on seeds
    used for nothing else; 0: none. Default: 10 at the end alone, as far as they end within a minute, none of Atari
    nor of an environment given as a Python object. With --online: of learner, best policy and student at each
    evaluation. Default: 10."""
    init_from: Path | None = None
    """Policy file whose weights to begin with."""
    seed: int = 0
    """Seed of everything random."""
    num_envs: int = 16
    """Environments in which the student is evaluated."""
    num_threads: int = 0
    """Threads of torch and of the emulator; 0: one per processor."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def __post_init__(self) -> None:
        check_types(self)
        check_positive(self, "num_updates", "batch_size", "evaluate_period")
        check_num_envs(self.num_envs)
        check_positive(self, "collect_steps", "collect_period", "replay_capacity", "judge_period")
        check_not_negative(self, "weight_decay", "seed", "num_threads")
        if self.evaluate_episodes is not None:
            check_not_negative(self, "evaluate_episodes")
        if not self.max_gradient_norm > 0:
            raise UsageError(f"max_gradient_norm must be > 0, got {self.max_gradient_norm}.")
        if self.online_teacher not in ("best", "current"):
            raise UsageError(f"online_teacher: got {self.online_teacher!r}, expected best or current.")
        if self.add_head and self.init_from is None:
            raise UsageError("add_head belongs with init_from, which names the student that gets the head.")
        if self.train_torso and not self.add_head:
            raise UsageError("train_torso belongs with add_head: without it the whole student is trained.")
