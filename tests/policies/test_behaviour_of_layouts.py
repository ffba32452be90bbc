"""Actions of every kind: greedy ones worked out by hand, drawn ones against their distributions."""

import numpy as np
import pytest
import torch
from scipy import stats

from rldistill.policies import choose_actions
from rldistill.policies.behaviour import draws_per_decision, random_actions
from rldistill.types import ActionLayout, PolicyOutput

CHOICES = ActionLayout("multi_discrete", (2, 3))
SWITCHES = ActionLayout("multi_binary", (2,))
CLIPPED = ActionLayout("box", (2,), (-1.0, 0.0), (1.0, 10.0), "clip")
SQUASHED = ActionLayout("box", (2,), (-1.0, 0.0), (1.0, 10.0), "tanh_rescale")
UNBOUNDED = ActionLayout("box", (1,), (-np.inf,), (np.inf,), "clip")


def output(layout, kind, *rows, num_rows=1):
    return PolicyOutput.from_raw(layout, kind, torch.tensor(rows, dtype=torch.float32).repeat(num_rows, 1))


def drawn(layout, kind, row, num_rows=20_000, **options):
    options = {"behaviour": "sample", "rng": np.random.default_rng(0)} | options
    return choose_actions(output(layout, kind, row, num_rows=num_rows), **options)


@pytest.mark.parametrize(
    ("layout", "kind", "row", "expected"),
    [
        (CHOICES, "logits", [0, 1, 5, 7, 6], [1, 1]),
        (SWITCHES, "logits", [-0.1, 0.1], [0, 1]),
        (CLIPPED, "gaussian", [-3, 4, 9, 9], [-1, 4]),
        (CLIPPED, "actions", [0.5, 11], [0.5, 10]),
        (SQUASHED, "gaussian", [0, 100, 9, 9], [0, 10]),
        (SQUASHED, "actions", [0.25, 9.5], [0.25, 9.5]),  # the network has squashed them already
        (UNBOUNDED, "actions", [1e6], [1e6]),
    ],
)
def test_greedy_actions_in_the_environments_units(layout, kind, row, expected):
    actions = choose_actions(output(layout, kind, row), "greedy")
    np.testing.assert_allclose(actions, [expected])
    assert actions.dtype == (np.float32 if layout.is_continuous else np.int64)


def test_each_choice_is_drawn_from_its_own_softmax():
    actions = drawn(CHOICES, "logits", [0, np.log(3), 0, 0, np.log(2)])
    observed = np.histogram2d(actions[:, 0], actions[:, 1], bins=(range(3), range(4)))[0]
    expected = np.outer([0.25, 0.75], [0.25, 0.25, 0.5]) * len(actions)
    assert stats.chisquare(observed.ravel(), expected.ravel()).pvalue > 0.01


def test_switches_are_drawn_by_their_log_odds():
    actions = drawn(SWITCHES, "logits", [np.log(3), -200])
    assert actions.mean(axis=0) == pytest.approx([0.75, 0], abs=0.01)


def test_a_gaussian_is_drawn_with_its_mean_and_deviation_and_then_clipped():
    actions = drawn(UNBOUNDED, "gaussian", [3.0, np.log(2)])[:, 0]
    assert stats.kstest(actions, stats.norm(3, 2).cdf).pvalue > 0.01
    clipped = drawn(CLIPPED, "gaussian", [0, 5, 3, 3])
    assert clipped.min(axis=0).tolist() == [-1, 0]
    assert clipped.max(axis=0).tolist() == [1, 10]


def test_a_squashed_gaussian_is_drawn_before_tanh_and_rescaling():
    actions = drawn(SQUASHED, "gaussian", [0.3, 0.0, np.log(0.5), -30])
    before = np.arctanh(actions[:, 0].astype(np.float64))
    assert stats.kstest(before, stats.norm(0.3, 0.5).cdf).pvalue > 0.01
    assert actions[:, 1] == pytest.approx(np.full(len(actions), 5), abs=1e-5)


def test_a_deterministic_policy_has_nothing_to_sample():
    assert drawn(CLIPPED, "actions", [0.5, 2], num_rows=3).tolist() == [[0.5, 2]] * 3


@pytest.mark.parametrize(("layout", "kind"), [(CHOICES, "logits"), (SWITCHES, "logits"), (CLIPPED, "actions")])
def test_full_exploration_is_uniform_in_every_dimension(layout, kind):
    row = [0.0] * layout.num_outputs(kind)
    actions = drawn(layout, kind, row, behaviour="greedy", exploration_epsilon=1.0)
    np.testing.assert_array_equal(actions, drawn(layout, kind, row, behaviour="sample", exploration_epsilon=1.0))
    expected = {"multi_discrete": [0.5, 1], "multi_binary": [0.5, 0.5], "box": [0, 5]}[layout.kind]
    assert actions.mean(axis=0) == pytest.approx(expected, abs=0.06)
    assert np.corrcoef(actions.T)[0, 1] == pytest.approx(0, abs=0.03)


def test_random_actions_without_bounds_are_normal():
    uniforms = np.random.default_rng(0).random((5000, 1))
    assert stats.kstest(random_actions(UNBOUNDED, uniforms)[:, 0], stats.norm.cdf).pvalue > 0.01
    assert np.isfinite(random_actions(UNBOUNDED, np.zeros((1, 1)))).all()


@pytest.mark.parametrize("behaviour", ["greedy", "sample", "random"])
@pytest.mark.parametrize(("layout", "kind"), [(CHOICES, "logits"), (SWITCHES, "logits"), (CLIPPED, "gaussian")])
def test_every_decision_advances_the_generator_alike(layout, kind, behaviour):
    rng, wound = np.random.default_rng(3), np.random.default_rng(3)
    rows = output(layout, kind, [0.0] * layout.num_outputs(kind), num_rows=2)
    for _ in range(5):
        choose_actions(rows, behaviour, rng=rng, exploration_epsilon=0.5)
    wound.random((5 * 2, draws_per_decision(layout)))
    assert rng.bit_generator.state == wound.bit_generator.state
