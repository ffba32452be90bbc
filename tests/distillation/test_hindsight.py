"""What a student's own play says of its steps when it is over, worked by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from rldistill.distillation.hindsight import Hindsight
from tests.kit.cart_pole import hand_made_teacher

# Two episodes of two and one steps; the second of the first goes on, as far as is known.
NEXT, PLACES = np.array([1, -5, -1]), np.array([0, 1, 0])
FIELDS = {
    "reward": np.array([1.0, 2.0, 4.0], np.float32),
    "value": np.array([2.5, 1.0, 5.0], np.float32),
    "logits": np.array([[1.0, 0.0], [0.0, 3.0], [2.0, 2.0]], np.float32),
    "student": np.zeros((3, 2), np.float32),
}
STORE = SimpleNamespace(next_steps=NEXT, steps_in_episode=PLACES)
REPLAY = SimpleNamespace(store=STORE, field=FIELDS.__getitem__)


def gap(student, teacher, progress):
    """A loss of one's own: the sum of all differences, ten times as much at the end."""
    return (teacher - student).sum(1) * (1 + 9 * progress)


def hindsight(**settings) -> Hindsight:
    return Hindsight(hand_made_teacher(kind="logits"), gap, **settings)


def test_the_losses_that_followed_are_those_of_the_moment_of_play():
    found = hindsight(lookahead=0.5).of(REPLAY, "logits", 0.0)
    assert list(found) == ["future"]
    np.testing.assert_allclose(found["future"], [1.5, 0.0, 0.0])
    np.testing.assert_allclose(hindsight(lookahead=0.5).of(REPLAY, "logits", 1.0)["future"], [15.0, 0.0, 0.0])


def test_the_value_gate_is_open_where_the_teacher_expects_more_than_was_paid():
    # Paid from each step on, at a discount of 0.5: 2, 2 and 4; expected by the teacher: 2.5, 1 and 5.
    found = hindsight(value_gate=0.5).of(REPLAY, "logits", 0.0)
    assert list(found) == ["weights"]
    np.testing.assert_array_equal(found["weights"], [1.0, 0.0, 1.0])


@pytest.mark.parametrize(
    ("settings", "names"), [({"lookahead": 1.0}, {"reward", "action", "student"}), ({}, {"reward"})]
)
def test_what_is_kept_of_the_play_is_what_is_looked_at(settings, names):
    assert set(hindsight(**settings).fields) == names
