"""Spaces as the JSON of a zip prints them, in the ways that ten releases have found for it."""

import pytest

from rldistill.adapters.sb3.data import Space, parse_space

BOX = "<class 'gym.spaces.box.Box'>"


def box(**fields):
    return {":type:": BOX, ":serialized:": "gAU=", "dtype": "float32", **fields}


@pytest.mark.parametrize(
    "fields",
    [
        {"shape": "[3]", "low": "[-1. -1. -8.]", "high": "[1. 1. 8.]"},
        {"_shape": [3], "low": "[-1. -1. -8.]", "high": "[1. 1. 8.]", "low_repr": None, "high_repr": None},
        {"_shape": "(3,)", "low": "[-1.0, -1.0, -8.0]", "high": "[1.e+00 1.e+00 8.e+00]"},
    ],
)
def test_a_box_in_every_spelling(fields):
    space = parse_space(box(**fields))
    assert (space.kind, space.shape, space.dtype) == ("box", (3,), "float32")
    assert space.bounds() == ((-1.0, -1.0, -8.0), (1.0, 1.0, 8.0))


def test_bounds_without_end():
    space = parse_space(box(_shape=[2], low="[-inf -3.4028235e+38]", high="[inf 3.4028235e+38]"))
    assert space.bounds() == ((-float("inf"), -3.4028235e38), (float("inf"), 3.4028235e38))


def test_an_image_whose_bounds_are_abbreviated():
    low, high = "[[[0 0 0 ... 0 0 0]\n  ...\n  [0 0 0]]]", "[[[255 255 ... 255]]]"
    space = parse_space(box(dtype="uint8", _shape=[4, 84, 84], low=low, high=high))
    assert (space.is_image, space.num_inputs) == (True, 28224)
    assert (space.low, space.high) == ((0.0,), (255.0,))


def test_abbreviated_bounds_that_differ_are_not_guessed():
    space = parse_space(box(shape="[2000]", low="[-1. -1. ... -2.]", high="[1. ... 1.]"))
    with pytest.raises(ValueError, match="0 lower and 2000 upper bounds"):
        space.bounds()
    short = parse_space(box(shape="[2000]", low="[-1. -1. ... -2.]", low_repr="-2.0", high="[1. ... 1.]"))
    assert short.bounds()[0][0] == -2.0


@pytest.mark.parametrize(
    ("dtype", "shape", "high"), [("float32", [3, 8, 8], "255"), ("uint8", [8, 8], "255"), ("uint8", [3, 8, 8], "254")]
)
def test_what_is_no_image(dtype, shape, high):
    assert not parse_space(box(dtype=dtype, _shape=shape, low="[0 ... 0]", high=f"[{high} ... {high}]")).is_image


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            {":type:": "<class 'gym.spaces.discrete.Discrete'>", "n": "4", "shape": "[]"},
            Space("discrete", (), "int64", (4,)),
        ),
        (
            {":type:": "<class 'gymnasium.spaces.discrete.Discrete'>", "n": 4, "start": "1"},
            Space("discrete", (), "int64", (4,), start=1),
        ),
        (
            {":type:": "<class 'gymnasium.spaces.multi_discrete.MultiDiscrete'>", "nvec": "[3 2]", "start": "[0 0]"},
            Space("multi_discrete", (2,), "int64", (3, 2)),
        ),
        ({":type:": "<class 'gym.spaces.multi_binary.MultiBinary'>", "n": 2}, Space("multi_binary", (2,), "int8")),
    ],
)
def test_choices(data, expected):
    assert parse_space(data) == expected


DICT_TEXTS = {
    "gymnasium": "{'b c': Box(-1.0, 1.0, (3,), float32), \"it's\": Discrete(4), "
    "'img': Box(0, 255, (3, 36, 36), uint8)}",
    "ordered": "OrderedDict([('b c', Box(-1.0, 1.0, (3,), float32)), (\"it's\", Discrete(4)), "
    "('img', Box(0, 255, (3, 36, 36), uint8))])",
}


@pytest.mark.parametrize("text", DICT_TEXTS.values(), ids=DICT_TEXTS)
def test_a_dict_space_keeps_its_order(text):
    space = parse_space({":type:": "<class 'gym.spaces.dict.Dict'>", "spaces": text})
    assert list(space.parts) == ["b c", "it's", "img"]
    assert space.parts["b c"] == Space("box", (3,), "float32", low=(-1.0,), high=(1.0,))
    assert space.parts["it's"].sizes == (4,)
    assert space.parts["img"].is_image
    assert space.num_inputs == 3 + 4 + 3 * 36 * 36


def test_parts_with_bounds_of_their_own_and_several_choices():
    text = "{'a': Box([-1. -2.], [1. 2.], (2,), float32), 'm': MultiDiscrete([2 3]), 's': MultiBinary(3), 'o': Box(5,)}"
    space = parse_space({":type:": "<class 'gym.spaces.dict.Dict'>", "spaces": text})
    assert space.parts["a"].bounds() == ((-1.0, -2.0), (1.0, 2.0))
    assert (space.parts["m"].num_inputs, space.parts["s"].num_inputs) == (5, 3)
    assert space.parts["o"].shape == (5,)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "no space but a NoneType"),
        ([], "no space but a list"),
        ({"shape": "[3]"}, "no space but a dict"),
        ({":type:": "<class 'gym.spaces.tuple.Tuple'>"}, "a space of type Tuple"),
        ({":type:": "<class 'gym.spaces.discrete.Discrete'>", "n": "0"}, "a discrete space of sizes 0"),
        ({":type:": "<class 'gym.spaces.discrete.Discrete'>"}, "a discrete space of sizes None"),
        ({":type:": "<class 'gym.spaces.dict.Dict'>", "spaces": "x"}, "a Dict space of 'x'"),
        ({":type:": "<class 'gym.spaces.dict.Dict'>", "spaces": "{'a': Dict('b': Box(3,))}"}, "a part of type Dict"),
        ({":type:": "<class 'gym.spaces.dict.Dict'>", "spaces": "{'a': Box(3,"}, "whose text ends too early"),
        (
            {":type:": "<class 'gymnasium.spaces.multi_discrete.MultiDiscrete'>", "nvec": "[3 2]", "start": "[1 0]"},
            "does not start at 0",
        ),
    ],
)
def test_spaces_that_are_not_supported(data, reason):
    with pytest.raises(ValueError, match=reason):
        parse_space(data)


@pytest.mark.parametrize("kind", ["Box", "MultiBinary"])
def test_a_space_of_more_dimensions_than_any_array_has(kind):
    # Multiplying as many sizes as a file may list takes minutes.
    sizes = ", ".join(["999999999999999999"] * 100_000)
    data = {":type:": f"<class 'gym.spaces.{kind}'>", "_shape": sizes, "n": sizes}
    with pytest.raises(ValueError, match=r"^a space of 100,000 dimensions, expected at most 8$"):
        parse_space(data)
