"""A policy made of several, one of which answers for each row: the teachers of one task, where data say which.

What says so is a part of the observation, an entry of the environment's `info`, or a function of observations. Whoever
plays the task meets one policy: it labels, it acts, and its states are those of all its members. A member sees its own
rows alone, and what it remembers of an environment stays as it was while another answers there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rldistill.envs import EpisodeEnvs
from rldistill.errors import MismatchError, RldistillError, UsageError, first_line, listed, shortened, shown
from rldistill.observations import Tensors, as_tensors, num_rows
from rldistill.policies.behaviour import Behaviour
from rldistill.policies.padded import check_state, probe_rows
from rldistill.policies.protocol import ActsByOutputs, Observations, Policy
from rldistill.sight import Sight
from rldistill.storage import canonical_json, sha256_bytes
from rldistill.tasks import Task
from rldistill.types import ActionLayout, OutputKind, PolicyOutput, State

_NUM_PROBED = 64  # observations by which a function is told from another


@dataclass(frozen=True)
class Choice:
    """What says which policy a row belongs to: one of the three."""

    sight: Sight | None = None  # the part of the observation; None: it is not said there
    entry: str | None = None  # name of an entry of `info`; None: it is not said there
    parts: tuple[str, ...] = ()  # names of the observation's parts, where it might have been meant to be one of them
    # From observations, `[B, ...]` or their parts by name, to `[B]`; None: there is none.
    function: Callable[[Any], Any] | None = None

    def told(self, envs: EpisodeEnvs, slots: Sequence[int]) -> list[Any] | None:
        """Return what each slot's environment said last in its `info`; None: `info` does not choose.

        Raises:
            MismatchError: their `info` has no such entry.
        """
        if self.entry is None:
            return None
        try:
            return envs.info(self.entry, slots)
        except MismatchError as error:
            parts = f" The observation has the parts {listed(self.parts)}." if self.parts else ""
            raise MismatchError(f"choose: {error}{parts}") from error

    @property
    def text(self) -> str:
        """How records and messages call it."""
        if self.function is not None:
            name = getattr(self.function, "__qualname__", type(self.function).__name__)
            return f"{getattr(self.function, '__module__', '')}:{name}"
        return self.entry or (self.sight.parts[0] if self.sight is not None else "")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        kind = "function" if self.function is not None else "info" if self.entry is not None else "part"
        spans = {} if self.sight is None else {name: list(span) for name, span in self.sight.spans.items()}
        return {kind: self.text, **({"names": spans} if spans else {})}

    def values(self, rows: Tensors) -> NDArray[Any]:
        """Return what is said of rows, `[B]` or one-hot `[B, K]`; of an entry of `info` only play knows.

        Raises:
            MismatchError: the function failed, or gave something else than a value for each row.
        """
        if self.sight is not None:
            part = self.sight.choose(rows)
            assert isinstance(part, Tensor), "it is one part"
            return part.flatten(1).cpu().numpy()
        if self.function is None:
            raise UsageError(f"choose: {self.text!r} is an entry of info, which a policy gets only while it plays.")
        given = rows.cpu().numpy() if isinstance(rows, Tensor) else {name: p.cpu().numpy() for name, p in rows.items()}
        return self._asked(self.function, given, num_rows(rows))

    def _asked(self, function: Callable[[Any], Any], given: object, num: int) -> NDArray[Any]:
        try:
            answer = function(given)
        except RldistillError:
            raise
        except Exception as error:  # whatever a user's own code raises
            said = f": {first_line(error)}" if str(error) else ""
            form = "their parts by name" if isinstance(given, dict) else "one array of them, [B, …]"
            raise MismatchError(
                f"choose: {self.text} failed on {num} observations: {type(error).__name__}{said}. It is called with "
                f"{form}, and nothing else."
            ) from error
        try:
            values = np.asarray(answer)
            got = f"a value of shape {list(values.shape)}" if values.ndim else f"one {type(answer).__name__}"
        except (TypeError, ValueError, RuntimeError):  # lists of several lengths, tensors elsewhere
            values, got = np.empty(0), f"a {type(answer).__name__} that is no array"
        if values.ndim and len(values) == num:
            return values
        raise MismatchError(
            f"choose: {self.text} gave {got} for {num} observations, expected one value for each, [{num}]: the name of "
            "its teacher, or its place from 0 on."
        )


def places(values: NDArray[Any], names: Sequence[str], text: str) -> NDArray[np.intp]:
    """Return whose each row is, `[B]`, as a place among the names.

    Args:
        values: `[B]`, names or numbers; a number is a name where all names are numbers, else a place; or as many
            numbers as there are names, one of which is 1, `[B, K]`.
        names: of the policies.
        text: what the values are called.

    Raises:
        MismatchError: a value that no policy has.
    """
    values = values.reshape(len(values), -1)
    if values.shape[1] not in (1, len(names)):
        raise MismatchError(
            f"choose: {text} gives {values.shape[1]} values for a row, expected 1, or {len(names)} of which one is 1: "
            f"the teachers are {', '.join(names)}."
        )
    are_numbers = all(name.isdecimal() for name in names)
    if values.shape[1] == len(names) > 1:  # one-hot
        is_one = values == 1
        found = np.where(is_one.any(axis=1) & ((values != 0).sum(axis=1) == 1), is_one.argmax(axis=1), -1)
    else:
        known: dict[Any, int] = {name: place for place, name in enumerate(names)}
        known |= {int(name) if are_numbers else place: place for place, name in enumerate(names)}
        found = np.array([known.get(_plain(row[0]), -1) for row in values], np.intp)
    if (found < 0).any():
        given = values[int(np.flatnonzero(found < 0)[0])].tolist()
        numbered = [name if are_numbers else f"{place} ({name})" for place, name in enumerate(names)]
        listed = ", ".join(names) if values.dtype.kind in "USO" else ", ".join(numbered)
        got = shown(given[0]) if len(given) == 1 else shortened(str(given), 60)
        raise MismatchError(
            f"choose: {text} says {got} of a row, expected {listed}. Name a "
            "teacher for it, or choose by something else."
        )
    return found


def _plain(value: Any) -> Any:  # noqa: ANN401 (a NumPy scalar, a text, or whatever info holds)
    """Return a value as a key: text, or a number; a whole number is the same in each type."""
    value = value.item() if isinstance(value, np.generic) else value
    return str(value) if isinstance(value, bytes) else value if isinstance(value, str | float | int) else shown(value)


class SwitchedPolicy(ActsByOutputs):
    """Plays a task by several policies, the one that a row belongs to; the `Policy` protocol around all of them.

    Args:
        members: by name; each plays the task.
        task: that they play.
        choice: what says whose a row is.

    Raises:
        MismatchError: the policies answer or act in different ways: a student learns one.
    """

    def __init__(self, members: Mapping[str, Policy], task: Task, choice: Choice) -> None:
        self.members, self.choice = dict(members), choice
        self._policies = tuple(self.members.values())
        first = self._policies[0]
        ways = {
            "outputs": [policy.output_kind for policy in self._policies],
            "behaviour": [policy.behaviour for policy in self._policies],
            "actions": [policy.tasks[0].fingerprint.action_layout for policy in self._policies],
        }
        for what, own in ways.items():
            for name, way in zip(self.members, own, strict=True):
                if way != own[0]:
                    way_on = " Say how all act: --behaviour greedy or sample." if what == "behaviour" else ""
                    raise MismatchError(
                        f"choose: teachers of one task need the same {what}, got {shown(own[0])} of "
                        f"{next(iter(self.members))} and {shown(way)} of {name}.{way_on}"
                    )
        self.name = "+".join(self.members)
        self.output_kind: OutputKind = first.output_kind
        self.behaviour: Behaviour = first.behaviour
        layout = first.tasks[0].fingerprint.action_layout
        self._task = replace(task, fingerprint=replace(task.fingerprint, action_layout=layout))
        self.tasks = (self._task,)
        # Of each policy, where its own parts of the state lie.
        ends = accumulate((len(policy.initial_state(1) or ()) for policy in self._policies), initial=0)
        self._spans = [slice(*ends_of_one) for ends_of_one in pairwise(ends)]

    @property
    def hash(self) -> str:
        """SHA-256 over the policies' own, their names, and what chooses among them."""
        said = {"members": {name: policy.hash for name, policy in self.members.items()}}
        said |= {"choose": self.choice.to_dict() | self._answers_of_function()}
        return sha256_bytes(canonical_json(said).encode())

    def _answers_of_function(self) -> dict[str, Any]:
        """Return what a function says of fixed observations: as lambdas show, its name alone does not tell it."""
        if self.choice.function is None:
            return {}
        fingerprint = self._task.fingerprint
        rows = as_tensors(probe_rows(fingerprint, _NUM_PROBED).numpy(), fingerprint)
        try:
            values = self.choice.values(rows)
        except MismatchError:  # what is made up may be nothing that it knows
            return {}
        return {"answers": [shown(_plain(value)) for value in values.ravel()]}

    def mapped(self, change: Callable[[Policy], Policy]) -> "SwitchedPolicy":
        """Return the same with each policy changed likewise."""
        return SwitchedPolicy({name: change(own) for name, own in self.members.items()}, self._task, self.choice)

    def __call__(self, observations: Observations, state: State = None) -> tuple[PolicyOutput, State]:
        """Return outputs for observations of the task, and the next state. Raises UsageError: `info` chooses."""
        return self.answer(observations, state)

    def answer(
        self, observations: Observations, state: State = None, told: Sequence[Any] | None = None
    ) -> tuple[PolicyOutput, State]:
        """Return what `__call__` does, for rows of which `info` told these values.

        Raises:
            MismatchError: a value that no policy has, or a state of another number of environments.
        """
        rows = as_tensors(observations, self._task.fingerprint)
        said = self.choice.values(rows) if told is None else _as_array(told)
        whose = places(said, tuple(self.members), self.choice.text)
        if len(whose) != num_rows(rows):
            raise MismatchError(f"choose: {self.choice.text} gave {len(whose)} values for {num_rows(rows)} rows.")
        initial = self.initial_state(len(whose))
        if initial is not None and state is not None:
            check_state(self.name, state, initial)
        state = initial if state is None else state
        following = [part.clone() for part in state or ()]
        answers: list[tuple[Tensor, PolicyOutput]] = []
        for place, (policy, span) in enumerate(zip(self._policies, self._spans, strict=True)):
            own = torch.from_numpy(np.flatnonzero(whose == place))
            if len(own):
                kept = tuple(part[own] for part in following[span]) or None
                output, after = policy(_rows_of(rows, own), kept)
                answers.append((own, output))
                for part, new in zip(following[span], after or (), strict=True):
                    part[own] = new
        layout = self._task.fingerprint.action_layout
        return _joined(answers, layout, torch.from_numpy(whose)), tuple(following) or None

    def initial_state(self, num_envs: int) -> State:
        """Return what all policies remember at the start of an episode, one after the other."""
        states = [part for policy in self._policies for part in policy.initial_state(num_envs) or ()]
        return tuple(states) or None

    def for_task(self, name: str) -> "SwitchedPolicy":
        """Return itself, for its own task. Raises MismatchError: another task."""
        if name != self._task.name:
            raise MismatchError(f"Policies {self.name} play {self._task.name}, got task {name!r}.")
        return self

    def save(self, path: str | Path) -> None:
        """Refuse: each policy has a file of its own."""
        raise UsageError(f"{path}: {self.name} are several policies, which are saved one by one.")


def _as_array(told: Sequence[Any]) -> NDArray[Any]:
    """Return values `[B]` of `info` as an array; of several types as objects."""
    # Several types, or arrays of several lengths: a message shows them as they are.
    if len({(type(value), np.shape(value)) for value in told}) > 1:
        values = np.empty(len(told), object)
        values[:] = told
        return values
    return np.asarray(told)


def _rows_of(rows: Tensors, own: Tensor) -> Tensors:
    return rows[own] if isinstance(rows, Tensor) else {name: part[own] for name, part in rows.items()}


def _joined(answers: Sequence[tuple[Tensor, PolicyOutput]], layout: ActionLayout, whose: Tensor) -> PolicyOutput:
    """Return one output of what each policy said of its rows."""

    def scattered(name: str) -> Tensor | None:
        parts = [(own, getattr(output, name)) for own, output in answers]
        first = parts[0][1]
        if any(part is None or part.shape[1:] != first.shape[1:] for _, part in parts):
            return None
        column = first.new_empty((len(whose), *first.shape[1:]))
        for own, part in parts:
            column[own] = part
        return column

    raw = scattered("raw")
    assert raw is not None, "the policies have the same outputs"
    value, features = scattered("value"), scattered("features")
    output = PolicyOutput.from_raw(layout, answers[0][1].kind, raw, value=value, features=features)
    return replace(output, teacher=whose)
