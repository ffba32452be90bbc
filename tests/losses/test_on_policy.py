"""On-policy distillation as the gradient of an objective: hand-worked sums, exact gradients, and a problem that goes
round in circles without them."""

import itertools
import math

import numpy as np
import pytest
import torch

from rldistill.losses.discrete import reverse_kl, sharpened_kl
from rldistill.losses.on_policy import future_sums, score_term
from rldistill.types import ActionLayout

# Five states, four actions. From the first state, action i leads to the i-th of the others, which stays as it is for a
# thousand steps whatever is done, and in which the teacher wants action i. The student has two weights for all states:
# its score of an action is the weights times the action's direction on the compass; in the first state many times as
# much, and 70 degrees further round. So wherever the weights turn, they meet a state that wants them 70 degrees on.
COMPASS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
TURN = math.radians(70)
TURNED = COMPASS @ torch.tensor([[math.cos(TURN), -math.sin(TURN)], [math.sin(TURN), math.cos(TURN)]])
LONG, STEEP, SURE = 1000, 8.0, 3.0
FOUR = ActionLayout.discrete(4)
WANTED = SURE * torch.eye(4)


def logits_of(weights):
    """Return the student's logits in the first state `[4]`, and in the others `[4]`, where they are all alike."""
    return STEEP * TURNED @ weights, COMPASS @ weights


def plays(weights):
    """Return every way that an episode can go, with its chance: the losses are then exact expectations."""
    first, _ = logits_of(weights)
    return [(action, first.softmax(0)[action].item()) for action in range(4)]


def gradient(weights, loss, *, lookahead):
    """Return the expected gradient of an episode, by the functions that training uses."""
    weights = weights.clone().requires_grad_()
    first, others = logits_of(weights)
    total = torch.zeros(())
    for action, chance in plays(weights):
        later = loss(others[None], WANTED[action][None], temperature=1.0)
        at_first = loss(first[None], torch.zeros(1, 4), temperature=1.0)
        total = total + chance * (at_first + LONG * later).sum()
        if lookahead:
            # The score of a lone row has no others to compare with.
            future = torch.tensor([LONG * later.item()])
            total = total + chance * score_term(first[None], torch.tensor([action]), future, FOUR).sum()
    total.backward()
    return weights.grad


def objective(weights, loss):
    first, others = logits_of(weights)
    chances = first.softmax(0)
    later = torch.stack([loss(others[None], WANTED[action][None], temperature=1.0)[0] for action in range(4)])
    return loss(first[None], torch.zeros(1, 4), temperature=1.0)[0] + LONG * (chances * later).sum()


def descend(loss, *, lookahead, num_steps=400, rate=0.5):
    weights, path = torch.tensor([0.5, 0.1]), []
    for _ in range(num_steps):
        step = gradient(weights, loss, lookahead=lookahead)
        weights = weights - rate * step / LONG
        path.append(weights)
    return torch.stack(path)


@pytest.mark.parametrize("loss", [reverse_kl, sharpened_kl])
def test_with_what_follows_the_gradient_is_that_of_the_loss_of_whole_episodes(loss):
    for weights in (torch.tensor([0.5, 0.1]), torch.tensor([-0.3, 0.8])):
        asked = weights.clone().requires_grad_()
        objective(asked, loss).backward()
        torch.testing.assert_close(gradient(weights, loss, lookahead=True), asked.grad, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(gradient(weights, loss, lookahead=False), asked.grad, rtol=0.005)


def turns(path):
    """Return how often a path goes round the origin."""
    angles = torch.atan2(path[:, 1], path[:, 0]).numpy()
    return (np.unwrap(angles)[-1] - angles[0]) / (2 * math.pi)


def test_the_plain_form_goes_round_in_circles_where_the_whole_gradient_converges():
    plain, whole = (descend(reverse_kl, lookahead=lookahead) for lookahead in (False, True))
    late = plain[len(plain) // 2 :]
    assert turns(late) > 5
    assert late.norm(dim=1).min() > 0.2, "round and round, and never nearer to the middle"
    at_rest = gradient(whole[-1], reverse_kl, lookahead=True).norm() / LONG
    assert at_rest < 0.01 < 0.1 < min(gradient(weights, reverse_kl, lookahead=False).norm() / LONG for weights in late)
    # What the plain form goes round in costs eight times as much as where the whole gradient comes to rest.
    assert 5 * objective(whole[-1], reverse_kl) < min(objective(weights, reverse_kl) for weights in late[::10])


def test_sums_of_what_follows_match_hand_worked_values():
    # Two episodes, steps in any order: of values 1, 2, 4 (steps 3, 0, 2), and 8, 16 (steps 1, 4), the second going on.
    values = np.array([2.0, 8.0, 4.0, 1.0, 16.0], np.float32)
    next_steps, places = np.array([2, 4, -1, 0, -9]), np.array([1, 5, 2, 0, 6])
    np.testing.assert_allclose(future_sums(values, next_steps, places, 0.5), [2.0, 8.0, 0.0, 2.0, 0.0])
    np.testing.assert_allclose(future_sums(values, next_steps, places, 0.0), np.zeros(5))


@pytest.mark.parametrize(
    ("layout", "actions", "width"),
    [
        (ActionLayout.discrete(3), torch.tensor([2, 0, 1]), 3),
        (ActionLayout("multi_discrete", (2, 3)), torch.tensor([[1, 2], [0, 0], [1, 1]]), 5),
        (ActionLayout("multi_binary", (2,)), torch.tensor([[1, 0], [0, 0], [1, 1]]), 2),
    ],
)
def test_the_score_of_an_action_is_its_log_probability(layout, actions, width):
    logits = torch.randn(3, width, generator=torch.Generator().manual_seed(0), requires_grad=True)
    future = torch.tensor([1.0, 2.0, 6.0])
    rows = score_term(logits, actions, future, layout)
    assert not rows.any()
    (got,) = torch.autograd.grad(rows.sum(), logits)
    (expected,) = torch.autograd.grad(
        (torch.tensor([-3.0, -1.5, 4.5]) * log_probability(logits, actions, layout)).sum(), logits
    )
    torch.testing.assert_close(got, expected)


def log_probability(logits, actions, layout):
    if layout.kind == "multi_binary":
        return torch.distributions.Bernoulli(logits=logits).log_prob(actions.float()).sum(1)
    parts, chosen = logits.split(layout.sizes, dim=1), actions.reshape(3, -1).unbind(1)
    each = [torch.distributions.Categorical(logits=p).log_prob(c) for p, c in zip(parts, chosen, strict=True)]
    return torch.stack(each).sum(0)


def test_the_baseline_changes_no_expectation():
    logits = torch.tensor([0.3, -0.2, 0.1, 0.4], requires_grad=True)
    costs = torch.tensor([3.0, -1.0, 2.0, 5.0])
    chances = logits.softmax(0).detach()
    expected = torch.autograd.grad((logits.softmax(0) * costs).sum(), logits)[0]
    total = torch.zeros(4)
    for first, second in itertools.product(range(4), repeat=2):
        actions = torch.tensor([first, second])
        rows = score_term(logits.expand(2, 4), actions, costs[actions], FOUR)
        total += chances[first] * chances[second] * torch.autograd.grad(rows.mean(), logits)[0]
    torch.testing.assert_close(total, expected)
