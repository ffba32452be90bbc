"""Losses by name: defaults, what fits what, and the words of every refusal."""

import functools
import math
from dataclasses import replace

import pytest
import torch

from rldistill.errors import MismatchError, UsageError
from rldistill.losses import (
    LOSS_NAMES,
    TEMPERED_LOSS_NAMES,
    LossSpec,
    check_loss,
    diag_gaussian_kl,
    make_loss,
    mean_huber,
    mean_mse,
    multi_binary_loss,
    multi_discrete_loss,
    nll,
    pairing_warning,
    q_mse,
    resolve_loss,
    reverse_diag_gaussian_kl,
    reverse_kl,
    sharpened_kl,
    softened_kl,
)
from rldistill.types import ActionLayout

STUDENT = torch.tensor([[0.0, 1.0, -1.0], [2.0, 0.5, 0.0]])
TARGET = torch.tensor([[0.3, 0.1, 0.2], [0.0, 0.01, 0.02]])
TEMPERED = {"sharpened_kl": sharpened_kl, "softened_kl": softened_kl, "reverse_kl": reverse_kl}
GAUSSIAN_NAMES = "diag_gaussian_kl, reverse_diag_gaussian_kl, mean_mse, mean_huber"
ALL_NAMES = f"nll, q_mse, sharpened_kl, softened_kl, reverse_kl, {GAUSSIAN_NAMES}"
BOX = ActionLayout("box", (2,), (-1.0, 0.0), (1.0, 200.0), "clip")
SQUASHED = replace(BOX, mapping="tanh_rescale")
CHOICES = ActionLayout("multi_discrete", (2, 3))
SWITCHES = ActionLayout("multi_binary", (5,))
GAUSSIAN = torch.tensor([[0.5, 300.0, -1.0, 0.0], [-2.0, 50.0, 0.5, 0.2]])


def refused(error, expected):
    """Match an error whose whole text is `expected`: one line, and the exit status of its kind."""
    return pytest.raises(error, check=lambda raised: str(raised) == expected and "\n" not in expected)


# From name to function


def test_names_are_those_of_the_glossary():
    assert ", ".join(LOSS_NAMES) == ALL_NAMES
    assert TEMPERED_LOSS_NAMES == ("sharpened_kl", "softened_kl", "reverse_kl")


@pytest.mark.parametrize(("name", "function"), [("nll", nll), ("q_mse", q_mse)])
def test_loss_without_temperature_is_the_function_of_its_name(name, function):
    assert torch.equal(make_loss(name, "q_values")(STUDENT, TARGET), function(STUDENT, TARGET))


@pytest.mark.parametrize(
    ("name", "function"), [("sharpened_kl", sharpened_kl), ("softened_kl", softened_kl), ("reverse_kl", reverse_kl)]
)
def test_loss_with_temperature_is_the_function_of_its_name_at_that_temperature(name, function):
    loss = make_loss(name, "q_values", temperature=0.3)
    assert torch.equal(loss(STUDENT, TARGET), function(STUDENT, TARGET, temperature=0.3))


@pytest.mark.parametrize(
    ("name", "output_kind", "expected"),
    [
        (None, "q_values", LossSpec("sharpened_kl", {"temperature": 0.01})),
        (None, "logits", LossSpec("sharpened_kl", {"temperature": 1.0})),
        ("sharpened_kl", "q_values", LossSpec("sharpened_kl", {"temperature": 0.01})),
        ("sharpened_kl", "logits", LossSpec("sharpened_kl", {"temperature": 1.0})),
        ("softened_kl", "q_values", LossSpec("softened_kl", {"temperature": 1.0})),
        ("softened_kl", "logits", LossSpec("softened_kl", {"temperature": 1.0})),
        ("reverse_kl", "q_values", LossSpec("reverse_kl", {"temperature": 0.01})),
        ("reverse_kl", "logits", LossSpec("reverse_kl", {"temperature": 1.0})),
        ("nll", "q_values", LossSpec("nll")),
        ("nll", "logits", LossSpec("nll")),
        ("q_mse", "q_values", LossSpec("q_mse")),
        (None, "gaussian", LossSpec("diag_gaussian_kl")),
        (None, "actions", LossSpec("mean_mse")),
        ("reverse_diag_gaussian_kl", "gaussian", LossSpec("reverse_diag_gaussian_kl")),
        ("mean_mse", "gaussian", LossSpec("mean_mse")),
        ("mean_huber", "gaussian", LossSpec("mean_huber", {"delta": 1.0})),
        ("mean_huber", "actions", LossSpec("mean_huber", {"delta": 1.0})),
    ],
)
def test_what_is_left_open_is_filled_in_by_what_the_teacher_gives(name, output_kind, expected):
    assert resolve_loss(name, output_kind) == expected
    layout = BOX if output_kind in ("gaussian", "actions") else None
    assert make_loss(name, output_kind, layout).spec == expected


def test_resolving_a_resolved_loss_changes_nothing():
    spec = resolve_loss("sharpened_kl", "logits", temperature=0.5)
    assert spec == LossSpec("sharpened_kl", {"temperature": 0.5})
    assert resolve_loss(spec.name, "logits", temperature=spec.temperature) == spec


def test_temperature_of_a_call_overrides_the_one_the_loss_was_made_with():
    loss = make_loss("sharpened_kl", "q_values")
    overridden = loss(STUDENT, TARGET, temperature=0.2)
    assert torch.equal(overridden, sharpened_kl(STUDENT, TARGET, temperature=0.2))
    assert torch.equal(loss(STUDENT, TARGET), sharpened_kl(STUDENT, TARGET, temperature=0.01))


def test_huber_takes_its_delta_and_keeps_it_over_calls():
    student, target = torch.tensor([[0.0, 0.0], [0.5, 150.0]]), torch.tensor([[1.0, 100.0], [0.0, 0.0]])
    loss, scale = make_loss("mean_huber", "actions", BOX, delta=0.25), torch.tensor([1.0, 100.0])
    assert loss.spec == LossSpec("mean_huber", {"delta": 0.25})
    assert torch.equal(loss(student, target), mean_huber(student, target, scale=scale, delta=0.25))
    assert torch.equal(loss(student, target, delta=0.5), mean_huber(student, target, scale=scale, delta=0.5))


# From rows to what the functions take


@pytest.mark.parametrize("name", ["nll", "sharpened_kl", "softened_kl", "reverse_kl"])
def test_rows_of_several_choices_are_split_as_the_layout_says(name):
    student, target = (torch.randn(4, 5, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    options = {} if name == "nll" else {"temperature": 0.3}
    one_choice = functools.partial({"nll": nll, **TEMPERED}[name], **options)
    several, switches = make_loss(name, "logits", CHOICES, **options), make_loss(name, "logits", SWITCHES, **options)
    assert torch.equal(several(student, target), multi_discrete_loss(one_choice, student, target, sizes=(2, 3)))
    assert torch.equal(switches(student, target), multi_binary_loss(one_choice, student, target))


def test_temperature_of_a_call_reaches_every_choice():
    student, target = (torch.randn(4, 5, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    loss = make_loss(None, "logits", CHOICES)
    expected = make_loss(None, "logits", CHOICES, temperature=0.2)(student, target)
    assert torch.equal(loss(student, target, temperature=0.2), expected)


@pytest.mark.parametrize("function", [diag_gaussian_kl, reverse_diag_gaussian_kl])
@pytest.mark.parametrize("layout", [BOX, SQUASHED])
def test_rows_of_gaussians_hold_the_mean_and_then_the_log_std(function, layout):
    student = torch.zeros(2, 4)
    got = make_loss(function.__name__, "gaussian", layout)(student, GAUSSIAN)
    assert torch.equal(got, function(student[:, :2], student[:, 2:], GAUSSIAN[:, :2], GAUSSIAN[:, 2:]))


@pytest.mark.parametrize("function", [mean_mse, mean_huber])
def test_actions_are_compared_in_halves_of_the_boxs_width(function):
    student, target = torch.tensor([[0.0, 0.0], [0.5, 150.0]]), torch.tensor([[1.0, 100.0], [0.0, 0.0]])
    got = make_loss(function.__name__, "actions", BOX)(student, target)
    assert torch.equal(got, function(student, target, scale=torch.tensor([1.0, 100.0])))


def test_a_student_of_actions_learns_what_a_gaussian_teacher_does_when_it_is_greedy():
    clipped = torch.tensor([[0.5, 200.0], [-1.0, 50.0]])
    squashed = torch.tensor([[math.tanh(0.5), 200.0], [math.tanh(-2.0), 200.0]])
    for layout, target in ((BOX, clipped), (SQUASHED, squashed)):
        assert make_loss("mean_mse", "gaussian", layout)(target, GAUSSIAN).max() < 1e-12
        assert make_loss("mean_mse", "gaussian", layout)(target + 0.1, GAUSSIAN).min() > 0.009


def test_what_a_deterministic_teacher_would_do_outside_the_box_is_clipped():
    assert make_loss(None, "actions", BOX)(torch.tensor([[1.0, 0.0]]), torch.tensor([[7.0, -3.0]])).item() == 0


def test_dimensions_without_bounds_or_width_count_in_their_own_unit():
    layout = ActionLayout("box", (4,), (-math.inf, -3.4e38, 0.0, 2.0), (math.inf, 3.4e38, math.inf, 2.0), "clip")
    student = torch.tensor([[1.0, 2.0, 3.0, 5.0]])
    assert make_loss("mean_mse", "actions", layout)(student, torch.tensor([[0.0, 0.0, 0.0, 2.0]])).item() == 23.0


@pytest.mark.parametrize(
    ("name", "output_kind", "layout", "student_kind"),
    [
        ("nll", "q_values", None, "logits"),
        ("q_mse", "q_values", None, "q_values"),
        (None, "logits", CHOICES, "logits"),
        (None, "gaussian", BOX, "gaussian"),
        ("mean_mse", "gaussian", BOX, "actions"),
        ("mean_huber", "actions", BOX, "actions"),
    ],
)
def test_a_loss_says_what_the_student_must_give(name, output_kind, layout, student_kind):
    assert make_loss(name, output_kind, layout).student_kind == student_kind


@pytest.mark.parametrize(
    ("output_kind", "student_kind"),
    [("q_values", "logits"), ("logits", "logits"), ("gaussian", "gaussian"), ("actions", "actions")],
)
def test_a_students_kind_for_a_users_own_loss_follows_the_teacher(output_kind, student_kind):
    assert make_loss(absolute_difference, output_kind).student_kind == student_kind


# A user's own function


def absolute_difference(student, target):
    return (student - target).abs().sum(dim=-1)


def test_callable_is_taken_as_a_loss_and_named_after_its_function():
    loss = make_loss(absolute_difference, "q_values")
    assert torch.equal(loss(STUDENT, TARGET), absolute_difference(STUDENT, TARGET))
    assert loss.spec.name.startswith("custom:")
    assert loss.spec.name.endswith("test_spec.absolute_difference")
    assert loss.spec.temperature is None


def test_callable_without_a_name_of_its_own_is_named_after_its_class():
    assert make_loss(functools.partial(absolute_difference), "logits").spec.name == "custom:functools.partial"


def test_callable_receives_float32_and_a_target_without_gradient():
    seen = []

    def spy(student, target):
        seen.extend([student, target])
        return student.sum(dim=-1)

    make_loss(spy, "q_values")(STUDENT.bfloat16().requires_grad_(), TARGET.half().requires_grad_())
    assert [tensor.dtype for tensor in seen] == [torch.float32, torch.float32]
    assert [tensor.requires_grad for tensor in seen] == [True, False]


def test_callable_gets_the_rows_of_one_student_at_a_time():
    def counted_from_the_front(student, target):
        return (student.softmax(dim=1) - target.softmax(dim=1)).square().sum(dim=-1)

    loss = make_loss(counted_from_the_front, "q_values")
    of_each = [loss(own, TARGET) for own in (STUDENT, 2 * STUDENT)]
    several = loss(torch.stack([STUDENT, 2 * STUDENT]), TARGET.expand(2, *TARGET.shape))
    torch.testing.assert_close(several, torch.stack(of_each))


@pytest.mark.parametrize(
    ("result", "got"),
    [
        (torch.zeros(2, 3), "shape [2, 3]"),
        (torch.zeros(()), "shape []"),
        (torch.zeros(3), "shape [3]"),
        (0.5, "float"),
        (None, "NoneType"),
    ],
)
def test_callable_must_return_one_value_per_row(result, got):
    def wrong(student, target):
        return result

    expected = (
        f"loss: {wrong.__module__}.{wrong.__qualname__} returned {got}, expected a tensor of shape [2], one value per "
        "row. Sum over actions and leave the mean over the batch to the training loop."
    )
    with refused(UsageError, expected):
        make_loss(wrong, "q_values")(STUDENT, TARGET)


@pytest.mark.parametrize("loss", [lambda a, b: a.detach().sum(1), lambda a, b: torch.zeros(len(a))])
def test_callable_must_depend_on_the_student(loss):
    checked = make_loss(loss, "q_values")
    with pytest.raises(
        UsageError, match=r"^loss: \S+<lambda> returned values without a gradient, expected ones that the "
    ):
        checked(STUDENT.clone().requires_grad_(), TARGET)
    with torch.no_grad():  # as it is measured
        assert checked(STUDENT.clone().requires_grad_(), TARGET).shape == (2,)


def test_callable_takes_no_temperature():
    name = make_loss(absolute_difference, "q_values").spec.name
    expected = (
        f"temperature: got 0.5 for the loss {name!r}, which takes none. "
        "Leave it out, or use a loss that takes one: sharpened_kl, softened_kl, reverse_kl."
    )
    with refused(UsageError, expected):
        make_loss(absolute_difference, "q_values", temperature=0.5)
    with refused(UsageError, expected):
        make_loss(absolute_difference, "q_values")(STUDENT, TARGET, temperature=0.5)


def test_callable_cannot_be_made_again_from_its_recorded_name():
    spec = make_loss(absolute_difference, "q_values").spec
    expected = (
        f"loss: got {spec.name!r}, a Python function that its name cannot bring back. "
        "Pass the function itself, in Python."
    )
    with refused(UsageError, expected):
        make_loss(spec.name, "q_values")


def test_callable_sees_the_rows_of_a_gaussian_as_they_are():
    loss = make_loss(absolute_difference, "gaussian", BOX)
    assert torch.equal(loss(torch.zeros(2, 4), GAUSSIAN), GAUSSIAN.abs().sum(dim=-1))


# Refusals


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sharpend_kl", " Did you mean 'sharpened_kl'?"),
        ("soft_kl", " Did you mean 'softened_kl'?"),
        ("mse", " Did you mean 'q_mse' or 'mean_mse'?"),
        ("sharpened-kl", " Did you mean 'sharpened_kl'?"),
        ("NLL", " Did you mean 'nll'?"),
        ("huber", " Did you mean 'mean_huber'?"),
        ("hinge", ""),
        ("", ""),
    ],
)
def test_unknown_loss_is_refused_with_the_nearest_name_and_all_names(name, hint):
    with refused(UsageError, f"loss: got {name!r}, expected one of {ALL_NAMES}.{hint}"):
        make_loss(name, "q_values")


@pytest.mark.parametrize("name", ["nll", "q_mse"])
def test_temperature_for_a_loss_that_takes_none_is_refused(name):
    expected = (
        f"temperature: got 0.5 for the loss {name!r}, which takes none. "
        "Leave it out, or use a loss that takes one: sharpened_kl, softened_kl, reverse_kl."
    )
    with refused(UsageError, expected):
        make_loss(name, "q_values", temperature=0.5)
    with refused(UsageError, expected):
        make_loss(name, "q_values")(STUDENT, TARGET, temperature=0.5)


@pytest.mark.parametrize("temperature", [0, 0.0, -1.0, float("inf"), float("nan")])
def test_temperature_out_of_range_is_refused_when_made_and_when_called(temperature):
    expected = (
        f"temperature: got {temperature!r}, expected a finite number > 0. "
        "Use 0.01 for Q-values of reward-clipped Atari, 1 for logits."
    )
    with refused(UsageError, expected):
        make_loss("sharpened_kl", "q_values", temperature=temperature)
    with refused(UsageError, expected):
        make_loss("sharpened_kl", "q_values")(STUDENT, TARGET, temperature=temperature)


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        ("mean_huber", {"delta": 0}, "delta: got 0, expected a finite number > 0."),
        ("mean_huber", {"delta": "wide"}, "delta: got 'wide', expected a finite number > 0."),
        ("mean_huber", {"delta": True}, "delta: got True, expected a finite number > 0."),
        (
            "mean_mse",
            {"delta": 0.5},
            "delta: got 0.5 for the loss 'mean_mse', which takes none. Leave it out, or use a loss that takes one: "
            "mean_huber.",
        ),
        ("nll", {"margin": 2}, "margin: got 2 for the loss 'nll', which takes none. Leave it out."),
    ],
)
def test_a_parameter_that_does_not_suit_its_loss_is_refused(name, parameters, expected):
    with refused(UsageError, expected):
        check_loss(name, **parameters)


def test_q_mse_on_logits_is_refused_with_what_fits():
    expected = (
        "loss: 'q_mse' fits q_values, the teacher gives logits. Use one of nll, sharpened_kl, softened_kl, reverse_kl."
    )
    with refused(MismatchError, expected):
        make_loss("q_mse", "logits")


@pytest.mark.parametrize(
    ("name", "output_kind", "expected"),
    [
        (
            "nll",
            "gaussian",
            f"loss: 'nll' fits q_values or logits, the teacher gives gaussian. Use one of {GAUSSIAN_NAMES}.",
        ),
        (
            "diag_gaussian_kl",
            "actions",
            "loss: 'diag_gaussian_kl' fits gaussian, the teacher gives actions. Use one of mean_mse, mean_huber.",
        ),
        (
            "mean_mse",
            "logits",
            "loss: 'mean_mse' fits gaussian or actions, the teacher gives logits. "
            "Use one of nll, sharpened_kl, softened_kl, reverse_kl.",
        ),
    ],
)
def test_a_loss_for_other_actions_is_refused_with_what_fits(name, output_kind, expected):
    with refused(MismatchError, expected):
        make_loss(name, output_kind, BOX)


@pytest.mark.parametrize(
    ("output_kind", "layout", "expected"),
    [
        ("gaussian", None, "layout: got none for a teacher that gives gaussian, expected box."),
        ("actions", CHOICES, "layout: got multi_discrete for a teacher that gives actions, expected box."),
        ("logits", BOX, "layout: got box for a teacher that gives logits, expected that of a choice."),
    ],
)
def test_a_layout_that_the_teachers_outputs_cannot_have_is_refused(output_kind, layout, expected):
    with refused(UsageError, expected):
        make_loss(None, output_kind, layout)


def test_name_and_temperature_are_checked_before_the_teacher_is_known():
    assert check_loss("mean_mse") == LossSpec("mean_mse")
    assert check_loss("nll") == LossSpec("nll")
    for name, temperature in (
        ("hinge", None),
        ("mean_mse", 0.5),
        ("nll", 1.0),
        ("sharpened_kl", -1.0),
        ("custom:f", None),
    ):
        with pytest.raises(UsageError):
            check_loss(name, temperature=temperature)


@pytest.mark.parametrize("name", [5, b"nll", ["nll"], True])
def test_a_loss_that_is_neither_name_nor_function_is_refused(name):
    with pytest.raises(UsageError) as caught:
        check_loss(name)
    assert str(caught.value).startswith(f"loss: got {name!r}, expected one of nll, ")
    assert str(caught.value).endswith(", or in Python a function of (student, target).")


def test_wrong_usage_is_reported_before_a_mismatch_with_the_teacher():
    with pytest.raises(UsageError):
        make_loss("q_mse", "logits", temperature=1.0)


# Warnings


@pytest.mark.parametrize("temperature", [0.01, 0.05])
@pytest.mark.parametrize("name", TEMPERED_LOSS_NAMES)
def test_sharp_temperature_on_logits_earns_a_warning(name, temperature):
    assert pairing_warning(name, "logits", temperature) == (
        f"temperature: got {temperature} for a teacher that gives logits, which all but leaves its greedy action. "
        "Such values are meant for Q-values; 1 keeps the teacher's own policy."
    )


@pytest.mark.parametrize(
    ("name", "output_kind", "temperature"),
    [
        ("sharpened_kl", "logits", 0.06),
        ("sharpened_kl", "logits", None),
        ("sharpened_kl", "q_values", 0.01),
        ("nll", "logits", None),
        ("custom:f", "logits", None),
        ("diag_gaussian_kl", "gaussian", None),
    ],
)
def test_usual_pairings_earn_no_warning(name, output_kind, temperature):
    assert pairing_warning(name, output_kind, temperature) is None


@pytest.mark.parametrize("name", [None, "nll", *TEMPERED_LOSS_NAMES])
@pytest.mark.parametrize("output_kind", ["q_values", "logits"])
def test_no_default_earns_a_warning(name, output_kind):
    spec = resolve_loss(name, output_kind)
    assert pairing_warning(spec.name, output_kind, spec.temperature) is None


def test_usage_errors_exit_with_2_and_mismatches_with_1():
    assert (UsageError.exit_code, MismatchError.exit_code) == (2, 1)


def test_a_temperature_that_float32_cannot_divide_by_is_refused():
    with pytest.raises(UsageError) as caught:
        make_loss("sharpened_kl", "q_values", temperature=1e-300)
    assert str(caught.value) == (
        "temperature: got 1e-300, expected 1e-20 or more: a teacher's outputs, divided by less, are beyond the range "
        "of float32."
    )


def test_a_temperature_whose_square_float32_cannot_hold_is_refused():
    with pytest.raises(UsageError) as caught:
        make_loss("softened_kl", "q_values", temperature=1e200)
    assert str(caught.value) == (
        "temperature: got 1e+200, expected 1e+18 or less: the square of more is beyond the range of float32."
    )
    assert make_loss("softened_kl", "q_values", temperature=1e18)(STUDENT, TARGET).isfinite().all()
