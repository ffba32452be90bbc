"""Does a policy really not see what it is not to see?"""

import torch

from rldistill.errors import MismatchError
from rldistill.policies.padded import ROWS_PER_BATCH, probe_rows
from rldistill.policies.torch_policy import TorchPolicy


def check_blind(policy: TorchPolicy) -> None:
    """Check that the outputs of a policy stay the same where only parts change that it does not see.

    Features are compared too, where the network gives them (a module of the user's own does not): the output layer of a
    new student is zero, and gives the same whatever is below it.

    Raises:
        MismatchError: they change.
    """
    sight = policy.spec.sight
    if sight is None:
        return
    fingerprint = policy.tasks[0].fingerprint
    rows = probe_rows(fingerprint, ROWS_PER_BATCH["cpu"])
    seen = sight.places(fingerprint)
    changed = rows.roll(1, dims=0)
    changed[:, seen] = rows[:, seen]
    (before, _), (after, _) = policy(rows), policy(changed)
    is_blind = torch.equal(before.raw, after.raw)
    if before.features is not None and after.features is not None:
        is_blind = is_blind and torch.equal(before.features, after.features)
    if not is_blind:
        raise MismatchError(
            f"Student {policy.name!r} is to see {', '.join(sight.parts)} alone, but its outputs change with other "
            "parts of the observations. This is a fault of rldistill, not of your data: please report it."
        )
