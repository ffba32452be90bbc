"""Is it really that policy? Worked out on environments whose scores are known."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch

from rldistill.adapters.load import load_policy
from rldistill.envs import make_task
from rldistill.errors import GateError, MismatchError, TaskError, UsageError
from rldistill.inspection.expected_return import ExpectedReturn
from rldistill.inspection.mistakes import likely_causes
from rldistill.networks import InputNormalization, parse_architecture
from rldistill.policies import TorchPolicy
from rldistill.verbs.verification import check_verified, verify
from tests.kit.cart_pole import hand_made_teacher, short_cart_pole
from tests.kit.interruptions import StopAfter
from tests.kit.payout import constant_heads, constant_policy, payout_task, payout_tasks

PUSH_TASK = "tests.verbs.test_verification:Push-v2"


class Push(gymnasium.Env):
    """Ten pushes. Each pays the distance that was pushed, at most `largest`, and less where there is friction."""

    def __init__(self, largest: float = 2.0, friction: float = 0.0) -> None:
        self.observation_space = gymnasium.spaces.Box(-10.0, 10.0, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-largest, largest, (1,), np.float32)
        self._friction = friction
        self._steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._steps = 0
        return self._observation(), {}

    def step(self, action):
        self._steps += 1
        return self._observation(), float(action[0]) - self._friction, self._steps == 10, False, {}

    def _observation(self):
        return np.array([5.0, self.np_random.uniform(5.0, 5.2)], np.float32)


gymnasium.register("Push-v2", entry_point=Push)
gymnasium.register("Push-v1", entry_point=Push, kwargs={"friction": 0.3})


def push_policy(kind="gaussian", *, mapping="tanh_rescale", normalised=True, **options):
    """Return a policy that sees 0 and 0.2 at most, and gives tanh(1) of the box's half width; else much more."""
    task = make_task(PUSH_TASK).task
    layout = replace(task.fingerprint.action_layout, mapping=mapping)
    task = replace(task, fingerprint=replace(task.fingerprint, action_layout=layout))
    normalization = InputNormalization((5.0, 5.1), (1.0, 1.0)) if normalised else None
    policy = TorchPolicy.create(
        replace(parse_architecture("mlp:2"), activation="tanh"),
        [task],
        output_kind=kind,
        normalization=normalization,
        generator=torch.Generator().manual_seed(0),
        name="push",
        **options,
    )
    state = policy.network.state_dict()
    state["torso.1.weight"] = torch.eye(2)
    state["heads.0.output.weight"] = torch.tensor([[-3.0, 0.0]])
    state["heads.0.output.bias"] = torch.tensor([1.0])
    if kind == "gaussian":
        state["heads.0.rows.log_std_layer.bias"] = torch.tensor([-20.0])
    policy.network.load_state_dict(state)
    return policy


SCORE = 10 * 2 * float(np.tanh(1.0))


def findings(verification):
    return {finding.mistake: finding for finding in verification.findings}


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


@pytest.mark.parametrize("record", [None, "10", {}, {"mean": "10"}])
def test_what_a_stranger_wrote_in_place_of_a_record_is_ignored(record):
    task = payout_task()
    policy = constant_policy(task, 2).with_provenance({"source": {"recorded_return": record}})
    assert verify(policy, task, num_episodes=6).expected is None


def test_a_gap_is_one_line():
    task = payout_task()
    verification = verify(constant_policy(task, 1, "student"), task, num_episodes=6, expected_return=10)
    with pytest.raises(GateError) as caught:
        check_verified(verification)
    assert str(caught.value) == (
        "Verification failed: student scores 6 ± 0 on tests.kit.payout:Payout-v0, 10.0 expected (--expected-return). "
        "Its file speaks for no cause: compare how it was read (normaliser, activation, scaling of actions, version of "
        "the environment, behaviour) with how it was trained."
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
    verification = verify(policy, task, num_episodes=6, expected_return=10)
    assert verification.likely_causes == (() if cause is None else (cause,))
    with pytest.raises(GateError) as caught:
        check_verified(verification)
    assert str(caught.value).endswith(f"Likely cause: {cause}." if cause else "with how it was trained.")


# How it was read


def test_how_a_file_was_read_is_told_where_the_usual_mistakes_are_made():
    read = findings(verify(push_policy(), num_episodes=6))
    assert {name: finding.as_played for name, finding in read.items()} == {
        "normaliser": "applied, clipped to ±10",
        "activation": "tanh",
        "action scaling": "tanh, then rescaled to [-2, 2]",
        "time feature": "none",
        "environment version": PUSH_TASK,
        "greedy or sampling": "greedy",
    }
    assert findings(verify(push_policy("actions"), num_episodes=6))["greedy or sampling"].as_played == "deterministic"


def test_a_clock_is_told_with_its_length():
    task = make_task("CartPole-v1", {"time_feature": 40, "max_episode_steps": 40})
    policy = TorchPolicy.create(parse_architecture("mlp:4"), [task.task], output_kind="logits")
    assert findings(verify(policy, task, num_episodes=6))["time feature"].as_played == "1 − t / 40"


def test_a_missing_normaliser_is_told():
    policy = push_policy(normalised=False).with_provenance({"source": {"notes": ["vecnormalize.pkl is missing."]}})
    (note,) = {finding.note for finding in findings(verify(policy, num_episodes=6)).values()} - {None}
    assert note == "missing"


def test_quantiles_are_spoken_of_where_there_are_any():
    policy = push_policy().with_provenance({"source": {"algorithm": "qrdqn"}})
    assert "quantile order" in findings(verify(policy, num_episodes=6))
    assert "quantile order" not in findings(verify(push_policy(), num_episodes=6))


def test_of_a_program_what_is_inside_is_not_told():
    def push(observations):
        return torch.cat([observations[:, :1] * 0 + 1, observations[:, :1] * 0 - 20], dim=1)

    verification = verify(load_policy(push, task=PUSH_TASK, outputs="gaussian"), num_episodes=6)
    assert verification.played.mean == 10
    assert findings(verification)["activation"].as_played == "inside the program, not to be seen"


# What its outputs say


def squashed(observations):
    return torch.tanh(observations[:, :1] / 20)


@pytest.mark.parametrize("kind", ["function", "module"])
def test_actions_in_parts_of_a_wider_box_are_named_as_the_likely_cause(kind):
    class Module(torch.nn.Module):
        def forward(self, observations):
            return squashed(observations)

    source = squashed if kind == "function" else Module()
    policy = load_policy(source, task=PUSH_TASK, outputs="actions")
    said = {"num_episodes": 5, "expected_return": 20 * float(np.tanh(0.25)), "expected_standard_error": 0.01}
    verification = verify(policy, PUSH_TASK, **said)
    likely = (
        "its actions stay within ±1, and the box is [-2, 2]. If ±1 stands for the box's bounds, as in exports of "
        "Stable-Baselines3's actors, say --outputs actions=rescale, or --outputs 'actions=rescale(NAME)'"
    )
    assert verification.likely_causes == (likely,)
    with pytest.raises(GateError) as caught:
        check_verified(verification)
    assert str(caught.value).endswith(f" Likely cause: {likely}.")
    scaled = load_policy(source, task=PUSH_TASK, outputs="actions=rescale")
    verification = verify(scaled, PUSH_TASK, **said)
    assert findings(verification)["action scaling"].as_played == "rescaled from [-1, 1] to [-2, 2], as declared"
    check_verified(verification)


@pytest.mark.parametrize("source", [lambda x: x[:, :1] * 3, lambda x: 0.5 * torch.tanh(x[:, :1])])
def test_other_actions_are_no_parts_of_the_box(source):
    largest = 2.0 if float(source(torch.ones(1, 2))) > 1 else 1.0
    playable = make_task(PUSH_TASK, {"largest": largest})
    policy = load_policy(source, task=playable.task, outputs="actions")
    assert likely_causes(policy, playable) == ()


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
