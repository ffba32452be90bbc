"""Whatever is wrong with a policy file, loading it is one line that names the file, and nothing in it is believed."""

import copy
import json
import pickle

import pytest
import safetensors.torch
import torch

from rldistill.errors import PolicyFileError
from rldistill.limits import TOO_MUCH
from rldistill.policies import load_policy
from rldistill.policies.file_format import METADATA_KEY, pack_policy
from tests.kit.small_policies import small_policy

POLICY = small_policy(network="mlp:2")
DESCRIPTION = POLICY.spec.to_dict()
WEIGHTS = POLICY.stored_weights()
DATA = pack_policy(DESCRIPTION, WEIGHTS)
HEADER_END = 8 + int.from_bytes(DATA[:8], "little")


@pytest.fixture
def refusal(tmp_path):
    """Return a function from the bytes of a file to the line with which it is refused, without the file's name."""
    path = tmp_path / "p.safetensors"

    def refuse(data: bytes) -> str:
        path.write_bytes(data)
        with pytest.raises(PolicyFileError) as caught:
            load_policy(path)
        line = str(caught.value)
        assert "\n" not in line
        assert str(path) in line
        assert line.endswith((".", "?"))
        return line.replace(str(path), "FILE")

    return refuse


def changed(*keys_and_value):
    """Return the bytes of a file whose description differs, with the hash that belongs to it."""
    *path, key, value = keys_and_value
    description = copy.deepcopy(DESCRIPTION)
    place = description
    for step in path:
        place = place[step]
    place[key] = value
    return pack_policy(description, WEIGHTS)


def with_metadata(text):
    return safetensors.torch.save(WEIGHTS, {METADATA_KEY: text})


def test_the_undamaged_file_loads(tmp_path):
    (tmp_path / "p.safetensors").write_bytes(DATA)
    assert load_policy(tmp_path / "p.safetensors").hash == POLICY.hash


# Not the file that was written


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, HEADER_END // 2, HEADER_END - 1, HEADER_END, len(DATA) - 1])
def test_a_truncated_file(refusal, length):
    assert refusal(DATA[:length]).startswith("Policy file FILE cannot be read: ")


def test_a_file_with_something_behind_it(refusal):
    assert refusal(DATA + b"\0").startswith("Policy file FILE cannot be read: ")


@pytest.mark.parametrize(
    ("part", "begin", "end"),
    [("length", 0, 8), ("header", 8, HEADER_END), ("weights", HEADER_END, len(DATA))],
)
def test_any_flipped_bit(refusal, part, begin, end):
    for position in range(begin, end):
        damaged = bytearray(DATA)
        damaged[position] ^= 1 << (position % 8)
        line = refusal(bytes(damaged))
        if part == "weights":
            assert line.startswith("Policy file FILE was altered: its content has SHA-256 ")
            assert line.endswith("A flipped bit or an edit; fetch it again from where it came.")


def test_a_flipped_bit_in_the_description(refusal):
    assert DATA.count(b'\\"behaviour\\":\\"greedy\\"') == 1
    line = refusal(DATA.replace(b'\\"behaviour\\":\\"greedy\\"', b'\\"behaviour\\":\\"sample\\"'))
    assert line.startswith("Policy file FILE was altered: its content has SHA-256 ")


def test_swapped_weights(refusal):
    # Same shapes, names and sum: safetensors alone would not notice.
    swapped = {**WEIGHTS, "torso.1.weight": WEIGHTS["torso.1.weight"].flip(0)}
    data = safetensors.torch.save(swapped, {METADATA_KEY: metadata_text()})
    assert refusal(data).startswith("Policy file FILE was altered: its content has SHA-256 ")


def metadata_text(**values):
    header = json.loads(DATA[8:HEADER_END])
    content = json.loads(header["__metadata__"][METADATA_KEY])
    return json.dumps(content | values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


# Not a policy at all


def test_nothing_there(tmp_path):
    with pytest.raises(PolicyFileError) as caught:
        load_policy(tmp_path / "p.safetensors")
    assert str(caught.value) == (
        f"Policy file {tmp_path / 'p.safetensors'}: found nothing there, expected a .safetensors file. "
        "Is the path right?"
    )


def test_a_folder(tmp_path):
    with pytest.raises(
        PolicyFileError, match=r"found a folder there, expected a \.safetensors file\. Is the path right"
    ):
        load_policy(tmp_path)


@pytest.mark.parametrize(
    "data",
    [b"hello", b"\x89PNG\r\n\x1a\n" + bytes(100), b"PK\x03\x04" + bytes(100), json.dumps({"a": 1}).encode() * 9],
    ids=["text", "image", "zip", "json"],
)
def test_something_else(refusal, data):
    line = refusal(data)
    assert line.startswith("Policy file FILE cannot be read: ")
    assert "It is not a safetensors file, or its download or copy is incomplete. Fetch it again." in line


class Intruder:
    """A pickle of it writes a file when it is loaded."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return open, (self._path, "w")


def test_a_pickle_is_not_executed(refusal, tmp_path):
    assert refusal(pickle.dumps(Intruder(str(tmp_path / "broken in")))).startswith("Policy file FILE cannot be read: ")
    assert not (tmp_path / "broken in").exists()


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_other_peoples_weights(refusal, metadata):
    assert refusal(safetensors.torch.save(WEIGHTS, metadata)) == (
        "FILE is a safetensors file but not a policy: got no metadata key 'rldistill', which says how the weights are "
        "to be used. Load weights of another library in Python: rd.load_policy(path, module=…, task=…, outputs=…)."
    )


@pytest.mark.parametrize("version", [2, 99, "2", 0, None])
def test_another_schema_version(refusal, version):
    assert refusal(with_metadata(metadata_text(schema_version=version))) == (
        f"Policy file FILE: got schema version {version!r}, this version reads 1. Upgrade rldistill."
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        "null",
        '{"schema_version":1}',
        '{"sha256":"x"}',
        '{"sha256":"x","schema_version":1,"input_scale":NaN}',
        '{"sha256":"x","schema_version":1,"name":"\\ud800"}',
        '{"sha256":"x","schema_version":1,"name":' + "9" * 5000 + "}",
        "[" * 100_000,
    ],
    ids=lambda text: text[:40],
)
def test_a_description_that_was_never_written(refusal, text):
    assert refusal(with_metadata(text)) == (
        "Policy file FILE was altered: its description is not the JSON that was written. "
        "A flipped bit or an edit; fetch it again from where it came."
    )


# A policy that cannot be, with the right hash: made by hand, or by a mistaken program


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_no_number(refusal, value):
    weights = {name: tensor.clone() for name, tensor in WEIGHTS.items()}
    weights["torso.1.bias"][1] = value
    assert refusal(pack_policy(DESCRIPTION, weights)) == (
        "Policy file FILE: weight torso.1.bias holds NaN or infinity. Its training diverged."
    )


@pytest.mark.parametrize(
    ("name", "tensor", "listing"),
    [
        ("torso.1.bias", torch.zeros(3), "torso.1.bias float32 [3] instead of float32 [2]"),
        ("torso.1.bias", torch.zeros(2, 1), "torso.1.bias float32 [2, 1] instead of float32 [2]"),
        ("torso.1.bias", None, "torso.1.bias missing instead of float32 [2]"),
        ("torso.9.bias", torch.zeros(2), "torso.9.bias float32 [2] instead of nothing"),
        ("torso.1.bias", torch.zeros(2).half(), "torso.1.bias float16 [2] instead of float32 [2]"),
        ("torso.1.bias", torch.zeros(2).int(), "torso.1.bias int32 [2] instead of float32 [2]"),
        ("torso.1.bias", torch.zeros(2).cfloat(), "torso.1.bias complex64 [2] instead of float32 [2]"),
    ],
)
def test_weights_that_do_not_fit_the_declared_network(refusal, name, tensor, listing):
    weights = {**WEIGHTS, name: tensor}
    if tensor is None:
        del weights[name]
    assert refusal(pack_policy(DESCRIPTION, weights)) == (
        f"Policy file FILE: its weights do not fit the network it declares: {listing}."
    )


@pytest.mark.parametrize(
    ("size", "line"),
    [
        (10**12, "Policy file FILE: its weights do not fit the network it declares: "),  # built, without its terabytes
        (2**62, "Policy file FILE: its description does not make a network ("),  # more bytes than torch can count
        (10**30, "Policy file FILE: its description does not make a network ("),  # beyond torch's integers
    ],
)
@pytest.mark.parametrize(
    "place",
    [
        ("architecture", "hidden"),
        ("architecture", "head_hidden"),
        ("heads", 0, "task", "fingerprint", "observation_shape"),
        ("heads", 0, "task", "fingerprint", "action_layout", "sizes"),
    ],
    ids=lambda place: place[-1],
)
def test_a_huge_declared_network_is_refused_without_its_memory(refusal, place, size, line):
    assert refusal(changed(*place, [size])).startswith(line)


FINGERPRINT = ("heads", 0, "task", "fingerprint")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("architecture",), []),
        (("architecture", "hidden"), "abc"),
        (("architecture", "hidden"), [2.5]),
        (("architecture", "hidden"), [-2]),
        (("architecture", "hidden"), None),
        (("architecture", "kind"), "cnn"),
        (("architecture", "activation"), "swish"),
        (("architecture", "surprise"), 1),
        (("heads",), []),
        (("heads",), None),
        (("heads",), [DESCRIPTION["heads"][0]] * 2),
        (("heads", 0, "task", "name"), 7),
        (("heads", 0, "task", "environment_kwargs"), 7),
        (("heads", 0, "task", "protocol", "exploration_epsilon"), 7),
        ((*FINGERPRINT, "observation_shape"), [-4]),
        ((*FINGERPRINT, "observation_shape"), [0]),
        ((*FINGERPRINT, "observation_shape"), ["a"]),
        ((*FINGERPRINT, "action_layout"), {"kind": "banana", "sizes": [3]}),
        ((*FINGERPRINT, "action_layout"), {"kind": "discrete", "sizes": [1, 2]}),
        ((*FINGERPRINT, "action_layout"), {"kind": "box", "sizes": [3]}),
        (("output_kind",), "gaussian"),
        (("behaviour",), "argmax"),
        (("input_scale",), "1"),
        (("input_scale",), None),
        (("weights_dtype",), "int8"),
        (("provenance",), [1]),
        (("provenance",), None),
        (("name",), None),
        (("surprise",), 1),
        (("module_outputs",), 7),
        (("module_outputs",), "q_values=0"),  # of a network of ours
        (("module_outputs",), "scores"),
        (("name",), "x" * 256),
        (("name",), "a\x1b[2J"),
        (("name",), "a\nb"),
        (("heads", 0, "task", "name"), "\u202e"),
        (("architecture", "name"), ["mlp"]),
        (("architecture", "hidden"), [2.0]),
        (("architecture", "hidden"), [True]),
        (("architecture", "value_head"), "no"),
        (("input_scale",), True),
        ((*FINGERPRINT, "observation_dtype"), "S8"),
        ((*FINGERPRINT, "observation_shape"), [10**250] * 20_000),  # whose product takes minutes
        ((*FINGERPRINT, "observation_shape"), [4.0]),
        ((*FINGERPRINT, "frame_stack"), 0),
        ((*FINGERPRINT, "max_pool"), "no"),
        ((*FINGERPRINT, "action_set"), [1, 2, 3]),
        (("heads", 0, "task", "protocol", "noop_max"), 2.5),
        (("normalization",), {"epsilon": 1e-8, "clip": 10.0, "untouched": [[0.0, 1.0]]}),
        (("normalization",), {"epsilon": "small", "clip": 10.0}),
        (("atoms",), {"low": -1.0, "high": 1.0, "count": 3.0}),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_description_that_makes_no_network(refusal, place, value):
    line = refusal(changed(*place, value))
    assert line.startswith("Policy file FILE: its description does not make a network (")


def test_a_description_without_one_of_its_keys(refusal):
    for key in DESCRIPTION:
        rest = {name: value for name, value in DESCRIPTION.items() if name != key}
        assert refusal(pack_policy(rest, WEIGHTS)) == (
            f"Policy file FILE: its description does not make a network ('{key}' is missing)."
        )


def box_of(low, high, mapping):
    fingerprint = DESCRIPTION["heads"][0]["task"]["fingerprint"]
    layout = {"kind": "box", "sizes": [1], "low": [low], "high": [high], "mapping": mapping}
    task = {**DESCRIPTION["heads"][0]["task"], "fingerprint": {**fingerprint, "action_layout": layout}}
    return pack_policy({**DESCRIPTION, "heads": [{"task": task}], "output_kind": "actions"}, WEIGHTS)


@pytest.mark.parametrize(
    ("low", "high", "mapping", "reason"),
    [
        (1.0, -1.0, "clip", "a box needs lower bounds below its upper ones, got low (1.0,), high (-1.0,)"),
        (-1.0, 1.0, "round", "mapping must be clip or tanh_rescale, got 'round'"),
        (None, 1.0, "tanh_rescale", "tanh_rescale needs finite bounds, got (-inf,) to (1.0,)"),
    ],
)
def test_a_box_that_no_action_lies_in(refusal, low, high, mapping, reason):
    line = refusal(box_of(low, high, mapping))
    assert line == f"Policy file FILE: its description does not make a network ({reason})."


# More than any network has: refused before it is made


def many_heads(count):
    (head,) = DESCRIPTION["heads"]
    return [{"task": {**head["task"], "name": str(number)}} for number in range(count)]


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("architecture", {**DESCRIPTION["architecture"], "hidden": [1] * 100_000}, "got 100,001 layers"),
        ("architecture", {**DESCRIPTION["architecture"], "head_hidden": [1] * 1024}, "got 1,026 layers"),
        ("heads", many_heads(1024), "got 1,025 layers"),
    ],
)
def test_more_layers_than_any_network_has(refusal, key, value, reason):
    line = refusal(changed(key, value))
    assert line == f"Policy file FILE: its description does not make a network ({reason}, expected at most 1,024)."


@pytest.mark.parametrize("size", [1 << 23, 1 << 40, 10**30])
def test_statistics_of_more_numbers_than_any_observation_has_are_not_made_room_for(refusal, size):
    description = copy.deepcopy(DESCRIPTION) | {"normalization": {"epsilon": 1e-8, "clip": 10.0}}
    description["heads"][0]["task"]["fingerprint"]["observation_shape"] = [size]
    assert refusal(pack_policy(description, WEIGHTS)) == (
        "Policy file FILE: its description does not make a network (normalization is for observations of at most "
        "4,194,304 numbers)."
    )


def test_feature_maps_that_fit_no_memory(refusal):
    description = copy.deepcopy(DESCRIPTION)
    description["architecture"] |= {"kind": "conv", "channels": [64, 1], "kernel_sizes": [1, 1], "strides": [1, 4000]}
    description["heads"][0]["task"]["fingerprint"]["observation_shape"] = [1, 4000, 4000]
    assert refusal(pack_policy(description, WEIGHTS)) == (
        "Policy file FILE: its description does not make a network (Network 'mlp:2' makes feature maps of "
        "1,024,000,000 numbers of each observation, at most 16,777,216 are supported. Choose fewer channels, larger "
        "strides or smaller images)."
    )


def test_a_number_that_no_float_can_hold(refusal):
    text = json.dumps(DESCRIPTION | {"schema_version": 1, "sha256": "x", "input_scale": 10**400})
    assert refusal(with_metadata(text)).startswith(
        "Policy file FILE was altered: its description is not the JSON that was written."
    )


def test_a_header_that_takes_more_than_any_policys(refusal):
    text = b'{"a":[' + b"[]," * 3_000_000 + b"[]]}"
    assert refusal(len(text).to_bytes(8, "little") + text) == (
        f"Policy file FILE is refused: its header takes 9,000,010 bytes, expected at most 8,388,608. {TOO_MUCH}"
    )


def test_a_refusal_quotes_no_control_characters_and_not_everything(refusal):
    line = refusal(changed("surprise\x1b[31m\n" + "x" * 100_000, 1))
    assert line.isprintable()
    assert len(line) < 500
    assert "surprise\\x1b[31m" in line
