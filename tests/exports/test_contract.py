import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rldistill.errors import RldistillError, UsageError
from rldistill.exports.contract import (
    Retention,
    check_contract,
    differences,
    make_contract,
    retention_in,
    score_in,
)
from rldistill.exports.names import Names, Term, read_names
from rldistill.networks import Architecture, GaussianOptions, InputNormalization
from rldistill.networks.torsos import to_images
from rldistill.sight import Sight
from rldistill.tasks import ObservationFingerprint, ObservationPart, Task
from rldistill.types import ActionLayout
from tests.kit.small_policies import box_task, image_task, small_policy, vector_task

NAMES = Names((Term("angle", 1), Term("velocity", 3, "m/s")), (Term("hip", 1, "Nm"), Term("knee", 1)), 50.0)


def arm_policy(**options):
    task = box_task(mapping="tanh_rescale", low=-0.5, high=1.5)
    return small_policy(task, output_kind="gaussian", gaussian=GaussianOptions("parameter"), **options)


def test_terms_have_slices_units_and_what_is_done_with_their_numbers():
    contract = make_contract(arm_policy(), NAMES, None)
    assert contract["observation"] == {
        "dtype": "float32",
        "shape": [4],
        "terms": [
            {"name": "angle", "slice": [0, 1], "shape": [1], "unit": None, "scale": 1.0, "statistics": None},
            {"name": "velocity", "slice": [1, 4], "shape": [3], "unit": "m/s", "scale": 1.0, "statistics": None},
        ],
    }
    assert contract["action"] == {
        "kind": "box",
        "output_kind": "gaussian",
        "terms": [
            {
                "name": name,
                "slice": [index, index + 1],
                "unit": unit,
                "squash": "tanh",
                "scale": [1.0],
                "offset": [0.5],
                "clip": [[-0.5], [1.5]],
            }
            for index, (name, unit) in enumerate([("hip", "Nm"), ("knee", None)])
        ],
    }
    assert (contract["control_rate_hz"], contract["states"], contract["retention"]) == (50.0, [], None)


def test_running_statistics_stand_with_the_term_that_they_normalise():
    statistics = InputNormalization((1.0, 2, 3, 4), (5.0, 6, 7, 8), epsilon=1e-8, clip=10.0)
    angle, velocity = make_contract(arm_policy(normalization=statistics), NAMES, None)["observation"]["terms"]
    assert angle["statistics"] == {"mean": [1.0], "variance": [5.0], "epsilon": 1e-8, "clip": 10.0}
    assert velocity["statistics"]["mean"] == [2.0, 3.0, 4.0]
    assert velocity["scale"] is None


@pytest.mark.parametrize("untouched", [((2, 4),), ((2, 3), (3, 4))])
def test_a_term_of_untouched_numbers_has_no_statistics_however_their_spans_lie(untouched):
    statistics = InputNormalization((5.0, 6, 0, 0), (4.0, 4, 1, 1), untouched=untouched)
    names = Names((Term("joint", 2), Term("command", 2)))
    joint, command = make_contract(arm_policy(normalization=statistics), names, None)["observation"]["terms"]
    assert joint["statistics"]["mean"] == [5.0, 6.0]
    assert (command["scale"], command["statistics"]) == (1.0, None)


@pytest.mark.parametrize("names", [Names(), Names((Term("observation", 4, "m"),))])
def test_a_term_of_which_some_numbers_are_untouched_is_several(names):
    statistics = InputNormalization((5.0, 0, 0, 6), (4.0, 1, 1, 9), untouched=((1, 2), (2, 3)))
    terms = make_contract(arm_policy(normalization=statistics), names, None)["observation"]["terms"]
    assert [(term["name"], term["slice"], term["shape"], term["scale"]) for term in terms] == [
        ("observation[0:1]", [0, 1], [1], None),
        ("observation[1:3]", [1, 3], [2], 1.0),
        ("observation[3:4]", [3, 4], [1], None),
    ]
    assert terms[2]["statistics"]["mean"] == [6.0]
    assert {term["unit"] for term in terms} == {names.observation[0].unit if names.observation else None}


def test_a_term_across_an_image_and_a_vector_is_several_and_an_image_without_statistics_is_scaled():
    parts = (ObservationPart("camera", (1, 12, 12), "uint8"), ObservationPart("speed", (2,)))
    fingerprint = ObservationFingerprint((146,), "float32", ActionLayout.discrete(3), observation_parts=parts)
    made = Architecture("made-up", "combined", (6,), (4,), (4,), (2,), head_hidden=(8,))

    def terms(names, **options):
        policy = small_policy(Task("parts", fingerprint), network=made, **options)
        return make_contract(policy, names, None)["observation"]["terms"]

    found = terms(Names((Term("all", 146),)))
    assert [(term["name"], term["scale"]) for term in found] == [("all[0:144]", 1 / 255), ("all[144:146]", 1.0)]
    mean, variance = (0.0,) * 144 + (3.0, 4.0), (1.0,) * 146
    camera, speed = terms(Names(), normalization=InputNormalization(mean, variance, untouched=((0, 144),)))
    assert (camera["scale"], camera["statistics"], speed["statistics"]["mean"]) == (1 / 255, None, [3.0, 4.0])
    # Of a normalised image the factor stands in the statistics.
    statistics = terms(Names(), normalization=InputNormalization(mean, variance, clip=5.0))[0]["statistics"]
    normalised = (10 - statistics["mean"][0]) / (statistics["variance"][0] + statistics["epsilon"]) ** 0.5
    np.testing.assert_allclose([normalised, statistics["clip"]], [10 / 255, 5 / 255])


def test_statistics_of_images_stand_in_the_order_of_the_observation():
    fingerprint = ObservationFingerprint((10, 10, 3), "float32", ActionLayout.discrete(3))
    made = Architecture("made-up", "conv", (6,), (4,), (4,), (2,))
    mean = torch.arange(300.0).reshape(1, 10, 10, 3)
    statistics = InputNormalization(tuple(to_images(mean).flatten().tolist()), (1.0,) * 300)
    policy = small_policy(Task("images", fingerprint), network=made, normalization=statistics)
    (term,) = make_contract(policy, Names(), None)["observation"]["terms"]
    assert term["statistics"]["mean"] == mean.flatten().tolist()


def test_parts_and_what_is_appended_behind_them_are_terms_of_their_own():
    parts = (ObservationPart("joints", (3,)), ObservationPart("goal", (2, 2)))
    fingerprint = ObservationFingerprint(
        (10,), "float32", ActionLayout.discrete(2), observation_parts=parts, zero_padding=2, time_feature=100
    )
    terms = make_contract(small_policy(Task("made-up", fingerprint)), Names(), None)["observation"]["terms"]
    assert [(term["name"], term["slice"], term["shape"]) for term in terms] == [
        ("joints", [0, 3], [3]),
        ("goal", [3, 7], [2, 2]),
        ("zero_padding", [7, 9], [2]),
        ("time_left", [9, 10], [1]),
    ]
    assert [(term.get("constant"), term.get("clock")) for term in terms] == [
        *[(None, None)] * 2,
        (0.0, None),
        (None, {"steps": 100, "value": "1 - t / T"}),
    ]


def extended_policy():
    """Return a policy of two numbers of its environment, a zero and a clock."""
    layout = ActionLayout.discrete(2)
    return small_policy(
        Task("made-up", ObservationFingerprint((4,), "float32", layout, zero_padding=1, time_feature=100))
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((Term("x", 1), Term("y", 1)), {"x": None, "y": None, "zero_padding": None, "time_left": 100}),
        ((Term("x", 2), Term("rest", 2)), {"x": None, "rest[0:1]": None, "rest[1:2]": 100}),
        ((Term("all", 4),), {"all[0:2]": None, "all[2:3]": None, "all[3:4]": 100}),
    ],
)
def test_names_of_the_environments_own_numbers_leave_what_is_appended_its_own(names, expected):
    terms = make_contract(extended_policy(), Names(names), None)["observation"]["terms"]
    assert {term["name"]: term.get("clock", {}).get("steps") for term in terms} == expected


def test_atari_says_its_rate_its_scale_and_the_meaning_of_its_actions():
    contract = make_contract(small_policy(image_task(), network="conv:4-4-4:8"), Names(), None)
    assert contract["control_rate_hz"] == 15.0
    (term,) = contract["observation"]["terms"]
    assert (contract["observation"]["dtype"], term["scale"]) == ("uint8", 1 / 255)
    (action,) = contract["action"]["terms"]
    assert action["choices"] == [6]
    assert action["meanings"][:2] == ["NOOP", "FIRE"]


def test_choices_that_the_environment_counts_from_elsewhere_say_from_where():
    layouts = [
        ActionLayout("discrete", (3,), start=(5,)),
        ActionLayout("multi_discrete", (3, 2), start=(0, -1)),
        ActionLayout("multi_binary", (2,)),
    ]
    first = []
    for layout in layouts:
        policy = small_policy(Task("made-up", ObservationFingerprint((4,), "float32", layout)), output_kind="logits")
        (action,) = make_contract(policy, Names(), None)["action"]["terms"]
        first.append(action["first"])
    assert first == [[5], [0, -1], [0, 0]]


def test_a_box_without_bounds_is_not_clipped():
    layout = ActionLayout("box", (2,), (-float("inf"), -1.0), (float("inf"), 1.0), "clip")
    policy = small_policy(Task("made-up", ObservationFingerprint((4,), "float32", layout)), output_kind="actions")
    (action,) = make_contract(policy, Names(), None)["action"]["terms"]
    assert action["clip"] == [[None, -1.0], [None, 1.0]]
    json.dumps(action, allow_nan=False)


def test_names_that_are_too_few_are_counted():
    with pytest.raises(UsageError, match=r"observation terms take 3 numbers, the policy's observation has 4: a \(3\)"):
        make_contract(arm_policy(), Names((Term("a", 3),)), None)


def test_a_file_of_names_is_read(tmp_path):
    path = tmp_path / "names.json"
    path.write_text(
        '{"observation": ["angle", {"name": "velocity", "size": 3, "unit": "m/s"}], '
        '"action": [{"name": "hip", "unit": "Nm"}, "knee"], "control_rate_hz": 50}'
    )
    assert read_names(path) == NAMES


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "got a list, expected observation, action and control_rate_hz"),
        ('{"observations": []}', "got the keys observations, expected"),
        ('{"observation": "x"}', "observation: got 'x', expected a list of names"),
        ('{"observation": [{"name": "x", "size": 0}]}', "got a term of name='x', size=0, expected"),
        ('{"action": ["x", "x"]}', "action: got x more than once"),
        ('{"control_rate_hz": -1}', "control_rate_hz must be a number > 0, got -1"),
        ("{", "is no JSON"),
    ],
)
def test_a_file_that_holds_no_names_is_refused(text, said, tmp_path):
    (tmp_path / "names.json").write_text(text)
    with pytest.raises(UsageError, match="--names") as error:
        read_names(tmp_path / "names.json")
    assert said in str(error.value)


def test_equal_contracts_do_not_differ_whatever_the_policies():
    ours, theirs = (make_contract(arm_policy(seed=seed), NAMES, None) for seed in (0, 1))
    assert ours["policy"] != theirs["policy"]
    assert differences(ours, theirs) == []


def test_what_differs_is_told_term_by_term():
    ours = make_contract(arm_policy(), NAMES, None)
    other = Names((Term("velocity", 3, "m/s"), Term("spin", 1)), NAMES.action, 100.0)
    theirs = make_contract(arm_policy(), other, None)
    theirs["action"]["terms"][0]["scale"] = [0.55]
    assert differences(ours, theirs) == [
        "control rate 50.0 against 100.0",
        "observation angle: in ours, not in theirs",
        "observation velocity: slice [1, 4] against [0, 3]",
        "observation spin: in theirs, not in ours",
        "action hip: scale [1.0] against [0.55]",
    ]


def test_an_evaluation_beside_a_policy_says_its_score_and_its_retention():
    rows = [
        {"role": "teacher", "policy_hash": "t", "mean": 10, "interval": None, "episodes": [1, 2]},
        {"role": "student", "policy_hash": "s", "mean": 9, "interval": [8, 10], "episodes": [1, 2],
         "retention": 0.9, "retention_interval": [0.8, 1.0]},
    ]  # fmt: skip
    assert retention_in(rows, "s") == Retention(0.9, (0.8, 1.0), "t", 2)
    assert retention_in(rows, "t") is None
    assert score_in(rows, "s").interval == (8, 10)
    assert score_in("nonsense", "s") is None


@pytest.mark.parametrize("number", [True, float("nan"), float("inf"), "0.9", None])
def test_what_is_no_finite_number_in_an_evaluation_is_left_out(number):
    row = {"policy_hash": "s", "mean": 9, "interval": [8, number], "episodes": [1],
           "retention": 0.9, "retention_interval": [number, 1.0]}  # fmt: skip
    assert (score_in([row], "s").interval, retention_in([row], "s").interval) == (None, None)
    row |= {"mean": number, "retention": number}
    assert (score_in([row], "s"), retention_in([row], "s")) == (None, None)


@pytest.mark.parametrize("data", [[], {}, {"schema_version": 2}, {"schema_version": 1, "policy": {}}])
def test_what_is_no_contract_is_refused(data):
    with pytest.raises(RldistillError, match="contract"):
        check_contract("Contract x.json", data)


def documented_policy():
    statistics = InputNormalization((0.5, -1.0), (4.0, 0.25), epsilon=1e-8, clip=10.0)
    layout = ActionLayout("box", (1,), (-2.0,), (2.0,), "tanh_rescale")
    task = Task("lab:Arm-v0", ObservationFingerprint((2,), "float32", layout))
    return small_policy(task, output_kind="gaussian", normalization=statistics, name="arm")


def test_the_page_shows_a_contract_as_it_is_written():
    names = Names((Term("angle", 1, "rad"), Term("velocity", 1, "rad/s")), (Term("torque", 1, "Nm"),), 50.0)
    contract = make_contract(documented_policy(), names, Retention(0.97, (0.94, 1.01), "5f0c…", 30))
    contract["policy"]["hash"] = "9a1b…"
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
    example = page.partition("```json\n")[2].partition("```")[0]
    assert json.loads(example) == json.loads(json.dumps(contract))


def test_the_page_explains_every_key_of_a_contract():
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
    contract = make_contract(documented_policy(), Names(), None)
    choices = make_contract(small_policy(), Names(), None)["action"]["terms"][0]
    appended = make_contract(extended_policy(), Names(), None)["observation"]["terms"]
    terms = [*contract["observation"]["terms"], *contract["action"]["terms"], choices, *appended]
    keys = {*contract, *contract["policy"], *contract["task"], *contract["observation"], *contract["action"]}
    keys |= {key for term in terms for key in term} | {
        "mean",
        "variance",
        "epsilon",
        "steps",
        "teacher_hash",
        "num_episodes",
    }
    assert {key for key in keys if f"`{key}`" not in page} == set()


def seen_policy(*parts):
    """Return a policy of four numbers that sees some of them, by the names a to d."""
    return small_policy(vector_task(), sight=Sight(parts, {name: (i, i + 1) for i, name in enumerate("abcd")}))


def test_names_of_all_that_a_task_shows_go_to_their_places_where_a_policy_sees_all_of_it_in_another_order():
    names = Names((Term("x", 1), Term("y", 1), Term("z", 1), Term("w", 1)))
    terms = make_contract(seen_policy("c", "a", "d", "b"), names, None)["observation"]["terms"]
    assert [(term["name"], term["slice"]) for term in terms] == [
        *[("z", [0, 1]), ("x", [1, 2])],
        *[("w", [2, 3]), ("y", [3, 4])],
    ]


def test_names_of_what_a_policy_sees_alone_are_its_own():
    terms = make_contract(seen_policy("c", "a"), Names((Term("x", 1), Term("y", 1))), None)["observation"]["terms"]
    assert [(term["name"], term["slice"]) for term in terms] == [("x", [0, 1]), ("y", [1, 2])]


@pytest.mark.parametrize("parts", [("b", "a"), ("a", "c", "b"), ("b", "a", "c", "d")])
def test_a_term_whose_numbers_are_seen_apart_or_in_another_order_is_refused(parts):
    names = Names((Term("x", 2), Term("c", 1), Term("d", 1)))
    said = "--names: 'x' is 0:2 of the observation, and policy 'mlp:8' sees these numbers apart or in another order "
    with pytest.raises(UsageError) as refused:
        make_contract(seen_policy(*parts), names, None)
    assert str(refused.value) == f"{said}({', '.join(parts)}). Name each of these parts by itself."
