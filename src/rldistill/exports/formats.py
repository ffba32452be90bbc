"""What a policy is exported to: one format per kind of file, each written, read back and run to be verified.

A writer gets an `Export` and a path in a folder of its own: whatever it writes there is moved beside `--out` once it is
verified, so that nothing half-written is ever seen under the name that was asked for.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rldistill.adapters.load import LoadedPolicy, acting, load_with
from rldistill.envs import PlayableTask
from rldistill.errors import UsageError
from rldistill.exports.contract import Score
from rldistill.options.reading import Reading
from rldistill.policies import Policy, TorchPolicy
from rldistill.sight import shown_to

Precision = Literal["float32", "float16", "int8"]
ACTION = "action"
"""What programs call the output that is the greedy action; their other outputs are named as in `PolicyOutput`."""
Decide = Callable[[NDArray[Any]], object]
"""One observation, `[1, *observation_shape]`, to an action, in the way of who runs the file."""

Opened = tuple[Policy, Decide] | tuple[None, None]
"""What was written: the policy that it is, and its decisions; None where this machine cannot run it."""


@dataclass(frozen=True)
class Sample:
    """Real observations, and what the policy remembered of their episodes before each of them."""

    observations: NDArray[np.generic]  # `[N, *observation_shape]`
    state: tuple[Tensor, ...] = ()  # `[N, …]` each; none: it remembers nothing


@dataclass(frozen=True)
class Export:
    """A policy on its way out."""

    policy: TorchPolicy  # plays the head that is exported, on the CPU; it sees all of what it is given (`as_seen`)
    contract: Mapping[str, Any]  # `contract.make_contract`
    whole: TorchPolicy | None = None  # the same as its file has it, where it takes its own parts of what it is given
    precision: Precision = "float32"
    gives_probabilities: bool = False  # whether choices come with their probabilities, too
    calibration: Sample | None = None  # of the dataset, where there is one: the ranges of int8 come from it
    playable: PlayableTask | None = None  # the policy's task, where it can be made here
    score: Score | None = None  # of the policy, where it was measured
    played: str | None = None  # the task that it was measured on; None: its own
    license: str | None = None  # of its teacher, where the user said it


@dataclass(frozen=True)
class Written:
    """What a writer knows of what it wrote, beside the files themselves."""

    data: Mapping[str, Any]  # plain JSON data, for the report
    text: str  # a line for people


@dataclass(frozen=True)
class ExportFormat:
    """One format."""

    name: str  # as `--to` has it
    suffix: str  # of its files; empty: a folder
    precisions: tuple[Precision, ...]
    write: Callable[[Export, Path], Written | None]
    # As users of the file read it, to be verified, and as they decide with it on one thread, to be timed.
    open: Callable[[Export, Path], Opened]
    companions: tuple[str, ...] = ()  # suffixes of the files that may be written beside it
    # Of a file that is to lie under another stem: makes it name its companions by that, too.
    rename: Callable[[Path, str], None] | None = None
    contents: tuple[str, ...] = ()  # names of the files in it, where it is a folder
    may_give_probabilities: bool = True  # whether its files have named outputs, to which they can be added
    keeps_state: bool = True  # whether its files can hold a policy that remembers
    keeps_spread: bool = True  # whether its files can hold any spread of a Gaussian, also one that depends on the state
    needs_bounds: bool = False  # whether the library refuses boxes of actions that have none
    # Raises an `RldistillError` where a package that writes it is missing: before anything is played.
    check_packages: Callable[[], object] | None = None
    needs_layers: bool = True  # whether it is written from a description of the layers, which a user's module lacks


def write_from_memory(path: Path, save: Callable[[io.BytesIO], object]) -> None:
    """Write a file that torch makes: where torch writes to a disk itself, a full one may end the process."""
    buffer = io.BytesIO()
    save(buffer)
    path.write_bytes(buffer.getbuffer())


def as_seen(policy: TorchPolicy) -> TorchPolicy:
    """Return the same weights for a task that shows what the policy sees, and nothing else."""
    sight = policy.spec.sight
    if sight is None:
        return policy
    heads = tuple(replace(head, task=shown_to(head.task, sight)) for head in policy.spec.heads)
    return policy.with_spec(heads=heads, sight=None)


def read_back(export: Export, path: Path, reading: Reading) -> LoadedPolicy:
    """Return what our own loader reads of the file, acting as the policy does."""
    policy = load_with(path, reading, device="cpu", task=export.policy.tasks[0])
    return acting(policy, export.policy.behaviour)


def format_of(formats: Mapping[str, ExportFormat], name: str | None, out: Path) -> ExportFormat:
    """Return the format that is named, or the one whose files end as `out` does.

    Raises:
        UsageError: there is none, or `out` ends as the files of another format do.
    """
    if not out.name:
        raise UsageError(f"--out {out}: got a folder that is there already, expected a name for what is written.")
    by_suffix = [own for own in formats.values() if own.suffix and own.suffix == out.suffix]
    if name is None:
        if by_suffix:
            return by_suffix[0]
        known = ", ".join(f"{own.name} ({own.suffix or 'a folder'})" for own in formats.values())
        raise UsageError(f"--out {out}: its ending names no format. Add --to: one of {known}.")
    if name not in formats:
        raise UsageError(f"--to: got {name!r}, expected one of {', '.join(formats)}.")
    chosen = formats[name]
    if out.suffix != chosen.suffix and (by_suffix or chosen.suffix):
        expected = f"a file ending in {chosen.suffix}" if chosen.suffix else "a folder"
        raise UsageError(f"--out {out}: got a path ending in {out.suffix!r}, expected {expected} for --to {name}.")
    return chosen
