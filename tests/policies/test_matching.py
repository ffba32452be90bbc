"""A policy plays a task whose fingerprint is its own; otherwise one line says what differs."""

import math
from dataclasses import replace

import pytest

from rldistill.errors import MismatchError
from rldistill.policies import RandomPolicy, fit_policy
from rldistill.tasks import Protocol
from tests.kit.small_policies import box_task, image_task, small_policy, vector_task


def refusal(policy, task):
    with pytest.raises(MismatchError) as caught:
        fit_policy(policy, task)
    return str(caught.value)


HINT = "Was it trained on another game, or with other preprocessing? See `rldistill inspect FILE`."


def test_a_policy_fits_the_task_it_was_made_for():
    policy = small_policy(image_task())
    assert fit_policy(policy, image_task()).tasks == policy.tasks


def test_another_protocol_is_no_reason_to_refuse():
    policy = small_policy(image_task())
    task = replace(image_task(), protocol=Protocol(noop_max=1, fire_at_reset=True, exploration_epsilon=1.0))
    assert fit_policy(policy, task).hash == policy.hash


def test_another_game_with_other_actions_is_refused():
    other = image_task(4, name="atari:breakout")
    assert refusal(small_policy(image_task(), name="pong"), other) == (
        "Policy 'pong' (made for atari:pong) does not fit task 'atari:breakout': "
        "action_layout: discrete [6] against discrete [4]; "
        "action_set: 6 actions NOOP/FIRE/RIGHT/LEFT/RIGHTFIRE/LEFTFIRE against 4 actions NOOP/FIRE/RIGHT/LEFT. " + HINT
    )


def test_another_frame_skip_is_refused():
    assert refusal(small_policy(image_task(), name="pong"), image_task(frame_skip=2)) == (
        f"Policy 'pong' (made for atari:pong) does not fit task 'atari:pong': frame_skip: 4 against 2. {HINT}"
    )


def test_a_policy_of_images_is_told_nothing_of_frames_beside_a_vector():
    assert refusal(small_policy(image_task(), name="pong"), vector_task()) == (
        f"Policy 'pong' (made for atari:pong) does not fit task {vector_task().name!r}: "
        "observation_shape: [4, 84, 84] against [4]; observation_dtype: uint8 against float32; "
        f"action_layout: discrete [6] against discrete [3]. {HINT}"
    )


def test_another_shape_of_observations_is_refused():
    assert "observation_shape: [4] against [5]" in refusal(small_policy(vector_task()), vector_task(num_inputs=5))


def test_actions_in_another_order_are_refused():
    task = image_task()
    fingerprint = replace(task.fingerprint, action_set=("FIRE", "NOOP", *task.fingerprint.action_set[2:]))
    assert "action_set: 6 actions NOOP/FIRE/" in refusal(small_policy(task), replace(task, fingerprint=fingerprint))


def test_a_task_of_another_name_with_the_same_fingerprint_is_played_by_the_only_head():
    assert fit_policy(small_policy(vector_task(name="a")), vector_task(name="c")).tasks[0].name == "a"


def test_of_several_heads_none_is_guessed_for_a_task_of_another_name():
    policy = small_policy(vector_task(name="a"), vector_task(name="b"))
    assert refusal(policy, vector_task(name="c")) == "Policy 'mlp:8' has no head for 'c', only for a, b."


def test_the_head_of_the_tasks_name_plays():
    policy = small_policy(vector_task(3, name="a"), vector_task(5, name="b"))
    assert fit_policy(policy, vector_task(5, name="b")).tasks[0].name == "b"


def test_the_head_of_the_tasks_name_is_not_replaced_by_another_that_would_fit():
    policy = small_policy(vector_task(3, name="a"), vector_task(5, name="b"))
    assert "(made for b)" in refusal(policy, vector_task(3, name="b"))


def test_random_play_fits_its_own_task():
    policy = RandomPolicy(image_task())
    assert fit_policy(policy, image_task()) is policy
    assert "frame_skip: 4 against 2" in refusal(policy, image_task(frame_skip=2))


def box(low, high):
    task = box_task(len(low))
    layout = replace(task.fingerprint.action_layout, low=tuple(low), high=tuple(high))
    return replace(task, fingerprint=replace(task.fingerprint, action_layout=layout))


def test_actions_of_a_box_with_other_bounds_are_refused_with_the_way_on():
    policy = small_policy(box([-1.0, -1.0], [1.0, 1.0]), output_kind="gaussian", name="push")
    assert refusal(policy, box([-2.0, -1.0], [2.0, 1.0])) == (
        "Policy 'push' has actions in [-1, 1], task 'made-up' in [-2, 2] × [-1, 1]. Was its environment rescaled? "
        "Register one that is rescaled likewise, such as gymnasium.wrappers.RescaleAction(env, low, high) with the "
        "policy's bounds, and name it: --task module:EnvId."
    )


@pytest.mark.parametrize(
    ("own", "task"),
    [
        (([-0.4], [0.4]), ([-0.4000000059604645], [0.4000000059604645])),  # as a zip's text prints float32
        (([-math.inf], [math.inf]), ([-1.0], [1.0])),  # without bounds, there are none to compare
        (([-3.4e38], [3.4e38]), ([-1.0], [1.0])),
    ],
)
def test_bounds_that_are_rounded_or_say_nothing_are_no_reason_to_refuse(own, task):
    policy = small_policy(box(*own), output_kind="gaussian")
    assert fit_policy(policy, box(*task)).hash == policy.hash
