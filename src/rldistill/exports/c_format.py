"""C files: a C99 source and its header, in float32 or int8; compiled on this machine to be verified."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rldistill.adapters.program import Program, ProgramPolicy, ProgramState
from rldistill.errors import RldistillError, UsageError, shown
from rldistill.exports.c.footprint import Footprint
from rldistill.exports.c.library import Library, compile_c, find_compiler
from rldistill.exports.c.plan import Plan, make_plan, refusals_of
from rldistill.exports.c.quantize import QuantizedPlan, quantize
from rldistill.exports.c.source import write_c
from rldistill.exports.c.text import identifier
from rldistill.exports.formats import ACTION, Export, ExportFormat, Opened, Written
from rldistill.exports.states import state_parts
from rldistill.policies import Policy
from rldistill.types import OUTPUT_FIELDS, ActionLayout

_HEADER = ".h"
_STATE = "state"
# Rows on which whole numbers of C and of Python must be the same.
_COMPARED_ROWS = 256


def write(export: Export, path: Path) -> Written:
    """Write a policy as a source and a header beside it.

    Raises:
        MismatchError: a layer that C is not written for.
    """
    plan = planned(export)
    source = write_c(path.stem, plan, list(_contract_lines(export.contract)))
    footprint = Footprint.of(plan, source)
    path.write_text(source.source, encoding="utf-8")
    path.with_suffix(_HEADER).write_text(source.header, encoding="utf-8")
    return Written(dict(vars(footprint)), str(footprint))


def check_plan(export: Export, most: Mapping[str, int]) -> None:
    """Check that C is written for a policy, and will keep within `flash` and `ram`, in bytes, as far as they are given.

    Raises:
        MismatchError: a layer that C is not written for.
        RldistillError: it needs more.
    """
    plan = planned(export)
    if most:
        Footprint.of(plan, write_c("policy", plan, ())).check_fits(most)


def check_file_name(path: Path) -> None:
    """Check that the source can include its header by name.

    Raises:
        UsageError: the name holds what ends a name in C, or means something else there.
    """
    stem = path.stem
    if any(mark in stem for mark in ('"', "'", "\\", "/*", "??")) or not stem.isprintable():
        raise UsageError(
            f"--out: got the file name {shown(stem)}, which C cannot include. Expected one of printable characters "
            "without quotes, backslashes and ??."
        )


def planned(export: Export) -> Plan | QuantizedPlan:
    """Return what the C of a policy computes.

    Raises:
        MismatchError: a layer that C is not written for, or not in int8.
    """
    with refusals_of("C", "Export it as onnx"):
        plan = make_plan(export.policy)
    if export.precision == "float32":
        return plan
    assert export.calibration is not None, "an export of int8 without data was refused before"
    with refusals_of("C of precision int8", "Use --precision float32"):
        return quantize(plan, torch.as_tensor(export.calibration.observations), export.calibration.state)


def rename(path: Path, stem: str) -> None:
    """Let a source include its header by the stem that both are to have."""
    text = path.read_text(encoding="utf-8")
    path.write_text(
        text.replace(f'#include "{path.stem}{_HEADER}"', f'#include "{stem}{_HEADER}"', 1), encoding="utf-8"
    )


def open_c(export: Export, path: Path) -> Opened:
    """Return the policy that the compiled files are, and its decisions called from Python; None without a C compiler.

    Raises:
        RldistillError: they do not compile, or int8 gives other numbers than its arithmetic in Python.
    """
    compiler = find_compiler()
    if compiler is None:
        return None, None
    plan = planned(export)
    library = _library(export, path, plan, compiler)
    if isinstance(plan, QuantizedPlan):
        _check_exact(export, plan, library)
    # The call from Python takes most of the time that is then measured.
    state = library.begun()
    return _policy(export, path, library), lambda observation: library.act(observation, state)


def _policy(export: Export, path: Path, library: Library) -> Policy:
    """Return the policy that a library is."""
    policy = export.policy
    fields, remembers = OUTPUT_FIELDS[policy.output_kind], bool(state_parts(policy))

    def run(rows: Tensor, *state: Tensor) -> Mapping[str, Tensor]:
        (row,), before = rows.numpy(), state[0][0].numpy() if remembers else None
        # Each of the two is a decision, and brings the state one step further.
        after = None if before is None else before.copy()
        outputs = torch.from_numpy(library.outputs(row, before))[None]
        actions = torch.from_numpy(library.act(row, after))[None]
        named = dict(zip(fields, outputs.tensor_split(len(fields), dim=1), strict=True))
        answers = named | {ACTION: _as_played(policy.tasks[0].fingerprint.action_layout, actions)}
        return answers if after is None else answers | {_STATE: torch.from_numpy(after)[None]}

    states = (ProgramState(_STATE, torch.from_numpy(library.begun())),) if remembers else ()
    program = Program(path.name, f"C file {path.name}", "c", run, batch_size=1, states=states)
    return ProgramPolicy.create(program, policy.tasks[0], outputs=policy.output_kind, behaviour=policy.behaviour)


def _library(export: Export, path: Path, plan: Plan | QuantizedPlan, compiler: str) -> Library:
    fingerprint = export.policy.tasks[0].fingerprint
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder, "policy.so")
        compile_c(path, compiled, "-shared", "-fPIC", compiler=compiler)
        return Library(
            compiled,
            identifier(path.stem),
            is_bytes=fingerprint.observation_dtype == "uint8",
            num_outputs=fingerprint.action_layout.num_outputs(export.policy.output_kind),
            action_size=fingerprint.action_layout.action_size,
            num_state_bytes=write_c(path.stem, plan, ()).num_state_bytes,
        )


def _check_exact(export: Export, plan: QuantizedPlan, library: Library) -> None:
    """Check that int8 is computed as `quantize` says, to the last bit, where only whole numbers and products are.

    Raises:
        RldistillError: it is not.
    """
    assert export.calibration is not None, "an export of int8 without data was refused before"
    output = plan.plan.output
    if (
        plan.plan.remembers
        or output.atoms is not None
        or output.is_beta
        or (output.kind == "actions" and output.squashes)
    ):
        return  # what it remembers, or what follows the last layer, is computed in floats
    rows = export.calibration.observations[:_COMPARED_ROWS]
    expected = plan.outputs(torch.as_tensor(rows))[:, : plan.plan.last.num_outputs]
    limit = output.gaussian.mean_limit if output.kind == "gaussian" else None
    expected = expected if limit is None else expected.clamp(-float(limit), float(limit))
    got = np.stack([library.outputs(row, None)[: expected.shape[1]] for row in rows])
    if not np.array_equal(got, expected.numpy()):
        raise RldistillError(
            "--to c: the compiled code gives other int8 results than its arithmetic in Python, at most "
            f"{np.abs(got - expected.numpy()).max():.3g} apart. The compiler of this machine does not follow C99."
        )


def _as_played(layout: ActionLayout, actions: Tensor) -> Tensor:
    """Return actions `[B, D]` of the C, all floats, as the environment takes them."""
    if layout.is_continuous:
        return actions
    return actions.long()[:, 0] if layout.kind == "discrete" else actions.long()


def _contract_lines(contract: Mapping[str, Any]) -> Iterator[str]:
    """Yield the contract as lines of a comment."""
    policy, task = contract["policy"], contract["task"]
    yield f"Policy {policy['name']} for {task['name']}, {policy['hash']}."
    rate = contract["control_rate_hz"]
    if rate is not None:
        yield f"It decides {rate:g} times in a second."
    yield ""
    observation, action = contract["observation"], contract["action"]
    yield f"observation, {observation['dtype']}, as the environment gives it:"
    for term in observation["terms"]:
        yield f"  {_place(term)}{_of_value(term)}{_of_statistics(term)}"
    yield f"action, {action['kind']}:"
    for term in action["terms"]:
        yield f"  {_place(term)}{_of_action(term)}"
    for part in contract["states"]:
        yield f"state, {part['name']}: {part['shape'][0]} numbers, {part['initial']:g} at the {part['reset']}"


def _place(term: Mapping[str, Any]) -> str:
    first, end = term["slice"]
    place = f"[{first}]" if end == first + 1 else f"[{first} to {end - 1}]"
    unit = "" if term["unit"] is None else f" in {term['unit']}"
    return f"{place} {term['name']}{unit}"


def _of_value(term: Mapping[str, Any]) -> str:
    if "constant" in term:
        return f", always {term['constant']:g}"
    clock = term.get("clock")
    return "" if clock is None else f", {clock['value']} after t decisions of an episode, T = {clock['steps']}"


def _of_statistics(term: Mapping[str, Any]) -> str:
    if term["statistics"] is not None:
        return ", normalised by running statistics inside"
    return "" if term["scale"] == 1 else f", multiplied by {term['scale']:.9g} inside"


def _of_action(term: Mapping[str, Any]) -> str:
    if "choices" in term:
        meanings = "" if term["meanings"] is None else f": {', '.join(term['meanings'])}"
        numbers = ", ".join(map(str, term["first"]))
        first = f", counted from 0; the environment counts from {numbers}: add it" if any(term["first"]) else ""
        return f", one of {' x '.join(map(str, term['choices']))}{meanings}{first}"
    low, high = term["clip"]
    bounds = ", ".join(f"{_bound(a)} to {_bound(b)}" for a, b in zip(low, high, strict=True))
    return f", within {bounds}"


def _bound(value: float | None) -> str:
    return "any" if value is None else f"{value:g}"


C = ExportFormat(
    "c",
    ".c",
    ("float32", "int8"),
    write,
    open_c,
    companions=(_HEADER,),
    rename=rename,
    may_give_probabilities=False,
)
