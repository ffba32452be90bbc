"""A kit that every adapter passes, ours and yours: is what it loads a policy as the library takes policies?

Give it a function that loads one, and where there is something to compare with, what the original library computes:

    check_policy(lambda: load_mine("walker.ckpt"), reference=Reference(observations, outputs=rows))

It needs no environment and no test framework: in pytest, a call is a test. Every finding is one line.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rldistill.adapters.load import load_policy
from rldistill.errors import MismatchError, RldistillError
from rldistill.policies import Policy, TorchPolicy
from rldistill.policies.behaviour import LEARNED_BEHAVIOURS, choose_actions, draws_per_decision
from rldistill.testing.parity import Array, Reference, parity_findings, play
from rldistill.types import OUTPUT_KINDS_OF_ACTIONS, ActionLayout, Actions, PolicyOutput, State

# A row alone and the same row among others: sums in another order.
BATCH_TOLERANCE = 1e-4
_NUM_ROWS = 33
_NUM_ENVS = 3
_FOREIGN_TASK = "a task that no policy has"


class ConformanceError(AssertionError):
    """What is wrong with a policy, one line for each finding."""


@dataclass(frozen=True)
class _Case:
    """A policy at work."""

    load: Callable[[], Policy]  # makes it
    policy: Policy  # what it made
    rows: Array  # `[B, *observation_shape]`
    output: PolicyOutput  # for these rows
    reload: Callable[[Path], Policy] | None  # reads what the policy saved; None: nothing can

    @property
    def layout(self) -> ActionLayout:
        """Of its actions."""
        return self.policy.tasks[0].fingerprint.action_layout

    @property
    def raw(self) -> NDArray[np.float32]:
        """Its outputs, `[B, O]`."""
        return self.output.raw.detach().cpu().numpy()

    def raw_of(self, rows: Array | Tensor, policy: Policy | None = None) -> NDArray[np.float32]:
        """Return outputs for some rows, of this policy or of another."""
        return (policy or self.policy)(rows)[0].raw.detach().cpu().numpy()


def check_policy(
    load: Callable[[], Policy],
    *,
    reference: Reference | None = None,
    observations: Array | None = None,
    reload: Callable[[Path], Policy] | None = load_policy,
    seed: int = 0,
) -> None:
    """Check that what an adapter loads is a policy, and that it answers as the original does.

    Args:
        load: returns the policy; called twice, and must return two that do not share what they remember.
        reference: what the original library computes; None: nothing is compared.
        observations: `[B, *observation_shape]` to work with; None: the reference's, or made up for the task.
        reload: reads the file that the policy's `save` wrote; None: not tried.
        seed: of what is made up.

    Raises:
        ConformanceError: one line for each finding; those of a further task begin with its name.
    """
    policy = load()
    _raise_any(list(_description(policy)))
    if observations is None and reference is not None:
        shape = policy.tasks[0].fingerprint.observation_shape
        observations = reference.observations.reshape(-1, *shape)[:_NUM_ROWS]
    rows = _made_up(policy, seed) if observations is None else observations
    if not len(rows):
        raise ConformanceError("observations: got none, expected at least one row to ask about.")
    before = rows.copy()
    answer, _ = policy(rows, policy.initial_state(len(rows)))
    if not np.array_equal(rows, before):
        text = "observations: they were changed in place, expected them untouched. Copy before you scale."
        raise ConformanceError(text)
    case = _Case(load, policy, rows, answer, reload)
    _raise_any(list(_outputs(case)))
    checks = (_batches, _repetition, _memory, _actions, _randomness, _identity, _tasks, _wrong_shape, _saving)
    found = [finding for check in checks for finding in check(case)] + list(_further_tasks(case, seed))
    _raise_any(found if reference is None else [*found, *parity_findings(policy, reference)])


def _raise_any(findings: Sequence[str]) -> None:
    if findings:
        raise ConformanceError("\n".join(findings))


def _description(policy: Policy) -> Iterator[str]:
    """What the policy says of itself."""
    if not policy.tasks:
        yield "tasks: got none, expected at least one."
        return
    names = [task.name for task in policy.tasks]
    if len(set(names)) != len(names):
        yield f"tasks: got {names}, expected different names."
    yield from _output_kind(policy)
    if policy.behaviour not in LEARNED_BEHAVIOURS:
        yield f"behaviour: got {policy.behaviour!r}, expected {' or '.join(LEARNED_BEHAVIOURS)}."
    if not policy.name or "\n" in policy.name:
        yield f"name: got {policy.name!r}, expected a short line."


def _output_kind(policy: Policy) -> Iterator[str]:
    """What it gives is of a kind that fits its actions."""
    kind, layout = policy.output_kind, policy.tasks[0].fingerprint.action_layout
    if kind not in OUTPUT_KINDS_OF_ACTIONS[layout.kind]:
        fitting = " or ".join(OUTPUT_KINDS_OF_ACTIONS[layout.kind])
        yield f"output_kind: got {kind!r}, expected {fitting} of {layout.kind} actions."


def _outputs(case: _Case) -> Iterator[str]:
    """Shapes, types and numbers of the outputs."""
    output, count = case.output, len(case.rows)
    if output.kind != case.policy.output_kind:
        yield f"outputs: got {output.kind}, expected {case.policy.output_kind}, which output_kind says."
        return
    if output.action_layout != case.layout:
        yield f"outputs: got the layout {output.action_layout}, expected the task's, {case.layout}."
    expected = (count, case.layout.num_outputs(output.kind))
    parts = {"outputs": (output.raw, expected), "value": (output.value, (count,))}
    for name, (tensor, shape) in parts.items():
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            yield f"{name}: got shape {list(tensor.shape)}, expected {list(shape)}."
        if tensor.dtype != torch.float32:
            yield f"{name}: got {tensor.dtype}, expected torch.float32."
        if not torch.isfinite(tensor).all():
            yield f"{name}: got NaN or infinity, expected numbers."
        if tensor.requires_grad:
            yield f"{name}: they carry a gradient, expected none: a teacher is not trained."
    if output.features is not None and (output.features.dim() != 2 or len(output.features) != count):
        yield f"features: got shape {list(output.features.shape)}, expected [{count}, F]."


def _batches(case: _Case) -> Iterator[str]:
    """A row's answer does not depend on its neighbours, nor on being a tensor."""
    largest = np.abs(case.raw).max()
    order = np.arange(len(case.rows))[::-1]
    readings = {
        "alone": np.concatenate([case.raw_of(case.rows[[index]]) for index in range(min(5, len(case.rows)))]),
        "in a batch of 3": case.raw_of(case.rows[:3]),
        "in another order": case.raw_of(case.rows[order])[order],
        "twice over": case.raw_of(np.concatenate([case.rows, case.rows]))[: len(case.rows)],
        "as a tensor": case.raw_of(torch.from_numpy(case.rows.copy())),
    }
    for how, raw in readings.items():
        gap = np.abs(raw - case.raw[: len(raw)]).max()
        if not gap <= BATCH_TOLERANCE * largest:  # nor NaN
            yield (
                f"batches: rows answered {how} differ by {gap:.2g}, expected at most {BATCH_TOLERANCE:g} × the largest "
                f"output, {largest:.2g}. Does it normalise over the batch, or is it not in eval mode?"
            )


def _repetition(case: _Case) -> Iterator[str]:
    """The same observations give the same outputs, whatever was asked between."""
    case.policy(np.zeros_like(case.rows))
    gap = np.abs(case.raw_of(case.rows) - case.raw).max()
    if gap:
        yield (
            f"repetition: the same observations gave outputs {gap:.2g} apart, expected the same. Does it drop out, "
            "sample, remember, or update statistics?"
        )


def _memory(case: _Case) -> Iterator[str]:
    """What is remembered belongs to the row, is handed back whole, and begins anew where an episode does."""
    policy = case.policy
    initial = policy.initial_state(_NUM_ENVS)
    if initial is None:
        return
    if any(len(part) != _NUM_ENVS for part in initial):
        yield f"initial_state({_NUM_ENVS}): got shapes {_shapes(initial)}, expected a row for each environment."
        return
    before = [part.clone() for part in initial]
    _, following = policy(np.resize(case.rows, (_NUM_ENVS, *case.rows.shape[1:])), initial)
    if not all(torch.equal(part, own) for part, own in zip(initial, before, strict=True)):
        yield "memory: the state that it was given was changed in place, expected it untouched. Return a new one."
    if (got := _shapes(following)) != (expected := _shapes(initial)):
        yield f"memory: the next state has the shapes {got}, expected those of initial_state, {expected}."
        return
    # Six steps of three environments, of which the second begins anew in the fourth.
    steps = np.resize(case.rows, (2 * _NUM_ENVS, _NUM_ENVS, *case.rows.shape[1:]))
    starts = np.zeros(steps.shape[:2], bool)
    starts[0], starts[_NUM_ENVS, 1] = True, True
    whole = play(policy, steps, starts).numpy()
    slack = BATCH_TOLERANCE * np.abs(whole).max()
    alone = np.concatenate([play(policy, steps[:, [row]], starts[:, [row]]) for row in range(_NUM_ENVS)], axis=1)
    if not np.abs(alone - whole).max() <= slack:  # nor NaN
        yield "memory: an environment among others is answered otherwise than alone, expected the same. Is it shared?"
    anew = play(policy, steps[_NUM_ENVS:, [1]], starts[_NUM_ENVS:, [1]]).numpy()
    if not np.abs(anew - whole[_NUM_ENVS:, [1]]).max() <= slack:
        yield "memory: an episode that begins after another is answered otherwise than the first, expected the same."
    if np.array_equal(play(policy, steps, np.ones_like(starts)), whole):
        yield "memory: its answers do not depend on its state, expected a policy that remembers, or initial_state None."


def _shapes(state: State) -> list[list[int]]:
    return [list(part.shape) for part in state or ()]


def _actions(case: _Case) -> Iterator[str]:
    """Actions lie in the space and follow from the outputs."""
    policy, rows = case.policy, case.rows
    for epsilon in (0.0, 0.5):
        actions, _ = policy.act(rows, rng=np.random.default_rng(0), exploration_epsilon=epsilon)
        problem = _outside(case.layout, actions, len(rows))
        if problem is not None:
            yield f"act with ε {epsilon:g}: {problem}"
            return
        expected = choose_actions(
            case.output, policy.behaviour, rng=np.random.default_rng(0), exploration_epsilon=epsilon
        )
        if not np.array_equal(actions, expected):
            share = float((actions != expected).mean())
            yield (
                f"act with ε {epsilon:g}: {share:.0%} of the actions are not those that {policy.behaviour!r} chooses "
                "from the outputs. Use policies.choose_actions."
            )


def _outside(layout: ActionLayout, actions: Actions, count: int) -> str | None:
    """Return what is wrong with actions, as far as the space says it."""
    dtype = np.float32 if layout.is_continuous else np.int64
    shape = (count, *layout.action_shape)
    if not isinstance(actions, np.ndarray) or actions.dtype != dtype or actions.shape != shape:
        got = f"{actions.dtype} {list(actions.shape)}" if isinstance(actions, np.ndarray) else type(actions).__name__
        return f"got {got}, expected {np.dtype(dtype)} {list(shape)}."
    if layout.is_continuous:
        is_inside = (actions >= np.array(layout.low, np.float32)) & (actions <= np.array(layout.high, np.float32))
    else:
        limits = 2 if layout.kind == "multi_binary" else layout.sizes[0] if layout.kind == "discrete" else layout.sizes
        is_inside = (actions >= 0) & (actions < np.array(limits))
    return None if is_inside.all() else f"{(~is_inside).mean():.0%} of the actions lie outside their space."


def _randomness(case: _Case) -> Iterator[str]:
    """What is random comes from the generator that is passed, the same amount for every row, and nowhere else."""
    policy, rows = case.policy, case.rows
    before = _global_random_state()
    generator = np.random.default_rng(1)
    together, _ = policy.act(rows, rng=generator, exploration_epsilon=0.5)
    after = _global_random_state()
    if before != after:
        yield "randomness: global random numbers were drawn, expected only those of rng."
    witness = np.random.default_rng(1)
    witness.random((len(rows), draws_per_decision(case.layout)))
    if generator.bit_generator.state != witness.bit_generator.state:
        yield f"randomness: expected {draws_per_decision(case.layout)} uniforms drawn for each row, got another number."
    seeds = range(len(rows))
    separate, _ = policy.act(rows, rng=[np.random.default_rng(seed) for seed in seeds], exploration_epsilon=0.5)
    last, _ = policy.act(rows[-1:], rng=[np.random.default_rng(seeds[-1])], exploration_epsilon=0.5)
    if not np.allclose(separate[-1:], last, rtol=BATCH_TOLERANCE, atol=BATCH_TOLERANCE):
        yield "randomness: a row with a generator of its own acts otherwise among others, expected the same."
    if not np.array_equal(together, policy.act(rows, rng=np.random.default_rng(1), exploration_epsilon=0.5)[0]):
        yield "randomness: the same generator gave other actions, expected the same."


def _global_random_state() -> tuple[bytes, str]:
    return torch.get_rng_state().numpy().tobytes(), repr(np.random.get_state())


def _identity(case: _Case) -> Iterator[str]:
    """The hash tells what the policy is: the same for what is the same, whatever it did."""
    own = case.policy.hash
    if len(own) != 64 or set(own) - set("0123456789abcdef"):
        yield f"hash: got {own!r}, expected a SHA-256 in hexadecimal."
    fresh = case.load()
    if fresh is case.policy:
        yield "load: it returned the same object twice, expected another one."
    if fresh.hash != own:
        yield "hash: loading it again gave another one, expected the same. Is it made of addresses, or of a clock?"
    if not np.array_equal(case.raw_of(case.rows, fresh), case.raw):
        yield "load: loaded again, it answers otherwise, expected the same."


def _tasks(case: _Case) -> Iterator[str]:
    """`for_task` finds what is there and refuses what is not."""
    policy = case.policy
    for task in policy.tasks:
        chosen = policy.for_task(task.name)
        if chosen.tasks[0].name != task.name:
            yield f"for_task({task.name!r}): its first task is {chosen.tasks[0].name!r}, expected that one."
        if chosen.hash != policy.hash:
            yield f"for_task({task.name!r}): it has another hash, expected the same policy."
    if not np.array_equal(case.raw_of(case.rows, policy.for_task(policy.tasks[0].name)), case.raw):
        yield f"for_task({policy.tasks[0].name!r}): it answers otherwise, expected the same."
    try:
        policy.for_task(_FOREIGN_TASK)
    except MismatchError:
        return
    yield f"for_task({_FOREIGN_TASK!r}): nothing was raised, expected a MismatchError."


def _further_tasks(case: _Case, seed: int) -> Iterator[str]:
    """What is asked of the first task is asked of each, as far as it is about the task."""
    first = case.policy.tasks[0].fingerprint
    for task in case.policy.tasks[1:]:
        policy, seen = case.policy.for_task(task.name), task.fingerprint
        is_alike = (seen.observation_shape, seen.observation_dtype) == (
            first.observation_shape,
            first.observation_dtype,
        )
        rows = case.rows if is_alike else _made_up(policy, seed)
        output, _ = policy(rows, policy.initial_state(len(rows)))
        own = _Case(case.load, policy, rows, output, None)
        found = [*_output_kind(policy), *_outputs(own)] or [*_batches(own), *_actions(own)]
        yield from (f"{task.name}: {finding}" for finding in found)


def _wrong_shape(case: _Case) -> Iterator[str]:
    """Observations of another shape are refused, not broadcast."""
    shape = case.policy.tasks[0].fingerprint.observation_shape
    wrong = np.zeros((2, *shape[:-1], shape[-1] + 1), case.rows.dtype)
    try:
        case.policy(wrong)
    except RldistillError as error:
        if "\n" in str(error):
            yield "observations of another shape: the message has several lines, expected one."
        return
    except Exception as error:
        yield f"observations of another shape: got {type(error).__name__}, expected a MismatchError."
        return
    yield "observations of another shape: they were accepted, expected a MismatchError."


def _saving(case: _Case) -> Iterator[str]:
    """It is saved whole, or refused in one line and nothing is left behind."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.safetensors"
        try:
            case.policy.save(path)
        except RldistillError as error:
            if "\n" in str(error):
                yield "save: the refusal has several lines, expected one."
            if list(path.parent.iterdir()):
                yield "save: it refused and left a file behind, expected none."
            return
        if not path.is_file():
            yield "save: it wrote no file and raised nothing, expected one of the two."
            return
        # Without its module, weights of a module of one's own cannot be read back.
        needs_module = isinstance(case.policy, TorchPolicy) and case.policy.spec.architecture is None
        if case.reload is None or (needs_module and case.reload is load_policy):
            return
        again = case.reload(path)
    if again.hash != case.policy.hash:
        yield "save: what was saved has another hash, expected the same."
    if not np.array_equal(case.raw_of(case.rows, again), case.raw):
        yield "save: what was saved answers otherwise, expected the same."


def _made_up(policy: Policy, seed: int) -> Array:
    """Return observations of the right shape and type, `[B, *observation_shape]`."""
    fingerprint, rng = policy.tasks[0].fingerprint, np.random.default_rng(seed)
    shape = (_NUM_ROWS, *fingerprint.observation_shape)
    if fingerprint.observation_dtype == "uint8":
        return rng.integers(0, 256, shape, np.uint8)
    return rng.normal(size=shape).astype(fingerprint.observation_dtype)
