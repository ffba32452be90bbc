"""A policy made of several: each answers for its own rows alone, and keeps its own memory."""

import numpy as np
import pytest
import torch

from rldistill.errors import MismatchError, UsageError
from rldistill.loading.several import make_choice
from rldistill.policies.switched import Choice, SwitchedPolicy, places
from rldistill.sight import Sight
from tests.kit.recurrent import gru_policy
from tests.kit.small_policies import small_policy, vector_task

TASK = vector_task(3, 2)
LAST = Choice(function=lambda observations: observations[:, 1])


def rows(*kinds, seed=0):
    first = np.random.default_rng(seed).normal(size=len(kinds))
    return np.stack([first, np.array(kinds)], axis=1).astype(np.float32)


def test_each_row_is_answered_by_its_own_policy():
    a, b = small_policy(TASK, seed=1), small_policy(TASK, seed=2)
    given = rows(0, 1, 1, 0)
    output, state = SwitchedPolicy({"a": a, "b": b}, TASK, LAST)(given)
    assert state is None
    assert output.teacher is not None and output.teacher.tolist() == [0, 1, 1, 0]
    for row, own in enumerate([a, b, b, a]):
        assert torch.equal(output.raw[row], own(given)[0].raw[row])


def test_a_policy_remembers_its_own_rows_alone():
    a, b = gru_policy(seed=1), gru_policy(seed=2)
    both = SwitchedPolicy({"a": a, "b": b}, TASK, LAST)
    kinds = [0, 1, 1, 0]
    state, own = both.initial_state(1), {0: a.initial_state(1), 1: b.initial_state(1)}
    for time, kind in enumerate(kinds):
        given = rows(kind, seed=time)
        output, state = both(given, state)
        alone, own[kind] = (a, b)[kind](given, own[kind])
        assert torch.equal(output.raw, alone.raw)


@pytest.mark.parametrize("num_envs", [1, 3])
def test_a_state_of_other_environments_is_refused(num_envs):
    both = SwitchedPolicy({"a": gru_policy(seed=1), "b": gru_policy(seed=2)}, TASK, LAST)
    for call in (both, lambda given, state: both.act(given, state=state)):
        with pytest.raises(MismatchError, match=rf"got 2 observations and the state \[\[{num_envs}, "):
            call(rows(0, 1), both.initial_state(num_envs))


@pytest.mark.parametrize(
    ("values", "names", "expected"),
    [
        (np.array(["b", "a"]), ["a", "b"], [1, 0]),
        (np.array([[1.0], [0.0]]), ["a", "b"], [1, 0]),
        (np.array([7, 3]), ["3", "7"], [1, 0]),
        (np.array([True, False]), ["a", "b"], [1, 0]),
        (np.array([[0.0, 1.0], [1.0, 0.0]]), ["a", "b"], [1, 0]),
        (np.array([0, "b"], object), ["a", "b"], [0, 1]),
    ],
)
def test_values_are_names_or_numbers_or_one_hot(values, names, expected):
    assert places(values, names, "kind").tolist() == expected


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (np.array(["c"]), "choose: kind says 'c' of a row, expected a, b. "),
        (np.array([2.0]), r"choose: kind says 2\.0 of a row, expected 0 \(a\), 1 \(b\)\. Name a teacher for it"),
        (np.array([[1.0, 1.0]]), r"kind says \[1\.0, 1\.0\] of a row"),
        (np.array([[0.0, 0.0]]), r"kind says \[0\.0, 0\.0\] of a row"),
        (np.array([np.nan]), "kind says nan of a row"),
        (
            np.array([[0.0, 1.0, 0.0]]),
            "kind gives 3 values for a row, expected 1, or 2 of which one is 1: the teachers",
        ),
    ],
)
def test_a_value_that_no_policy_has_is_refused(values, line):
    with pytest.raises(MismatchError, match=line):
        places(values, ["a", "b"], "kind")


def zero(observations):
    return 1 / 0


@pytest.mark.parametrize(
    ("function", "line"),
    [
        (
            lambda rows: 1,
            r"gave one int for 3 observations, expected one value for each, \[3\]: the name of its teacher",
        ),
        (lambda rows: None, "gave one NoneType for 3 observations"),
        (lambda rows: {"a": 1}, "gave one dict for 3 observations"),
        (lambda rows: [0, 1], r"gave a value of shape \[2\] for 3 observations, expected one value for each, \[3\]"),
        (lambda rows: np.zeros((0, 2)), r"gave a value of shape \[0, 2\] for 3 observations"),
        (lambda rows: [[0], [0, 1], [1]], "gave a list that is no array for 3 observations"),
        (
            lambda rows: np.zeros((3, 3)),
            "gives 3 values for a row, expected 1, or 2 of which one is 1: the teachers are a",
        ),
        (zero, "failed on 3 observations: ZeroDivisionError: division by zero. It is called with one array of them"),
        (lambda rows: rows["kind"], "failed on 3 observations: IndexError: only integers"),
        (lambda rows: {}["kind"], "failed on 3 observations: KeyError: 'kind'. It is called with"),
    ],
)
def test_a_function_that_does_not_choose_is_told_in_one_line(function, line):
    both = SwitchedPolicy({"a": small_policy(TASK), "b": small_policy(TASK)}, TASK, Choice(function=function))
    with pytest.raises(MismatchError, match=f"^choose: {__name__}:{function.__qualname__} {line}") as caught:
        both(rows(0, 1, 1))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [np.array([[0], [1], [1]]), [0, 1, 1], torch.tensor([0, 1, 1]), ["a", "b", "b"]])
def test_a_function_gives_one_value_for_each_row(values):
    both = SwitchedPolicy(
        {"a": small_policy(TASK), "b": small_policy(TASK)}, TASK, Choice(function=lambda rows: values)
    )
    output, _ = both(rows(0, 0, 0))
    assert output.teacher is not None and output.teacher.tolist() == [0, 1, 1]


@pytest.mark.parametrize("choose", [3, ["a"], f"{__name__}:TASK"])
def test_what_is_no_function_chooses_nothing(choose):
    with pytest.raises(UsageError, match=r"^choose: got .*, expected a part of the observation, an entry of info"):
        make_choice(choose, None, TASK)


def test_policies_that_answer_in_different_ways_are_refused():
    a, b = small_policy(TASK), small_policy(TASK, output_kind="logits")
    with pytest.raises(MismatchError, match="need the same outputs, got 'q_values' of a and 'logits' of b"):
        SwitchedPolicy({"a": a, "b": b}, TASK, LAST)


def test_its_identity_follows_from_its_policies_their_names_and_what_chooses():
    a, b = small_policy(TASK, seed=1), small_policy(TASK, seed=2)
    part, other = Choice(Sight(("kind",), {"kind": (1, 2)})), Choice(entry="kind")
    made = [({"a": a, "b": b}, part), ({"a": b, "b": a}, part), ({"x": a, "b": b}, part), ({"a": a, "b": b}, other)]
    assert len({SwitchedPolicy(members, TASK, choice).hash for members, choice in made}) == 4
