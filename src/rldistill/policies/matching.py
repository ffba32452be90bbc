"""Does this policy belong to this task?"""

import math
from dataclasses import replace

from rldistill.errors import MismatchError
from rldistill.policies.protocol import Policy
from rldistill.tasks import UNNAMED_TASK, Task
from rldistill.types import ActionLayout

# The text of a zip rounds its bounds.
_BOUNDS_TOLERANCE = 1e-3


def fit_policy(policy: Policy, task: Task) -> Policy:
    """Return the policy playing this task, after checking that its network and its actions fit.

    The head of the same task name plays. A policy with one head also plays a task of another
    name, provided that observations and actions are the same; of several, none is guessed. Of a policy whose
    file named no task, how frames are made is not known, and the user's word for it counts.

    Raises:
        MismatchError: lists what differs between the policy's fingerprint and the task's, or the
            heads of a policy that has several and none for this task; or its actions lie in a box of other bounds.
    """
    names = [own.name for own in policy.tasks]
    fitted = policy.for_task(task.name) if task.name in names or len(names) > 1 else policy
    own = fitted.tasks[0]
    differences = own.fingerprint.differences(task.fingerprint, says_frames=own.name != UNNAMED_TASK)
    if differences:
        way_on = "Was it trained on another game, or with other preprocessing? See `rldistill inspect FILE`."
        parts = task.fingerprint.separate_parts
        if parts and not own.fingerprint.differences(
            replace(task.fingerprint, observation_parts=()), says_frames=False
        ):
            names = ",".join(part.name for part in parts)
            way_on = f"If its one vector is all parts side by side, in this order, say so: --teacher-sees {names}."
        raise MismatchError(
            f"Policy {policy.name!r} (made for {own.name}) does not fit task {task.name!r}: {'; '.join(differences)}. "
            f"{way_on}"
        )
    _check_action_bounds(policy.name, own, task)
    return fitted


def _check_action_bounds(name: str, own: Task, task: Task) -> None:
    """Check that a policy's actions mean what the task's do: a box of other bounds is one in other units.

    A policy without bounds has none to compare, and those of observations, which drifted between versions of
    environments, are no matter here.
    """
    mine, theirs = own.fingerprint.action_layout, task.fingerprint.action_layout
    if not mine.is_bounded:
        return
    pairs = zip((*mine.low, *mine.high), (*theirs.low, *theirs.high), strict=True)
    if all(math.isclose(bound, other, rel_tol=_BOUNDS_TOLERANCE, abs_tol=1e-6) for bound, other in pairs):
        return
    raise MismatchError(
        f"Policy {name!r} has actions in {_shown_bounds(mine)}, task {task.name!r} in "
        f"{_shown_bounds(theirs)}. Was its environment rescaled? Register one that is rescaled likewise, such as "
        "gymnasium.wrappers.RescaleAction(env, low, high) with the policy's bounds, and name it: --task module:EnvId."
    )


def _shown_bounds(layout: ActionLayout) -> str:
    sides = [f"[{low:g}, {high:g}]" for low, high in zip(layout.low, layout.high, strict=True)]
    return sides[0] if len(set(sides)) == 1 else " × ".join(sides[:4]) + (" × …" if len(sides) > 4 else "")


def as_played_by(policy: Policy, task: Task) -> Task:
    """Return a task with the action layout of the policy that plays it.

    Of a box, an environment says the bounds of today; how raw outputs reach them, and the bounds that the policy was
    trained with, only the policy knows, and a student needs them.
    """
    layout = policy.tasks[0].fingerprint.action_layout
    return replace(task, fingerprint=replace(task.fingerprint, action_layout=layout))
