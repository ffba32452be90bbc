"""The contract of an export of ours (`exports.contract`) that lies in a program's file: what it says of how to read it.

A stranger's file may hold any JSON in its place. What cannot be read says nothing: then the user must.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from rldistill.adapters.program import Program, ProgramPolicy
from rldistill.envs.extended import observed_as
from rldistill.errors import RldistillError
from rldistill.limits import read_json
from rldistill.options.reading import Reading
from rldistill.tasks import ATARI_PREFIX, UNNAMED_TASK, ObservationFingerprint, Task
from rldistill.types import ActionLayout

CONTRACT_FILE = "contract.json"
"""Where it lies in a TorchScript or torch.export archive (`_extra_files`, `extra_files`)."""

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Contract:
    """What a contract says, as far as it can be read."""

    task: Task | None = None  # that it names, as it describes it: nothing is made of it before it is played
    samples: bool = False  # whether the policy draws its actions
    takes_bytes: bool = False  # whether it takes bytes, which a TorchScript file itself does not say

    @classmethod
    def read(cls, text: str | bytes | None) -> "Contract":
        """Read a contract; None: the file holds none."""
        try:
            content = read_json(text or "{}")
        except ValueError:
            return cls()
        behaviour = _said(lambda: content["policy"]["behaviour"])
        return cls(
            _said(lambda: _task(content)),
            behaviour == "sample",
            _said(lambda: content["observation"]["dtype"]) == "uint8",
        )

    def task_for(self, named: Task | None) -> Task | None:
        """Return the task that the user names, with what the policy sees beside it (a clock); else the contract's."""
        if named is None or self.task is None:
            return named or self.task
        return observed_as(named, self.task.fingerprint)

    def policy(self, program: Program, task: Task | None, reading: Reading) -> ProgramPolicy:
        """Return a program as a policy that is read as its user says, and acts as the contract does where they do not.

        Raises as `ProgramPolicy.create`.
        """
        policy = ProgramPolicy.create(
            program,
            self.task_for(task),
            outputs=reading.outputs,
            behaviour=reading.behaviour or "greedy",
            input_scale=reading.input_scale,
        )
        # Of actions themselves there is nothing to draw.
        if reading.behaviour is None and policy.output_kind != "actions" and self.samples:
            return policy.acting("sample")
        return policy


def _said(read: Callable[[], _Value]) -> _Value | None:
    """Return what is read of a contract; None where it says something else."""
    try:
        return read()
    except (KeyError, IndexError, TypeError, ValueError, ArithmeticError, AttributeError, RldistillError):
        return None


def _task(contract: Any) -> Task:  # noqa: ANN401 (JSON of a stranger)
    """Return the task that a contract names; raises what a contract of another form leads to."""
    observation, task = contract["observation"], contract["task"]
    terms = observation["terms"]
    clocks = [term["clock"]["steps"] for term in terms if "clock" in term]
    seen = ObservationFingerprint(
        tuple(observation["shape"]),
        observation["dtype"],
        _layout(contract["action"]),
        zero_padding=sum(end - start for start, end in (term["slice"] for term in terms if "constant" in term)),
        time_feature=clocks[0] if clocks else None,
    )
    # It does not say how frames are made, without which a game of Atari looks like another one.
    name = UNNAMED_TASK if task["name"].startswith(ATARI_PREFIX) else task["name"]
    return Task(name, seen, environment_kwargs=task["environment_kwargs"])


def _layout(action: Mapping[str, Any]) -> ActionLayout:
    """Return the layout of a contract's actions; raises what a contract of another form leads to."""
    kind, terms = action["kind"], action["terms"]
    if kind != "box":
        choices = tuple(number for term in terms for number in term["choices"])
        # Of yes and no the contract says two choices each, a layout how many there are.
        return ActionLayout(kind, (len(choices),) if kind == "multi_binary" else choices)
    # Beyond a bound that is null there is none.
    sides = [[bound for term in terms for bound in term["clip"][side]] for side in (0, 1)]
    low, high = (
        tuple(other if bound is None else float(bound) for bound in own)
        for own, other in zip(sides, (-math.inf, math.inf), strict=True)
    )
    squashes = any(term["squash"] == "tanh" for term in terms)
    return ActionLayout("box", (len(low),), low, high, "tanh_rescale" if squashes else "clip")
