"""From scores to actions: frequencies against their probabilities, and generators that always advance alike."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies
from scipy import stats

from rldistill.policies import choose_actions
from rldistill.policies.behaviour import draws_per_decision
from rldistill.types import ActionLayout, PolicyOutput

DRAWS_PER_DECISION = draws_per_decision(ActionLayout.discrete(4))
SCORES = np.array([0.5, -1.0, 2.0, 0.0], np.float32)


def choose(scores, kind, behaviour, **options):
    output = PolicyOutput.from_raw(ActionLayout.discrete(scores.shape[1]), kind, torch.from_numpy(scores))
    return choose_actions(output, behaviour, **options)


def rows_of(scores, num_rows):
    return np.tile(np.asarray(scores, np.float32), (num_rows, 1))


def counts(num_rows=20_000, scores=SCORES, **options):
    actions = choose(rows_of(scores, num_rows), rng=np.random.default_rng(0), **options)
    return np.bincount(actions, minlength=len(scores))


def assert_frequencies(observed, probabilities):
    """Compare by a chi-square test; at a fixed seed it either always passes or never."""
    expected = np.asarray(probabilities, np.float64) / np.sum(probabilities, dtype=np.float64) * observed.sum()
    possible = expected > 0
    assert observed[~possible].sum() == 0
    if possible.sum() == 1:
        return
    assert stats.chisquare(observed[possible], expected[possible]).pvalue > 0.01


def softmax(scores):
    weights = np.exp(scores - np.max(scores))
    return weights / weights.sum()


@pytest.mark.parametrize("epsilon", [-0.1, 5.0, float("nan")])
def test_an_exploration_that_is_no_chance_is_refused(epsilon):
    with pytest.raises(ValueError, match=r"exploration_epsilon must lie in \[0, 1\], got "):
        choose(rows_of(SCORES, 2), "q_values", "greedy", exploration_epsilon=epsilon)


def test_greedy_takes_the_best_and_the_first_of_equals():
    scores = np.array([[0, 1, 0], [2, 1, 2], [-3, -2, -1]], np.float32)
    assert choose(scores, "q_values", "greedy").tolist() == [1, 0, 2]


@pytest.mark.parametrize("kind", ["logits", "q_values"])
def test_sampling_draws_from_the_softmax_of_the_scores(kind):
    assert_frequencies(counts(kind=kind, behaviour="sample"), softmax(SCORES))


def test_exploration_replaces_its_share_of_greedy_decisions_by_uniform_ones():
    epsilon = 0.3
    expected = np.full(4, epsilon / 4) + (1 - epsilon) * np.eye(4)[2]
    assert_frequencies(counts(kind="q_values", behaviour="greedy", exploration_epsilon=epsilon), expected)


def test_exploration_replaces_its_share_of_sampled_decisions_too():
    expected = 0.3 / 4 + 0.7 * softmax(SCORES)
    assert_frequencies(counts(kind="logits", behaviour="sample", exploration_epsilon=0.3), expected)


def test_full_exploration_is_uniform():
    assert_frequencies(counts(kind="q_values", behaviour="greedy", exploration_epsilon=1.0), np.full(4, 0.25))


def test_impossible_actions_are_never_sampled():
    scores = [-np.inf, 0.0, -np.inf, 0.0]
    assert_frequencies(counts(scores=scores, kind="logits", behaviour="sample"), [0, 0.5, 0, 0.5])


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_extreme_scores_are_sampled_without_overflow(scale):
    scores = np.array([0.0, scale, 0.0], np.float32)
    assert_frequencies(counts(scores=scores, kind="logits", behaviour="sample"), softmax(scores))


def test_sampling_does_not_depend_on_a_constant_added_to_the_scores():
    # Powers of two, so that the shifted scores are exact.
    plain = choose(rows_of([0.5, -1, 2], 500), "logits", "sample", rng=np.random.default_rng(0))
    shifted = choose(rows_of([64.5, 63, 66], 500), "logits", "sample", rng=np.random.default_rng(0))
    np.testing.assert_array_equal(plain, shifted)


class FixedDraws(np.random.Generator):
    """Gives back the numbers it was made with."""

    def __init__(self, *draws):
        super().__init__(np.random.PCG64(0))
        self._draws = np.array(draws)

    def random(self, size):
        assert size == DRAWS_PER_DECISION
        return self._draws


@pytest.mark.parametrize(
    ("draws", "action"),
    [
        ((0.09, 0.0, 0.9), 0),  # explores: below ε; the first of four
        ((0.09, 0.999, 0.0), 3),  # explores: the last of four
        ((0.09, 0.5, 0.0), 2),
        ((0.10, 0.5, 0.0), 0),  # does not explore; the first quarter of the distribution
        ((0.10, 0.5, 0.25), 1),
        ((0.10, 0.5, 0.999), 3),
    ],
)
def test_the_three_numbers_of_a_decision_are_whether_to_explore_where_to_and_what_to_sample(draws, action):
    equal = rows_of([1, 1, 1, 1], 1)
    chosen = choose(equal, "logits", "sample", rng=[FixedDraws(*draws)], exploration_epsilon=0.1)
    assert chosen.tolist() == [action]


@pytest.mark.parametrize(
    "options",
    [
        {"behaviour": "sample"},
        {"behaviour": "sample", "exploration_epsilon": 0.5},
        {"behaviour": "sample", "exploration_epsilon": 1.0},
        {"behaviour": "greedy", "exploration_epsilon": 1e-9},
        {"behaviour": "greedy", "exploration_epsilon": 1.0},
    ],
)
def test_every_decision_advances_the_generator_by_the_same_number_of_draws(options):
    rng, wound = np.random.default_rng(3), np.random.default_rng(3)
    for _ in range(5):
        choose(rows_of(SCORES, 2), "logits", rng=rng, **options)
    wound.random((5 * 2, DRAWS_PER_DECISION))
    assert rng.bit_generator.state == wound.bit_generator.state


def test_greedy_play_without_exploration_draws_nothing():
    rng = np.random.default_rng(3)
    choose(rows_of(SCORES, 2), "q_values", "greedy", rng=rng)
    assert rng.bit_generator.state == np.random.default_rng(3).bit_generator.state


@settings(deadline=None, derandomize=True)
@given(
    scores=numpy_strategies.arrays(np.float32, (5, 3), elements=st.floats(-50, 50, width=32)),
    epsilon=st.floats(0.01, 1),
)
def test_each_row_draws_from_its_own_generator_alone(scores, epsilon):
    options = {"kind": "logits", "behaviour": "sample", "exploration_epsilon": epsilon}
    together = choose(scores, rng=[np.random.default_rng(row) for row in range(5)], **options)
    alone = [choose(scores[[row]], rng=[np.random.default_rng(row)], **options)[0] for row in range(5)]
    assert together.tolist() == alone
    assert together.min() >= 0
    assert together.max() <= 2


def test_one_generator_serves_the_rows_in_turn():
    together = choose(rows_of(SCORES, 6), "logits", "sample", rng=np.random.default_rng(0))
    rng = np.random.default_rng(0)
    one_by_one = [choose(rows_of(SCORES, 1), "logits", "sample", rng=rng)[0] for _ in range(6)]
    assert together.tolist() == one_by_one


@pytest.mark.parametrize(("behaviour", "epsilon"), [("sample", 0.0), ("greedy", 0.05)])
def test_drawing_without_a_generator_is_refused(behaviour, epsilon):
    with pytest.raises(ValueError, match=rf"behaviour '{behaviour}' of logits and ε {epsilon} draws random numbers"):
        choose(rows_of(SCORES, 1), "logits", behaviour, exploration_epsilon=epsilon)


@pytest.mark.parametrize("num_generators", [1, 4])
def test_generators_must_be_as_many_as_rows(num_generators):
    rng = [np.random.default_rng(0)] * num_generators
    with pytest.raises(
        ValueError, match=rf"^rng must be one generator or one per row: got {num_generators} for 3 rows\.$"
    ):
        choose(rows_of(SCORES, 3), "logits", "sample", rng=rng)


def test_a_spread_beyond_all_floats_still_gives_actions_in_the_box():
    layout = ActionLayout("box", (2,), (-1.0, -1.0), (1.0, 1.0), "clip")
    output = PolicyOutput(layout, mean=torch.zeros(64, 2), log_std=torch.full((64, 2), 1e38))
    actions = choose_actions(output, "sample", rng=np.random.default_rng(0))
    assert set(np.unique(actions)) == {-1.0, 1.0}
