"""Options that several verbs share, in groups; the command line's help shows each group by itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from rldistill.errors import UsageError
from rldistill.events import Callback, check_callbacks
from rldistill.options.declaration import AtLeast, Between, Options, PythonOnly, Share, option_types, values

if TYPE_CHECKING:
    from rldistill.envs import TaskLike as TaskLike
    from rldistill.loading.named import PolicyLike
    from rldistill.loading.several import Choose

    TeacherLike = PolicyLike | Mapping[str, PolicyLike]
else:  # The command line reads these files and must not wait for torch: of what may be named, it knows the texts.
    Choose, PolicyLike, TaskLike, TeacherLike = str, Path, str, tuple[Path, ...]

# Each environment takes memory of its own, and a mistyped number would fill the machine's.
NumEnvs = Annotated[int, Between(1, 4096)]


@dataclass(frozen=True, kw_only=True)
class Machine(Options):
    """Where the work is done, and with which seed."""

    help_title: ClassVar[str] = "seed and machine"
    seed: Annotated[int, AtLeast(0)] = 0
    """Seed of everything random. Episode i depends on (seed, i) alone."""
    num_threads: Annotated[int, Between(0, 1024)] = 0  # so many more that the system cannot start them end in a crash
    """Threads of torch and of the emulator. 0: one per processor."""
    device: str = "auto"
    """Where networks are computed: cpu, cuda, or auto (cuda if there is a GPU)."""


@dataclass(frozen=True, kw_only=True)
class TrainingMachine(Machine):
    """Number format in which a network is trained."""

    help_title: ClassVar[str] = "precision"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """float32, bfloat16, or auto: bfloat16 for images, on GPUs and processors that compute in it."""


@dataclass(frozen=True, kw_only=True)
class Environments(Options):
    """How many environments are played at once."""

    help_title: ClassVar[str] = "parallel environments"
    num_envs: NumEnvs = 16
    """Environments played at once; episode i is the same for any number, but which episodes begin depends on it."""


@dataclass(frozen=True, kw_only=True)
class ManyEnvironments(Options):
    """How many environments are played at once."""

    help_title: ClassVar[str] = "parallel environments"
    num_envs: NumEnvs | None = None
    """Environments played at once; episode i is the same for any number. Default: 16; of vectors up to 128, one for
    each episode that is evaluated and for every 2,000 decisions that are stored; of Atari up to 64, one for every two
    episodes and for every 4,000 decisions."""


@dataclass(frozen=True, kw_only=True)
class Folder(Options):
    """What to do if the output folder is not empty."""

    help_title: ClassVar[str] = "output folder"
    resume: bool = False
    """Go on with an earlier run in --out, if there is one."""
    overwrite: bool = False
    """Delete an earlier run in --out first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resume and self.overwrite:
            raise UsageError(
                "--resume and --overwrite exclude each other: one goes on with a run, the other deletes it."
            )


@dataclass(frozen=True, kw_only=True)
class Told(Options):
    """What is told of the work while it is done."""

    callbacks: Annotated[Sequence[Callback], PythonOnly()] = ()
    """Functions that receive events; one that answers True stops the run, which saves its state."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_callbacks(self.callbacks)


@dataclass(frozen=True, kw_only=True)
class Played(Options):
    """How the task is played."""

    help_title: ClassVar[str] = "environment"

    env_kwargs: Mapping[str, Any] | None = None
    """Settings of the environment, such as {"frame_skip": 4}; on the command line a JSON object."""
    exploration_epsilon: Share | None = None
    """Chance of a uniformly random action. Default: the protocol's, 0.05 for Atari and 0 elsewhere."""


@dataclass(frozen=True, kw_only=True)
class StudentSees(Options):
    """The student's observation subset."""

    help_title: ClassVar[str] = "student observations"
    student_sees: str | Sequence[str] | None = None
    """Parts of the observations that the student sees, in order: a list, on the command line with commas between.
    Default: all."""


@dataclass(frozen=True, kw_only=True)
class TeacherSees(Options):
    """The teacher's observation subset."""

    help_title: ClassVar[str] = "teacher observations"
    teacher_sees: str | Sequence[str] | None = None
    """Parts of the observations that the teacher sees, in order: a list, on the command line with commas between.
    Needs --task. Default: all."""


@dataclass(frozen=True, kw_only=True)
class Chosen(Options):
    """Several teachers of one task: a mapping of names to teachers, on the command line NAME=FILE for each."""

    help_title: ClassVar[str] = "several teachers"
    choose: Annotated[Choose | None, PythonOnly()] = None
    """Which teacher labels a step: a part of the observation, an entry of info, or module:function of observations. In
    Python also the function. Its values are the teachers' names, or their places from 0 on. A part may be one-hot."""


@dataclass(frozen=True, kw_only=True)
class PartNames(Options):
    """Names of the parts of observations."""

    help_title: ClassVar[str] = "observation names"
    names: Mapping[str, Sequence[int]] | None = None
    """Names for spans of observations that are vectors. In Python {"velocity": (0, 3), "rest": (3,)}, from a number to
    the one before the second, or to the end. On the command line velocity=0:3,rest=3:, or a file of names as export
    takes it. Default: the names that the environment gives, the keys of a Dict."""


def check_names(names: object, *said: Options) -> None:
    """Check that names of parts are for something that these options say: `student_sees`, `teacher_sees` or `choose`.

    Raises:
        UsageError: they say nothing of it.
    """
    uses = [name for name in ("student_sees", "teacher_sees", "choose") if any(hasattr(own, name) for own in said)]
    if names is not None and all(getattr(own, name, None) is None for own in said for name in uses):
        *others, last = uses
        listing = f"{', '.join(others)} or {last}, which say" if others else f"{last}, which says"
        raise UsageError(f"names belong with {listing} what they are for.")


@dataclass(frozen=True, kw_only=True)
class WhoSees(Chosen, TeacherSees, StudentSees, PartNames, Options):
    """What teachers and student see, of a verb that makes a student of a teacher in one call."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names(self.names, self)

    @property
    def of_student(self) -> dict[str, Any]:
        """What is said of the student's sight, as `distill` takes it."""
        return {} if self.student_sees is None else {"student_sees": self.student_sees, "names": self.names}


# What a call does with its folder, and who hears of it, is not part of what it makes.
_OF_THE_CALL = frozenset({*option_types(Folder), *option_types(Told)})


def recorded(options: Options) -> dict[str, Any]:
    """Return the options and values that make the result, as `config.toml` and a file's record hold them."""
    return {name: value for name, value in values(options).items() if name not in _OF_THE_CALL}
