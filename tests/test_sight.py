"""Parts of observations chosen by name: what there is, what is left, and what is refused."""

import numpy as np
import pytest
import torch

from rldistill.errors import UsageError
from rldistill.networks import InputNormalization
from rldistill.sight import Sight, choose_parts, recorded_sight
from rldistill.tasks import ObservationFingerprint, ObservationPart, Task
from rldistill.types import ActionLayout

LAYOUT = ActionLayout.discrete(2)
CAMERA, JOINTS, MARK = ObservationPart("camera", (4, 4, 3), "uint8"), ObservationPart("joints", (2,)), "mark"
PARTS = (CAMERA, JOINTS, ObservationPart(MARK, ()))
DICT = Task("dict", ObservationFingerprint((51,), "float32", LAYOUT, observation_parts=PARTS))
VECTOR = Task("vector", ObservationFingerprint((17,), "float32", LAYOUT))
IMAGES = Task("images", ObservationFingerprint((4, 84, 84), "uint8", LAYOUT))
SPANS = {"velocity": [0, 3], "rest": [3]}


def test_one_part_that_is_seen_is_an_observation_of_its_own():
    seen = Sight(("camera",)).seen(DICT.fingerprint)
    assert (seen.observation_shape, seen.observation_dtype, seen.observation_parts) == ((4, 4, 3), "uint8", ())
    assert Sight((MARK,)).seen(DICT.fingerprint).observation_shape == (1,)


def test_several_parts_that_are_seen_stay_parts_in_the_order_in_which_they_were_chosen():
    seen = Sight((MARK, "camera")).seen(DICT.fingerprint)
    assert (seen.observation_shape, seen.observation_dtype) == ((49,), "float32")
    assert [part.name for part in seen.observation_parts] == [MARK, "camera"]
    assert Sight((MARK, "camera")).places(DICT.fingerprint)[:3] == [50, 0, 1]


def test_spans_of_a_vector_are_cut_out_in_the_order_in_which_they_were_chosen():
    sight = choose_parts("student_sees", ["rest", "velocity"], SPANS, VECTOR)
    assert sight == Sight(("rest", "velocity"), {"velocity": (0, 3), "rest": (3, 17)})
    rows = torch.arange(34).reshape(2, 17)
    chosen = sight.choose(rows)
    assert {name: part.tolist() for name, part in chosen.items()} == {
        "rest": rows[:, 3:].tolist(),
        "velocity": rows[:, :3].tolist(),
    }
    window = sight.choose({"observation": rows[None]})
    assert window["rest"].shape == (1, 2, 14)
    assert Sight.from_dict(sight.to_dict()) == sight
    assert recorded_sight({"sight": sight.to_dict()}) == sight


@pytest.mark.parametrize("record", [None, 3, {}, {"sight": 3}, {"sight": {"parts": []}}, {"sight": {"parts": [["a"]]}}])
def test_a_record_of_something_else_is_no_sight(record):
    assert recorded_sight(record) is None


@pytest.mark.parametrize(
    ("task", "chosen", "names", "message"),
    [
        (
            DICT,
            "jonts",
            None,
            r"task 'dict' has no part 'jonts', expected some of camera \[4, 4, 3\], joints \[2\], mark "
            r"\[\]\. Did you mean 'joints'\?",
        ),
        (DICT, "", None, r"student_sees: got no part, expected one or more of camera \[4, 4, 3\], "),
        (DICT, [], None, r"student_sees: got no part, expected one or more of camera "),
        (
            DICT,
            "mark,joints",
            None,
            r"no part 'mark,joints', .* In Python give several as a tuple: student_sees=\('mark', ",
        ),
        (DICT, ["mark", "mark"], None, r"student_sees: got 'mark' twice, expected each part once\."),
        (
            DICT,
            "mark",
            SPANS,
            r"names: the observations of task 'dict' have their own: camera .*Leave --names out",
        ),
        (
            VECTOR,
            "rest",
            None,
            r"the observations of task 'vector' have no parts with names, float32 \[17\]\. Name spans "
            r"of a vector: --names velocity=0:3,rest=3:\.",
        ),
        (IMAGES, "rest", SPANS, r"names: are for spans of a vector, the observations of task 'images' are uint8 "),
        (
            VECTOR,
            "rest",
            {"rest": [3, 18]},
            r"names: got rest=3:18, expected a span of the 17 numbers of task 've",
        ),
        (VECTOR, "rest", {"rest": [3, 3]}, r"names: got rest=3:3, expected a span "),
        (VECTOR, "rest", {"rest": "3:"}, r"names: got rest='3:', expected \[first, end\], or \[first\] to the end\."),
        (VECTOR, "rest", {"rest": [3], "a": [0, 4]}, r"names: rest=3:17 and a=0:4 overlap\."),
    ],
)
def test_what_cannot_be_chosen_is_refused_with_what_there_is(task, chosen, names, message):
    with pytest.raises(UsageError, match=message):
        choose_parts("student_sees", chosen, names, task)


def test_statistics_follow_the_numbers_that_are_seen():
    own = InputNormalization((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), untouched=((2, 3),))
    found = own.at([2, None, 0])
    assert (found.mean, found.variance) == ((3.0, 0.0, 1.0), (6.0, 1.0, 4.0))
    assert found.untouched == ((0, 1), (1, 2))
    assert own.at([None, None]) is None
    assert np.isclose(found.epsilon, own.epsilon)
