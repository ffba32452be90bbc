"""Options of `inspect`."""

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, ClassVar

from rldistill.errors import UsageError
from rldistill.options.declaration import AtLeast, Options, PathLike, PythonOnly
from rldistill.options.reading import Reading
from rldistill.options.shared import (
    Machine,
    ManyEnvironments,
    PartNames,
    PolicyLike,
    TaskLike,
    TeacherSees,
    Told,
    check_names,
)


@dataclass(frozen=True)
class VerifyOptions(TeacherSees, PartNames, ManyEnvironments, Machine, Told):
    """With --verify: play the policy, and compare its score with what it is said to score."""

    help_title: ClassVar[str] = "verification"
    policy: Annotated[PolicyLike, PythonOnly()]
    """Policy, or its file."""
    task: Annotated[TaskLike | None, PythonOnly()] = None
    """Task to play. Default: the policy's own."""
    _: KW_ONLY
    env_kwargs: Mapping[str, Any] | None = None
    """Settings of the environment."""
    num_episodes: int = 100
    """Episodes of the policy and of random play."""
    expected_return: float | None = None
    """What the policy is said to score. Default: what was recorded beside its file."""
    expected_standard_error: Annotated[float, AtLeast(0)] | None = None
    """Standard error of --expected-return, where it is known."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names(self.names, self)
        if self.num_episodes < 2:
            raise UsageError(
                f"num_episodes must be 2 or more, got {self.num_episodes}: one episode has no standard error."
            )
        if self.expected_return is not None and not math.isfinite(self.expected_return):
            raise UsageError(f"expected_return must be a number such as 195.5, got {self.expected_return}.")
        if self.expected_standard_error is not None and self.expected_return is None:
            raise UsageError("expected_standard_error belongs with expected_return, which is missing.")


@dataclass(frozen=True)
class InspectOptions(Reading, Options):
    """Describe a policy file, a dataset folder, a run folder or a preset."""

    target: str
    """Policy file, dataset folder, run folder, or a preset such as net3."""
    heads: str | None = None
    """With a preset: outputs of each head, such as 3,3,6. Default: one head of 18."""
    task: str | None = None
    """Task that the policy plays, if its file does not name one."""
    env_kwargs: Mapping[str, Any] | None = None
    """Settings of the environment, such as {"frame_skip": 4}; on the command line a JSON object."""
    against: PathLike | None = None
    """Another export, policy or contract: say term by term how what goes in and comes out differs (exit 1 if it
    does)."""
    full: bool = False
    """Show everything: also the configuration of the run, and all numbers of long lists."""
    verify: bool = False
    """Play the policy, and compare its score with random play and with what it is said to score (exit 1 if they
    differ). """

    def __post_init__(self) -> None:
        super().__post_init__()
        texts = [] if self.heads is None else self.heads.split(",")
        if not all(text.strip().isdecimal() and int(text) > 0 for text in texts):
            raise UsageError(f"heads: got {self.heads!r}, expected positive integers such as 3,3,6.")
        if self.verify and self.heads is not None:
            raise UsageError("--verify plays a policy: --heads belongs with a preset.")
        if self.env_kwargs and self.task is None and not self.verify:
            raise UsageError("env_kwargs are settings of the environment: they belong with --task or --verify.")
        further = [name for name in ("heads", "env_kwargs", "full", "verify") if getattr(self, name)]
        if self.against is not None and further:
            raise UsageError(f"--against compares two contracts: {' and '.join(further)} does not apply. Leave it out.")

    @property
    def head_sizes(self) -> tuple[int, ...]:
        """The heads as numbers."""
        return () if self.heads is None else tuple(int(text) for text in self.heads.split(","))
