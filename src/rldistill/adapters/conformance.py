"""What every policy must do, whatever made it: checks that an adapter's author runs on theirs.

```python
from rldistill.adapters.conformance import check_policy

check_policy(my_policy, observations, reference=what_the_library_says)
```

Nothing here knows any library: a policy is what `policies.Policy` says it is.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rldistill.errors import RldistillError
from rldistill.policies import Policy
from rldistill.types import OUTPUT_KINDS_OF_ACTIONS, ActionLayout, Actions

_RELATIVE = 1e-5
# Times the largest output: sums in another order differ by that much.
_ABSOLUTE = 1e-5


class NonconformingError(AssertionError):
    """A policy does not do what every policy must; the text says what."""


def check_policy(
    policy: Policy, observations: NDArray[np.generic], *, reference: NDArray[np.generic] | None = None
) -> None:
    """Check a policy on observations, eight or more of them different ones.

    Args:
        policy: to be checked.
        observations: `[B, *observation_shape]`, as the environment gives them.
        reference: raw rows `[B, O]` that the library itself gives for them, where that is known: outputs must
            equal them within 1e-5, relative or of the largest, and so must greedy choices where the two best differ
            by more.

    Raises:
        NonconformingError: the first thing that is not as it must be.
    """
    _require(
        len(np.unique(observations.reshape(len(observations), -1), axis=0)) >= 8, "pass eight different observations"
    )
    for check in (_check_outputs, _check_repeatable, _check_batches, _check_untouched, _check_actions, _check_refusals):
        check(policy, observations)
    if reference is not None:
        _check_parity(policy, observations, reference)


def _raw(policy: Policy, observations: NDArray[np.generic]) -> Tensor:
    return policy(observations)[0].raw


def _check_outputs(policy: Policy, observations: NDArray[np.generic]) -> None:
    """Outputs have the declared kind, the task's layout and its width, are finite, and carry no gradient."""
    layout = policy.tasks[0].fingerprint.action_layout
    output, _ = policy(observations)
    _require(output.kind == policy.output_kind, f"outputs are {output.kind}, output_kind says {policy.output_kind}")
    _require(output.kind in OUTPUT_KINDS_OF_ACTIONS[layout.kind], f"{layout.kind} actions have no {output.kind}")
    _require(output.action_layout == layout, "outputs have another action layout than the task")
    expected = (len(observations), layout.num_outputs(output.kind))
    _require(tuple(output.raw.shape) == expected, f"outputs are {list(output.raw.shape)}, expected {list(expected)}")
    _require(bool(torch.isfinite(output.raw).all()), "an output is no number")
    _require(not output.raw.requires_grad, "outputs carry a gradient")
    _require(len(policy.hash) == 64 and policy.hash == policy.hash, "the hash is no SHA-256, or not always the same")


def _check_repeatable(policy: Policy, observations: NDArray[np.generic]) -> None:
    """The same observations have the same outputs, to the last bit: no dropout, no noise, no memory."""
    first = _raw(policy, observations)
    _require(torch.equal(first, _raw(policy, observations)), "the same observations had other outputs the second time")


def _check_batches(policy: Policy, observations: NDArray[np.generic]) -> None:
    """An observation's outputs do not depend on what stands beside it."""
    whole = _raw(policy, observations)
    for rows in (slice(0, 1), slice(3, 8), slice(len(observations) - 1, None)):
        _require(torch.equal(_raw(policy, observations[rows]), whole[rows]), "outputs depend on the rest of the batch")
    backwards = _raw(policy, observations[::-1].copy()).flip(0)
    _require(torch.equal(backwards, whole), "outputs depend on the order of the batch")
    _require(len(_raw(policy, observations[:0])) == 0, "no observations had outputs")


def _check_untouched(policy: Policy, observations: NDArray[np.generic]) -> None:
    """The caller's observations stay as they are."""
    kept = observations.copy()
    policy(observations)
    policy.act(observations, rng=np.random.default_rng(0))
    _require(bool(np.array_equal(observations, kept)), "the observations were changed")


def _check_actions(policy: Policy, observations: NDArray[np.generic]) -> None:
    """Actions have the environment's format, follow the generator, and ε = 1 is random play."""
    layout = policy.tasks[0].fingerprint.action_layout
    for epsilon in (0.0, 1.0):
        actions, _ = policy.act(observations, rng=np.random.default_rng(0), exploration_epsilon=epsilon)
        again, _ = policy.act(observations, rng=np.random.default_rng(0), exploration_epsilon=epsilon)
        _require(bool(np.array_equal(actions, again)), "the same generator drew other actions")
        expected = (len(observations), *layout.action_shape)
        _require(actions.shape == expected, f"actions are {list(actions.shape)}, expected {list(expected)}")
        _require(_is_inside(layout, actions), f"an action is not one of {layout.kind} {list(layout.sizes)}")


def _is_inside(layout: ActionLayout, actions: Actions) -> bool:
    if layout.kind == "box":
        low, high = np.array(layout.low, np.float32), np.array(layout.high, np.float32)
        return actions.dtype == np.float32 and bool(np.all((actions >= low) & (actions <= high)))
    sizes = np.array(layout.sizes) if layout.kind != "multi_binary" else np.array(2)
    flat = actions if layout.kind != "discrete" else actions[:, None]
    return actions.dtype == np.int64 and bool(np.all((flat >= 0) & (flat < sizes)))


def _check_refusals(policy: Policy, observations: NDArray[np.generic]) -> None:
    """Observations of another shape, and tasks it has no head for, are errors of ours in one line."""
    flat = observations.reshape(len(observations), -1)
    wider = np.concatenate([flat, flat], axis=1)
    _refuses(lambda: policy(wider), "observations of another shape")
    _refuses(lambda: policy.for_task("no task of this name"), "a task that it has no head for")
    _require(policy.for_task(policy.tasks[0].name).hash == policy.hash, "its own task makes it another policy")


def _refuses(call: Callable[[], object], what: str) -> None:
    try:
        call()
    except RldistillError as error:
        _require("\n" not in str(error), f"it refused {what} in several lines")
    except Exception as error:
        raise NonconformingError(f"it met {what} with {type(error).__name__}, expected an RldistillError") from error
    else:
        raise NonconformingError(f"it took {what}")


def _check_parity(policy: Policy, observations: NDArray[np.generic], reference: NDArray[np.generic]) -> None:
    """Outputs are the library's, and so are greedy choices that rounding cannot turn."""
    expected = torch.as_tensor(np.asarray(reference, np.float32))
    raw = _raw(policy, observations)
    _require(raw.shape == expected.shape, f"outputs are {list(raw.shape)}, the reference is {list(expected.shape)}")
    tolerance = _ABSOLUTE * float(expected.abs().max())
    beyond = (raw - expected).abs() - tolerance - _RELATIVE * expected.abs()
    _require(
        float(beyond.max()) <= 0,
        f"outputs differ from the reference by up to {float((raw - expected).abs().max()):.2g}",
    )
    if policy.tasks[0].fingerprint.action_layout.kind == "discrete" and expected.shape[1] > 1:
        best = expected.topk(2, dim=1).values
        clear = best[:, 0] - best[:, 1] > 2 * (tolerance + _RELATIVE * best[:, 0].abs())
        _require(
            torch.equal(raw.argmax(1)[clear], expected.argmax(1)[clear]), "greedy actions differ from the reference"
        )


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise NonconformingError(otherwise)
