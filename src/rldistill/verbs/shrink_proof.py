"""Proofs that a student keeps enough: how many fresh episodes a look at one has, and what it shows.

Each look pays: the k-th has the error 0.05 ÷ 2^k, so that all of them together err in at most 5 %.
"""

import math
from statistics import NormalDist

from rldistill.policies import TorchPolicy
from rldistill.verbs.shrink_play import Episodes
from rldistill.verbs.shrink_records import Proof, Trial

ERROR = 0.05
# Beyond, 10,000 resamples do not reach the error of a look.
MOST_LOOKS = 7


def proved(
    episodes: Episodes, student: TorchPolicy, network: str, num_episodes: int, keep: float, num_looks: int
) -> Proof:
    """Look at so many fresh episodes of a student, or at more where these could prove nothing, after other looks."""
    # Each look has episodes of its own: what earlier ones showed, and chose, says nothing of them.
    purpose, confidence = f"proof {num_looks + 1}", 1 - _error(num_looks)
    cost = episodes.failure_cost(purpose, num_episodes)
    # The teacher's scores alone decide it, before the student plays: in these episodes they may differ more than in
    # those by which the number was chosen.
    while (least := least_episodes(num_episodes, keep, num_looks, cost)) > num_episodes:
        num_episodes = least
        cost = episodes.failure_cost(purpose, num_episodes)
    scores = episodes.scores(student, purpose, num_episodes)
    retention, bound = episodes.kept(scores, purpose, confidence, purpose, failure_cost=cost)
    # Resamples of one failure are too few of them at high confidence; this is what n episodes without any show.
    bound = min(bound, _rule_of_three(retention, 1 - confidence, num_episodes / cost))
    teacher, random = episodes.baseline(purpose, num_episodes)
    means = float(scores.mean()), float(teacher.mean()), float(random.mean())
    return Proof(network, student.hash, retention, bound, confidence, num_episodes, means, bound >= keep)


def least_episodes(num_episodes: int, keep: float, num_looks: int, cost: float) -> int:
    """Return how many can prove it of a student that never fails, or more: those that are asked for."""
    if keep >= 1:
        return num_episodes
    return max(num_episodes, math.ceil(cost * math.log(1 / _error(num_looks)) / (1 - keep)))


def likely_episodes(trial: Trial, num_chosen_by: int, keep: float, num_looks: int, least: int, cost: float) -> int:
    """Return how many are likely to prove a size that held: up to four times the least; where none are, the least.

    A look that is likely to fail is time lost, and half of the error.

    Args:
        trial: what the size showed.
        num_chosen_by: on how many episodes it did.
        keep: retention that is to be proved.
        num_looks: at proofs before this one.
        least: episodes of any look.
        cost: of a failure, in units of the skill.
    """
    numbers, error = range(least, 4 * least + 1), _error(num_looks)
    return next((number for number in numbers if _is_likely(trial, num_chosen_by, number, error, keep, cost)), least)


def _is_likely(trial: Trial, num_chosen_by: int, num_episodes: int, error: float, keep: float, cost: float) -> bool:
    """Return whether so many episodes probably prove a student, by what it showed on the choosing ones.

    That flatters it, since its training ended when it showed enough: it is taken to keep what lies halfway between its
    retention and the bound.
    """
    kept = (trial.retention + trial.bound) / 2
    spread = math.sqrt(num_chosen_by / num_episodes)
    deviation = (trial.retention - trial.bound) / NormalDist().inv_cdf(1 - ERROR) * spread
    failure = kept * cost / num_episodes  # the one more that a proof counts: its mean, and about its deviation
    margin = failure + NormalDist().inv_cdf(1 - error) * math.hypot(deviation, failure)
    return min(kept - margin, _rule_of_three(kept, error, num_episodes / cost)) >= keep


def _rule_of_three(retention: float, error: float, num_episodes: float) -> float:
    """Return the most that so many episodes without a failure can prove of a student that keeps so much in them."""
    return retention * (1 - math.log(1 / error) / num_episodes)


def _error(num_looks: int) -> float:
    """Return the error of the look at a proof that follows so many others."""
    return ERROR / 2 ** (num_looks + 1)
