import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rldistill.exports import parity
from rldistill.exports.parity import Parity, compare, time_decisions
from rldistill.exports.result import Exported
from rldistill.exports.table import FORMATS
from rldistill.exports.trajectories import Decisions
from rldistill.networks import GaussianOptions
from rldistill.policies.padded import probe_rows
from rldistill.statistics import Interval
from tests.kit.small_policies import box_task, small_policy


def decisions_of(policy, *sizes):
    for size in sizes:
        rows = probe_rows(policy.tasks[0].fingerprint, size).numpy()
        yield Decisions(rows, rows, policy(rows)[0], np.zeros(size, np.int64), np.arange(size) == 0, 1)


def changed(policy, name, amount):
    """Return a copy whose tensor of this name is another."""
    copy = small_policy(*policy.tasks, output_kind=policy.output_kind, gaussian=policy.spec.gaussian)
    copy.network.load_state_dict(policy.network.state_dict())
    with torch.no_grad():
        copy.network.get_parameter(name).add_(torch.tensor(amount))
    return copy


def test_a_policy_is_its_own_equal_over_all_episodes():
    policy = small_policy()
    found = compare(policy, decisions_of(policy, 20, 12), "float32")
    assert found == Parity(2, 32, 32, 0, None, 0.0, found.largest_output)
    assert (found.agreement, found.relative_error) == (1, 0)


def test_a_bias_that_turns_every_choice_is_found():
    policy = small_policy()
    found = compare(changed(policy, "heads.0.output.bias", [-100.0, 0.0, 0.0]), decisions_of(policy, 20), "float32")
    np.testing.assert_allclose(found.largest_output_error, 100, rtol=1e-5)
    np.testing.assert_allclose(found.relative_error, 100 / found.largest_output, rtol=1e-5)
    assert found.agreement < 1


def test_choices_that_the_policy_scores_alike_are_ties():
    policy = small_policy()
    with torch.no_grad():
        policy.network.heads[0].output.weight.zero_()
    found = compare(changed(policy, "heads.0.output.bias", [0.0, 1e-7, 0.0]), decisions_of(policy, 20), "float32")
    assert (found.num_equal, found.num_ties, found.agreement) == (0, 20, 1)


def test_actions_of_a_box_are_measured_in_its_widths():
    policy = small_policy(box_task(low=-2.0, high=2.0), output_kind="actions")
    with torch.no_grad():
        policy.network.heads[0].output.weight.zero_()
    found = compare(changed(policy, "heads.0.output.bias", [0.0, 0.04]), decisions_of(policy, 20), "int8")
    np.testing.assert_allclose(found.largest_action_gap, 0.01, rtol=1e-5)
    assert found.num_equal == 20


def test_another_spread_is_no_error_of_the_mean():
    policy = small_policy(box_task(), output_kind="gaussian", gaussian=GaussianOptions("parameter"))
    found = compare(changed(policy, "heads.0.rows.log_std", [0.5, 0.0]), decisions_of(policy, 20), "float32")
    assert (found.largest_output_error, found.largest_log_std_error) == (0.0, 0.5)


@pytest.mark.parametrize(("precision", "limit"), [("float32", 0.1), ("float16", 0.1), ("int8", 0.5)])
def test_another_spread_fails_where_the_files_of_a_format_can_hold_the_policys(precision, limit):
    def exported(error, *, keeps_spread=True):
        found = Parity(1, 10, 10, 0, 0.0, 0.0, 4.0, error)
        return Exported("onnx", Path("x"), precision, {}, "", found, {}, None, keeps_spread=keeps_spread)

    assert not exported(0.9 * limit).problems
    line = (
        f"the logarithm of a standard deviation is off by {1.2 * limit:.2g}, expected {limit} at most for {precision}"
    )
    assert exported(1.2 * limit).problems == [line]
    assert not exported(1.2 * limit, keeps_spread=False).problems
    assert "its spread is another" in str(exported(1.2 * limit, keeps_spread=False))


def test_formats_that_have_one_spread_for_all_states_are_not_held_to_the_policys():
    assert {name for name, own in FORMATS.items() if not own.keeps_spread} == {"sb3", "rsl-rl"}


@pytest.mark.parametrize("place", ["first", "last"])
def test_nan_in_any_part_of_the_play_fails(place, monkeypatch):
    policy = small_policy()
    right = parity._answers

    def answers(export, rows, state):
        raw, actions, following = right(export, rows, state)
        is_chosen = len(rows) == (20 if place == "first" else 12)
        return (raw.clone().index_fill_(0, torch.tensor([3]), torch.nan) if is_chosen else raw), actions, following

    monkeypatch.setattr(parity, "_answers", answers)
    found = compare(policy, decisions_of(policy, 20, 12), "float32")
    result = Exported("onnx", Path("x.onnx"), "float32", {}, "", found, {}, None)
    assert result.problems == ["it gives NaN where the policy gives numbers"]
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["parity"]["largest_output_error"] is None


def test_decisions_are_timed_one_at_a_time():
    seen = []
    found = time_decisions(lambda row: seen.append(row.shape), np.zeros((7, 4), np.float32))
    assert set(seen) == {(1, 4)}
    assert 0 < found.median_seconds <= found.p99_seconds


@pytest.mark.parametrize(
    ("precision", "limit", "least"), [("float32", 1e-3, 100), ("float16", 0.05, 99), ("int8", 0.5, 90)]
)
def test_the_gates_open_and_shut_where_they_say(precision, limit, least):
    def fails(parity=None, score=None):
        return bool(Exported("onnx", Path("x"), precision, {}, "", parity, {}, score).problems)

    assert not fails(Parity(1, 10, 10, 0, None, 0.9 * limit * 4, 4.0))
    assert fails(Parity(1, 10, 10, 0, None, 1.1 * limit * 4, 4.0))
    assert not fails(Parity(1, 100, least, 0, None, 0.0, 1.0))
    assert fails(Parity(1, 100, least - 1, 0, None, 0.0, 1.0))
    for high, is_wrong in ((0.96, False), (0.94, True)):
        kept = SimpleNamespace(students=[SimpleNamespace(retention_interval=Interval(0.5, high))])
        assert fails(score=kept) == is_wrong
