"""Does this policy belong to this task?"""

from dataclasses import replace

from rldistill.errors import MismatchError
from rldistill.policies.protocol import Policy
from rldistill.tasks import UNNAMED_TASK, Task


def fit_policy(policy: Policy, task: Task) -> Policy:
    """Return the policy playing this task, after checking that its network fits.

    The head of the same task name plays. A policy with one head also plays a task of another
    name, provided that observations and actions are the same; of several, none is guessed. Of a policy whose
    file named no task, how frames are made is not known, and the user's word for it counts.

    Raises:
        MismatchError: lists what differs between the policy's fingerprint and the task's, or the
            heads of a policy that has several and none for this task.
    """
    names = [own.name for own in policy.tasks]
    fitted = policy.for_task(task.name) if task.name in names or len(names) > 1 else policy
    own = fitted.tasks[0]
    differences = own.fingerprint.differences(task.fingerprint, says_frames=own.name != UNNAMED_TASK)
    if differences:
        raise MismatchError(
            f"Policy {policy.name!r} (made for {own.name}) does not fit task {task.name!r}: {'; '.join(differences)}. "
            "Was it trained on another game, or with other preprocessing? See `rldistill inspect FILE`."
        )
    return fitted


def as_played_by(policy: Policy, task: Task) -> Task:
    """Return a task with the action layout of the policy that plays it.

    Of a box, an environment says the bounds of today; how raw outputs reach them, and the bounds that the policy was
    trained with, only the policy knows, and a student needs them.
    """
    layout = policy.tasks[0].fingerprint.action_layout
    return replace(task, fingerprint=replace(task.fingerprint, action_layout=layout))
