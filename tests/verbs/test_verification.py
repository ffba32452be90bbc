"""Is it really that policy? Worked out on environments whose scores are known."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest

from rldistill.adapters.load import load_policy
from rldistill.cli.description import verification_text
from rldistill.errors import GateError, MismatchError, TaskError, UsageError
from rldistill.inspection.expected import ExpectedReturn, recorded_return
from rldistill.verbs.verification import check_verified, verify
from tests.kit.cart_pole import hand_made_teacher, short_cart_pole
from tests.kit.interruptions import StopAfter
from tests.kit.payout import constant_heads, constant_policy, payout_task, payout_tasks
from tests.kit.push import push_policy
from tests.kit.small_policies import small_policy

# The verdict


def test_a_policy_that_scores_what_was_expected_agrees():
    task = payout_task()
    verification = verify(constant_policy(task, 2), task, num_episodes=6, expected_return=10)
    assert (verification.verdict, verification.difference) == ("agrees", 0.0)
    assert (verification.played.mean, verification.random.mean) == (10, 2)
    check_verified(verification)


def test_without_an_expected_return_nothing_is_compared():
    task = payout_task()
    verification = verify(constant_policy(task, 2), task, num_episodes=6)
    assert (verification.verdict, verification.expected, verification.difference) == ("not compared", None, None)
    assert verification.to_dict()["expected"] is None
    check_verified(verification)


def test_the_standard_errors_of_both_are_combined():
    task = payout_task(noise=1.0)
    verification = verify(
        constant_policy(task, 2), task, num_episodes=20, expected_return=10.6, expected_standard_error=0.15
    )
    error = verification.played.played.scores.std(ddof=1) / np.sqrt(20)
    assert verification.played.standard_error == pytest.approx(error)
    assert verification.to_dict()["combined_standard_error"] == pytest.approx(np.hypot(error, 0.15))
    assert verification.verdict == "agrees"
    assert verify(constant_policy(task, 2), task, num_episodes=20, expected_return=11.5).verdict == "differs"


def test_the_return_recorded_with_a_file_is_expected_unless_another_is_given():
    task = payout_task()
    record = {
        "mean": 7.0,
        "standard_deviation": 3.0,
        "episodes": 10,
        "chosen": "last of 4 evaluations",
        "file": "e.npz",
    }
    policy = constant_policy(task, 2).with_provenance({"source": {"recorded_return": record}})
    verification = verify(policy, task, num_episodes=6)
    assert verification.expected == ExpectedReturn(7.0, 1.0, "e.npz, last of 4 evaluations, 10 episodes", 10)
    assert verification.verdict == "agrees"
    assert verify(policy, task, num_episodes=6, expected_return=4).expected == ExpectedReturn(
        4, None, "--expected-return"
    )


@pytest.mark.parametrize("record", [None, "10", {}, {"mean": "10"}, {"mean": 10**400}])
def test_what_a_stranger_wrote_in_place_of_a_record_is_ignored(record):
    task = payout_task()
    policy = constant_policy(task, 2).with_provenance({"source": {"recorded_return": record}})
    assert verify(policy, task, num_episodes=6).expected is None


@pytest.mark.parametrize(
    ("deviation", "episodes"), [(10**400, 10), (-1.0, 10), (1.0, 10**400), ("1", 10), (1.0, 1)], ids=range(5)
)
def test_a_spread_that_is_no_number_is_not_known(deviation, episodes):
    record = {"mean": 7.0, "standard_deviation": deviation, "episodes": episodes}
    policy = small_policy().with_provenance({"source": {"recorded_return": record}})
    found = recorded_return(policy)
    assert found is not None
    assert (found.mean, found.standard_error) == (7.0, None)


def test_scores_without_spread_say_nothing_of_an_expected_return_without_an_error():
    task = payout_task()
    verification = verify(constant_policy(task, 1), task, num_episodes=6, expected_return=10)
    assert (verification.verdict, verification.difference) == ("not compared", -4.0)
    assert "give --expected-standard-error" in " ".join(verification_text(verification).split())
    with pytest.raises(GateError, match=r"scores 6 in all episodes .* Give --expected-standard-error"):
        check_verified(verification)
    sure = verify(constant_policy(task, 1), task, num_episodes=6, expected_return=10, expected_standard_error=0.1)
    assert sure.verdict == "differs"


def test_the_spread_of_a_census_stands_for_the_error_that_nobody_says():
    task = payout_task(noise=1.0)
    found = verify(constant_policy(task, 2), task, num_episodes=20)
    found = replace(found, expected=ExpectedReturn(found.played.mean + 0.6, None, "test"))
    assert found.verdict == "agrees"
    rows = [replace(row, played=replace(row.played, is_census=True)) for row in found.evaluation.policies]
    census = replace(found, evaluation=replace(found.evaluation, policies=tuple(rows)))
    assert (census.played.standard_error, census.standard_error) == (0.0, found.standard_error)
    assert (census.verdict, census.allowed_difference) == ("agrees", found.allowed_difference)
    known = replace(census, expected=replace(census.expected, standard_error=0.1))
    assert (known.verdict, known.standard_error) == ("differs", 0.0)


def test_a_gap_is_one_line():
    task = payout_task()
    verification = verify(
        constant_policy(task, 1, "student"), task, num_episodes=6, expected_return=10, expected_standard_error=0.1
    )
    with pytest.raises(GateError) as caught:
        check_verified(verification)
    assert str(caught.value) == (
        "Verification failed: student scores 6 ± 0 on tests.kit.payout:Payout-v0, 10.0 ± 0.1 expected "
        "(--expected-return). Its file speaks for no cause: compare how it was read (normaliser, activation, scaling "
        "of actions, version of the environment, behaviour) with how it was trained."
    )


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        (
            {"environment": "tests.kit.payout:Payout-v7"},
            "another version of the environment: it was made for tests.kit.payout:Payout-v7, "
            "tests.kit.payout:Payout-v0 was played",
        ),
        (
            {"library_version": "1.8.0"},
            "another version of the environment: Stable-Baselines3 1.8.0 trained on gym's tests.kit.payout:Payout-v0, "
            f"that of gymnasium {gymnasium.__version__} was played",
        ),
        (
            {"recorded_return": {"mean": 10}},
            "another version of the environment: the file does not say with which release its return was recorded, "
            f"gymnasium {gymnasium.__version__} was played",
        ),
        (
            {"algorithm": "sac"},
            "statistics of its observations: the file of an off-policy algorithm does not say whether there were any "
            "(name them with --normalizer)",
        ),
        ({"environment": "Other-v7"}, None),
    ],
)
def test_a_gap_names_what_the_file_tells_of_its_cause(source, cause):
    task = payout_task()
    policy = constant_policy(task, 1, "student").with_provenance({"source": source})
    verification = verify(policy, task, num_episodes=6, expected_return=10, expected_standard_error=0.1)
    assert verification.likely_causes == (() if cause is None else (cause,))
    with pytest.raises(GateError) as caught:
        check_verified(verification)
    assert str(caught.value).endswith(f"Likely cause: {cause}." if cause else "with how it was trained.")


# What does not fit


def test_a_version_that_is_gone_is_named_with_its_successor():
    task = replace(short_cart_pole().task, name="Pendulum-v0", environment_kwargs={})
    policy = hand_made_teacher().with_spec(heads=(replace(hand_made_teacher().spec.heads[0], task=task),))
    with pytest.raises(TaskError, match="--task Pendulum-v1"):
        verify(policy)


def test_of_several_tasks_one_is_named():
    tasks = payout_tasks(a={}, b={})
    policy = constant_heads(tasks, (2, 1))
    with pytest.raises(UsageError, match="plays several tasks: name one of tests"):
        verify(policy)
    assert verify(policy, tasks[1], num_episodes=6).played.mean == 6


def test_a_file_that_names_no_task_is_asked_for_one():
    unnamed = load_policy(
        lambda rows: rows[:, :2], task=replace(short_cart_pole().task, name="unnamed"), outputs="logits"
    )
    with pytest.raises(UsageError, match="does not say which task it plays"):
        verify(unnamed)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_episodes": 1}, "num_episodes must be 2 or more, got 1"),
        ({"expected_return": float("inf")}, "expected_return must be a number such as 195.5, got inf"),
        ({"expected_standard_error": 1.0}, "expected_standard_error belongs with expected_return"),
        (
            {"expected_return": 1.0, "expected_standard_error": -1.0},
            "expected_standard_error must be 0 or more, got -1",
        ),
    ],
)
def test_numbers_out_of_range_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        verify(push_policy(), **settings)


def test_another_environment_is_refused():
    with pytest.raises(MismatchError, match="does not fit task 'CartPole-v1'"):
        verify(push_policy(), "CartPole-v1")


def test_few_episodes_are_warned_about():
    said = []
    verify(push_policy(), num_episodes=5, callbacks=[lambda event: said.append(getattr(event, "text", ""))])
    assert "5 episodes tell little of their own spread: a gap may be luck. Play 30 or more." in said


def test_a_callback_may_stop_it():
    with pytest.raises(KeyboardInterrupt):
        verify(push_policy(), num_episodes=6, callbacks=[StopAfter(3)])
