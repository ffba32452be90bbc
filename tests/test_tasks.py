"""The two records of a task: what must match between policy and task, and what is only recorded."""

import json
import math
from dataclasses import fields, replace

import pytest

from rldistill.errors import UsageError
from rldistill.tasks import ObservationFingerprint, ObservationPart, Protocol, Task
from rldistill.types import ActionLayout
from tests.kit.small_policies import image_task, vector_task

FINGERPRINT = image_task().fingerprint
EXTENDED = replace(
    vector_task().fingerprint,
    action_layout=ActionLayout("box", (2,), (-1.0, -math.inf), (1.0, math.inf), "clip"),
    observation_parts=(ObservationPart("goal", (3,)), ObservationPart("image", (8, 8, 3), "uint8")),
    zero_padding=84,
    time_feature=1000,
)

CHANGES = {
    "observation_shape": ((4, 42, 42), "observation_shape: [4, 84, 84] against [4, 42, 42]"),
    "observation_dtype": ("float32", "observation_dtype: uint8 against float32"),
    "action_layout": (ActionLayout.discrete(4), "action_layout: discrete [6] against discrete [4]"),
    "action_set": (
        ("NOOP", "FIRE"),
        "action_set: 6 actions NOOP/FIRE/RIGHT/LEFT/RIGHTFIRE/LEFTFIRE against 2 actions NOOP/FIRE",
    ),
    "grayscale": (False, "grayscale: True against False"),
    "frame_stack": (1, "frame_stack: 4 against 1"),
    "stack_padding": ("reset", "stack_padding: zero against reset"),
    "frame_skip": (2, "frame_skip: 4 against 2"),
    "max_pool": (False, "max_pool: True against False"),
    "observation_parts": (
        (ObservationPart("goal", (3,)), ObservationPart("image", (8, 8, 3), "uint8")),
        "observation_parts: [] against goal float32 [3], image uint8 [8, 8, 3]",
    ),
    "zero_padding": (84, "zero_padding: 0 against 84"),
    "time_feature": (1000, "time_feature: None against 1000"),
}


@pytest.mark.parametrize("name", [item.name for item in fields(ObservationFingerprint)])
def test_every_field_of_the_fingerprint_must_match(name):
    value, difference = CHANGES[name]
    assert FINGERPRINT.differences(replace(FINGERPRINT, **{name: value})) == [difference]


def test_equal_fingerprints_do_not_differ():
    assert FINGERPRINT.differences(image_task().fingerprint) == []


def test_bounds_and_mapping_of_boxes_are_not_compared():
    box = ActionLayout("box", (2,), (-1.0, -1.0), (1.0, 1.0), "clip")
    mine = replace(vector_task().fingerprint, action_layout=box)
    drifted = ActionLayout("box", (2,), (-2.0, -math.inf), (2.0, math.inf), "tanh_rescale")
    assert mine.differences(replace(mine, action_layout=drifted)) == []
    other = ActionLayout("box", (1,), (-1.0,), (1.0,), "clip")
    assert mine.differences(replace(mine, action_layout=other)) == ["action_layout: box [2] against box [1]"]


def test_a_multi_binary_layout_is_not_taken_for_a_box_of_the_same_size():
    mine = replace(FINGERPRINT, action_layout=ActionLayout("multi_binary", (2,)))
    other = replace(FINGERPRINT, action_layout=ActionLayout("multi_discrete", (2,)))
    assert mine.differences(other) == ["action_layout: multi_binary [2] against multi_discrete [2]"]


def test_a_record_without_the_newer_fields_stays_as_it_was():
    old = {
        "observation_shape": [4, 84, 84],
        "observation_dtype": "uint8",
        "action_layout": {"kind": "discrete", "sizes": [6]},
        "action_set": ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"],
        "grayscale": True,
        "frame_stack": 4,
        "stack_padding": "zero",
        "frame_skip": 4,
        "max_pool": True,
    }
    assert ObservationFingerprint.from_dict(old) == FINGERPRINT
    assert FINGERPRINT.to_dict() == old


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"zero_padding": -1}, r"^zero_padding must be 0 or more, got -1\.$"),
        ({"time_feature": 0}, r"^time_feature must be 1 or more, got 0\.$"),
    ],
)
def test_what_cannot_be_appended_to_an_observation_is_refused(values, message):
    with pytest.raises(UsageError, match=message):
        replace(FINGERPRINT, **values)


def test_all_differences_are_listed_at_once():
    other = replace(FINGERPRINT, frame_skip=2, max_pool=False, action_set=())
    assert FINGERPRINT.differences(other) == [
        "action_set: 6 actions NOOP/FIRE/RIGHT/LEFT/RIGHTFIRE/LEFTFIRE against []",
        "frame_skip: 4 against 2",
        "max_pool: True against False",
    ]


@pytest.mark.parametrize(
    "task",
    [
        image_task(),
        vector_task(),
        replace(vector_task(), environment_kwargs={"map_name": "8x8"}, protocol=Protocol(exploration_epsilon=0.3)),
        replace(vector_task(), fingerprint=EXTENDED),
    ],
)
def test_a_task_survives_json(task):
    assert Task.from_dict(json.loads(json.dumps(task.to_dict()))) == task


def test_a_task_knows_whether_it_is_atari():
    assert (image_task().is_atari, image_task().game) == (True, "pong")
    assert not vector_task(name="ALE/Pong-v5").is_atari


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"exploration_epsilon": 1.5}, r"^exploration_epsilon must lie in \[0, 1\], got 1\.5\.$"),
        ({"exploration_epsilon": -0.1}, r"^exploration_epsilon must lie in \[0, 1\], got -0\.1\.$"),
        ({"sticky_action_probability": float("nan")}, r"^sticky_action_probability must lie in \[0, 1\], got nan\.$"),
        ({"noop_max": -1}, r"^noop_max must be 0 or more, got -1\.$"),
        ({"max_frames": 0}, r"^max_frames must be 1 or more, got 0\.$"),
    ],
)
def test_a_protocol_that_cannot_be_played_is_refused(values, message):
    with pytest.raises(UsageError, match=message):
        Protocol(**values)


@pytest.mark.parametrize("epsilon", [0, 0.0, 0.05, 1])
def test_probabilities_reach_from_0_to_1(epsilon):
    assert Protocol(exploration_epsilon=epsilon, sticky_action_probability=epsilon).exploration_epsilon == epsilon


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("name", 7, r"^name must be a text, got 7\.$"),
        ("name", "a\x1b[31m", r"^name must be at most 255 printable characters, got 6: a\\x1b\[31m\.$"),
        ("name", "a" * 256, r"^name must be at most 255 printable characters, got 256: a+ … a+\.$"),
        ("environment_kwargs", 7, r"^environment_kwargs must be a Mapping, got 7\.$"),
    ],
)
def test_a_record_of_the_wrong_types_is_refused(key, value, line):
    with pytest.raises(UsageError, match=line):
        Task.from_dict(vector_task().to_dict() | {key: value})
