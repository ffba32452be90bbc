"""Students that look at their own play: the losses that follow their choices, and the value gate."""

from dataclasses import replace

import gymnasium
import pytest
import torch

from rldistill.envs import make_task
from rldistill.errors import MismatchError, UsageError
from rldistill.events import ProgressEvent
from rldistill.networks import parse_architecture
from rldistill.policies import TorchPolicy
from rldistill.verbs.distill import set_up
from tests.kit.cart_pole import hand_made_teacher, short_cart_pole
from tests.kit.flat import distill, flat_options

OWN = {
    "student": "mlp:8",
    "num_updates": 40,
    "batch_size": 32,
    "evaluate_period": 20,
    "precision": "float32",
    "collect_steps": 300,
    "collect_period": 10,
    "num_envs": 4,
    "teacher_fraction": 0.0,
    "replay": "once",
    "loss": "reverse_kl",
}


def teacher(*, value_head: bool = False) -> TorchPolicy:
    if not value_head:
        return hand_made_teacher(kind="logits", behaviour="sample", scale=3.0)
    return TorchPolicy.create(
        replace(parse_architecture("mlp:6"), value_head=True),
        [short_cart_pole().task],
        output_kind="logits",
        behaviour="sample",
        zero_output=False,
        generator=torch.Generator().manual_seed(0),
    )


def own(out, policy=None, **settings) -> TorchPolicy:
    return distill(teacher=policy or teacher(), task=short_cart_pole(), out=out, **OWN | settings)


def stop_at_35(event) -> bool:
    return isinstance(event, ProgressEvent) and (event.phase, event.done) == ("distill", 35)


def weights(student: TorchPolicy) -> torch.Tensor:
    return student.network.state_dict()["heads.0.output.weight"]


def test_a_student_that_looks_ahead_learns_something_else_and_goes_on_after_a_stop(tmp_path):
    plain, ahead = (own(tmp_path / str(discount), lookahead=discount) for discount in (0.0, 0.9))
    assert not torch.equal(weights(plain), weights(ahead))
    with pytest.raises(KeyboardInterrupt):
        own(tmp_path / "part", lookahead=0.9, callbacks=[stop_at_35])
    assert own(tmp_path / "part", lookahead=0.9, resume=True).hash == ahead.hash


@pytest.mark.parametrize("is_vector", [False, True])
def test_the_last_collection_is_learned_from_as_a_whole(tmp_path, is_vector):
    # 250 steps in 16 environments are 256 when all have stepped, whichever way these were given.
    task, num_envs = short_cart_pole(), {"num_envs": 16}
    if is_vector:
        envs = gymnasium.make_vec("CartPole-v1", num_envs=16, vectorization_mode="sync", max_episode_steps=40)
        task, num_envs = make_task(envs), {"num_envs": 3}
    options = flat_options(teacher=teacher(), task=task, out=tmp_path, **OWN | {"collect_steps": 250} | num_envs)
    (source,) = set_up(options, ())[1].sources
    for update, num_appended in ((0, 256), (10, 512)):
        source.advance(update)
        learned = source.replays[0]
        assert (learned.num_appended, learned.num_steps) == (num_appended, 256)
    source.close()


@pytest.mark.learning
def test_a_student_that_looks_ahead_learns_what_its_teacher_does(tmp_path):
    settings = {"num_updates": 600, "learning_rate": 0.01, "collect_period": 20, "batch_size": 128}
    student = own(tmp_path / "r", lookahead=0.9, **settings)
    assert student.spec.provenance["held_out_agreement"] > 0.9


def test_the_value_gate_leaves_out_states_in_which_the_student_does_better(tmp_path):
    gated = own(tmp_path / "gated", teacher(value_head=True), value_gate=0.9)
    plain = own(tmp_path / "plain", teacher(value_head=True))
    assert not torch.equal(weights(plain), weights(gated))
    # Whatever a teacher of Q-values thinks of the state is no value of its own.
    with pytest.raises(
        MismatchError, match=r"^value_gate: teacher hand-made gives no value, only logits and features\."
    ):
        own(tmp_path / "r", value_gate=0.9)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"lookahead": 0.9, "teacher_fraction": 0.5},
            "lookahead looks at the student's own play, got teacher_fraction 0.5. Set it to 0.",
        ),
        (
            {"value_gate": 0.9, "teacher_fraction": "linear:1->0"},
            "value_gate looks at the student's own play, got teacher_fraction linear:1.0->0.0. Set it to 0.",
        ),
        (
            {"lookahead": 0.9, "replay": "keep"},
            "lookahead is for the newest play, got replay 'keep'. Set it to 'once'.",
        ),
        (
            {"lookahead": 0.9, "exploration_epsilon": 0.1},
            "lookahead needs actions that the student drew itself, got exploration_epsilon 0.1. Set it to 0.",
        ),
        (
            {"lookahead": 0.9, "value_gate": 0.9},
            "lookahead minimises the losses of whole episodes, and value_gate leaves steps out of them. Set one of "
            "both.",
        ),
        ({"lookahead": 1.5}, "lookahead must lie in [0, 1], got 1.5."),
    ],
)
def test_play_that_is_not_the_students_own_is_refused_before_anything_is_played(tmp_path, settings, expected):
    with pytest.raises(UsageError) as caught:
        own(tmp_path / "r", **settings)
    assert str(caught.value) == expected
    assert not (tmp_path / "r").exists()


def test_looking_ahead_is_for_students_of_logits(tmp_path):
    with pytest.raises(
        UsageError, match=r"^lookahead is for choices and a loss that makes logits of them, got a student"
    ):
        own(tmp_path / "r", hand_made_teacher(), loss="q_mse", lookahead=0.9)
