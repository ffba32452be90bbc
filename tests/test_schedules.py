"""Schedules: values at hand-worked points, and the texts that make them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rldistill.errors import UsageError
from rldistill.schedules import Schedule, TaskSchedule, constant, linear, one_cycle, parse_schedule

FORMS = (
    "expected a number, linear:START->END, cosine:START->END (either may end in @FRACTION, and go on with ->VALUE) or "
    "one_cycle:PEAK."
)
numbers = st.floats(-1e6, 1e6)
fractions = st.floats(0.01, 1.0)


def cosine(start, end, fraction=1.0):
    return Schedule("cosine", ((0.0, start), (fraction, end)))


schedules = st.one_of(
    st.builds(constant, numbers),
    st.builds(linear, numbers, numbers, fractions),
    st.builds(cosine, numbers, numbers, fractions),
    st.builds(one_cycle, st.floats(1e-6, 1e6), st.floats(0.01, 0.99)),
)


@pytest.mark.parametrize(
    ("schedule", "progress", "expected"),
    [
        (constant(0.01), 0.0, 0.01),
        (constant(0.01), 1.0, 0.01),
        (linear(1.0, 0.0), 0.25, 0.75),
        (linear(0.0, 8.0), 0.75, 6.0),
        (linear(1.0, 0.0, 0.5), 0.25, 0.5),
        (linear(1.0, 0.0, 0.5), 0.75, 0.0),  # then the end value stays
        (cosine(1.0, 0.0), 0.25, 0.8535534),  # (1 + cos 45°) / 2
        (cosine(1.0, 0.0), 0.5, 0.5),
        (cosine(1.0, 0.0, 0.5), 0.25, 0.5),
        (cosine(1.0, 0.0, 0.5), 0.9, 0.0),
        (one_cycle(1.0), 0.0, 0.04),  # a 25th of the peak
        (one_cycle(1.0), 0.15, 0.52),  # half of the way up
        (one_cycle(1.0), 0.3, 1.0),
        (one_cycle(1.0), 0.65, 0.50005),  # half of the way down
        (one_cycle(1.0), 1.0, 1e-4),
        (one_cycle(1.0, warmup_fraction=0.5), 0.5, 1.0),
    ],
)
def test_schedule_matches_hand_worked_values(schedule, progress, expected):
    assert schedule(progress) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("text", "knots"),
    [
        ("linear:1->0.5@0.2->0", ((0.0, 1.0), (0.2, 0.5), (1.0, 0.0))),
        ("cosine:1->0.5@0.2->0.1@0.5->0@0.9", ((0.0, 1.0), (0.2, 0.5), (0.5, 0.1), (0.9, 0.0))),
    ],
)
def test_a_schedule_goes_through_any_number_of_knots_and_keeps_them_in_its_text(text, knots):
    schedule = parse_schedule(text, "temperature")
    assert schedule.knots == knots
    for place, value in knots:
        assert schedule(place) == value
    assert parse_schedule(schedule.to_value(), "temperature") == schedule
    assert schedule(0.1) == pytest.approx(0.75)
    assert schedule.bounds == (0.0, 1.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("linear:1->0.5->0", "expected a number, linear:START->END"),  # where is 0.5?
        ("linear:1@0.1->0", "expected a number, linear:START->END"),
        ("linear:1->0.5@0.6->0@0.3", "but knots must begin at progress 0 and rise to at most 1, got [0.0, 0.6, 0.3]."),
        ("linear:1->0.5@0.6->0@1.3", "but knots must begin at progress 0 and rise to at most 1, got [0.0, 0.6, 1.3]."),
    ],
)
def test_knots_out_of_order_are_refused(text, words):
    with pytest.raises(UsageError) as caught:
        parse_schedule(text, "temperature")
    assert words in str(caught.value)


@settings(deadline=None)
@given(start=numbers, end=numbers, fraction=fractions, kind=st.sampled_from([linear, cosine]))
def test_start_and_end_are_met_exactly(start, end, fraction, kind):
    schedule = kind(start, end, fraction)
    assert schedule(0.0) == start
    assert schedule(fraction) == end
    assert schedule(1.0) == end


@settings(deadline=None)
@given(value=numbers, progress=st.floats(0, 1), kind=st.sampled_from([linear, cosine]))
def test_equal_start_and_end_give_exactly_that_value_throughout(value, progress, kind):
    assert kind(value, value)(progress) == value


@settings(deadline=None)
@given(schedule=schedules, progress=st.floats(0, 1))
def test_schedule_stays_within_its_bounds(schedule, progress):
    low, high = schedule.bounds
    slack = 1e-12 * max(abs(low), abs(high))
    assert low - slack <= schedule(progress) <= high + slack


@settings(deadline=None)
@given(start=numbers, end=numbers, progresses=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_linear_and_cosine_never_turn_back(start, end, progresses):
    early, late = min(progresses), max(progresses)
    slack = 1e-12 * max(abs(start), abs(end))
    for schedule in (linear(start, end), cosine(start, end)):
        assert abs(schedule(late) - start) >= abs(schedule(early) - start) - slack


def test_one_cycle_rises_to_its_peak_and_falls():
    values = [one_cycle(1e-3)(step / 100) for step in range(101)]
    assert values.index(max(values)) == 30
    assert values[:31] == sorted(values[:31])
    assert values[30:] == sorted(values[30:], reverse=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.01", constant(0.01)),
        (0.01, constant(0.01)),
        (1, constant(1.0)),
        ("-2", constant(-2.0)),
        ("linear:0.2->0.01", linear(0.2, 0.01)),
        ("linear:0.2->0.01@0.5", linear(0.2, 0.01, 0.5)),
        ("linear: 0 -> -1 @ 0.5", linear(0.0, -1.0, 0.5)),
        ("cosine:1e-3->0", cosine(1e-3, 0.0)),
        ("cosine:1e-3->1e-5@0.9", cosine(1e-3, 1e-5, 0.9)),
        ("one_cycle:1e-3", one_cycle(1e-3)),
        ("one_cycle:1e-3@0.1", one_cycle(1e-3, 0.1)),
    ],
)
def test_text_makes_the_schedule_it_describes(text, expected):
    assert parse_schedule(text, "temperature") == expected


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (constant(0.01), "0.01"),
        (linear(0.2, 0.01), "linear:0.2->0.01"),
        (linear(0.2, 0.01, 0.5), "linear:0.2->0.01@0.5"),
        (cosine(1e-3, 0), "cosine:0.001->0.0"),
        (one_cycle(1e-3), "one_cycle:0.001"),
        (one_cycle(1e-5, 0.1), "one_cycle:1e-05@0.1"),
        (constant(np.float64(0.5)), "0.5"),
    ],
)
def test_schedule_writes_itself_as_text(schedule, text):
    assert str(schedule.to_value()) == text


@settings(deadline=None)
@given(schedule=schedules)
def test_schedule_survives_the_way_through_text(schedule):
    assert parse_schedule(schedule.to_value(), "x") == schedule


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fast",
        "linaer:1->0",
        "linear",
        "linear:",
        "linear:1",
        "linear:1@0.5",
        "linear:1->",
        "linear:1->0->1",
        "linear:1->0@",
        "linear:1->0@0.5@0.5",
        "cosine:1->zero",
        "one_cycle:1->0",
        "one_cycle:",
        ":0.01",
        "0.01@0.5",
        "linear:linear:1->0",
        True,
    ],
)
def test_text_of_no_known_form_is_refused_with_all_forms(text):
    with pytest.raises(UsageError) as raised:
        parse_schedule(text, "temperature")
    assert str(raised.value) == f"temperature: got {text!r}, {FORMS}"


def test_text_cut_off_by_the_shell_is_refused_with_the_reason():
    with pytest.raises(UsageError) as raised:
        parse_schedule("linear:0.2-", "temperature")
    assert str(raised.value) == (
        f"temperature: got 'linear:0.2-', {FORMS} The shell took '>' as a redirection: put the value in quotes."
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("linear:1->0@0", "fraction must be in (0, 1], got 0.0."),
        ("linear:1->0@1.5", "fraction must be in (0, 1], got 1.5."),
        ("cosine:1->0@nan", "fraction must be in (0, 1], got nan."),
        ("one_cycle:0", "peak must be > 0, got 0.0."),
        ("one_cycle:-1", "peak must be > 0, got -1.0."),
        ("one_cycle:1@1", "warmup_fraction must be in (0, 1), got 1.0."),
        ("one_cycle:1@0", "warmup_fraction must be in (0, 1), got 0.0."),
    ],
)
def test_number_out_of_range_is_refused_with_its_range(text, reason):
    with pytest.raises(UsageError) as raised:
        parse_schedule(text, "learning_rate")
    assert str(raised.value) == f"learning_rate: got {text!r}, but {reason}"


@pytest.mark.parametrize("text", ["nan", float("inf"), "linear:1->inf", "cosine:nan->1", "one_cycle:inf"])
def test_what_is_no_finite_number_is_refused_in_one_line(text):
    with pytest.raises(UsageError) as raised:
        parse_schedule(text, "learning_rate")
    assert str(raised.value) == f"learning_rate: got {text!r}, expected finite numbers."


@pytest.mark.parametrize("progress", [-0.01, 1.01, float("nan")])
@pytest.mark.parametrize("schedule", [constant(1.0), linear(1.0, 0.0), cosine(1.0, 0.0), one_cycle(1.0)])
def test_progress_outside_the_run_is_an_error(schedule, progress):
    with pytest.raises(ValueError, match=rf"^progress must be in \[0, 1\], got {progress}\.$"):
        schedule(progress)


# Which task comes next.


def test_in_turn_gives_whole_batches_to_one_task_after_the_other():
    schedule = TaskSchedule("in_turn", (1.0, 1.0, 1.0))
    assert [schedule.rows(update, 8) for update in range(4)] == [(8, 0, 0), (0, 8, 0), (0, 0, 8), (8, 0, 0)]


@settings(deadline=None)
@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=6), st.integers(0, 10**6), st.integers(1, 300))
def test_a_mixed_batch_is_whole_and_no_share_is_off_by_more_than_one_row(weights, update, batch_size):
    rows = TaskSchedule("mixed", tuple(weights)).rows(update, batch_size)
    assert sum(rows) == batch_size
    for count, weight in zip(rows, weights, strict=True):
        assert abs(count - batch_size * weight / sum(weights)) < 1 + 1e-6


def test_over_many_mixed_batches_the_shares_are_right():
    weights = (1.0, 2.0, 3.5)
    rows = np.array([TaskSchedule("mixed", weights).rows(update, 10) for update in range(2000)])
    np.testing.assert_allclose(rows.mean(axis=0), 10 * np.array(weights) / 6.5, atol=0.01)
    np.testing.assert_allclose(TaskSchedule("mixed", weights).mean_rows(10), 10 * np.array(weights) / 6.5)


def test_random_draws_tasks_by_weight_and_repeats_itself():
    schedule = TaskSchedule("random", (1.0, 3.0), seed=1)
    drawn = [schedule.rows(update, 4).index(4) for update in range(400)]
    assert drawn == [schedule.rows(update, 4).index(4) for update in range(400)]
    # 300 expected; the standard deviation is 8.7.
    assert 265 < sum(drawn) < 335


@pytest.mark.parametrize(
    ("order", "weights", "line"),
    [
        ("shuffled", (1.0,), "task_order: got 'shuffled', expected in_turn, mixed, random."),
        ("in_turn", (1.0, 2.0), "task_weights do not go with task_order in_turn"),
        ("mixed", (1.0, 0.0), "task_weights must be > 0 with a finite sum, got 1.0, 0.0."),
        ("random", (1e308, 1e308), "task_weights must be > 0 with a finite sum, got 1e.308, 1e.308."),
        ("mixed", (float("nan"),), "task_weights must be > 0 with a finite sum, got nan."),
    ],
)
def test_a_task_schedule_that_cannot_be_says_why(order, weights, line):
    with pytest.raises(UsageError, match=line):
        TaskSchedule(order, weights)
