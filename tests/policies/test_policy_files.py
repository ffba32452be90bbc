"""The policy file: what goes in comes out, and its hash is its identity wherever it lies."""

import hashlib
import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import pytest
import safetensors
import torch
from torch import nn

from rldistill.errors import NumericalError, PolicyFileError, RldistillError
from rldistill.networks import Architecture, InputNormalization
from rldistill.networks.architecture import TorsoKind
from rldistill.policies import PolicySpec, TorchPolicy, load_policy
from rldistill.policies.behaviour import LEARNED_BEHAVIOURS
from rldistill.storage import canonical_json
from rldistill.types import OutputKind
from tests.kit.small_policies import image_task, small_policy, vector_task

POLICIES = {
    "mlp": lambda: small_policy(),
    "conv": lambda: small_policy(image_task(), network="conv:2-2:4", output_kind="logits", behaviour="sample"),
    "layer norm": lambda: small_policy(image_task(), network="conv:2-2:4", layer_norm=True),
    "two heads with values": lambda: small_policy(
        vector_task(3, name="a"),
        vector_task(5, name="b"),
        network=Architecture("x", "mlp", (8,), head_hidden=(4,), activation="tanh", value_head=True),
    ),
    "three games": lambda: small_policy(
        image_task(),
        image_task(4, name="atari:breakout"),
        image_task(3, name="atari:freeway"),
        network=Architecture("x", "conv", (4,), (2,), (8,), (4,), head_hidden=(3,)),
    ),
}


def observations_for(policy, num_rows=3):
    generator = torch.Generator().manual_seed(0)
    shape = (num_rows, *policy.spec.observation_shape)
    if policy.tasks[0].fingerprint.observation_dtype == "uint8":
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return torch.randn(shape, generator=generator)


def recorded_hash(path):
    with safetensors.safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["rldistill"])["sha256"]


@pytest.fixture(params=POLICIES)
def policy(request):
    return POLICIES[request.param]()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_policy_comes_back_as_it_was_saved(policy, dtype, tmp_path):
    policy = policy.with_spec(weights_dtype=dtype).with_provenance({"chosen_by": "last step", "scores": [1.5, None]})
    policy.save(tmp_path / "p.safetensors")
    loaded = load_policy(tmp_path / "p.safetensors")
    assert loaded.spec == policy.spec
    assert (loaded.tasks, loaded.output_kind, loaded.behaviour) == (policy.tasks, policy.output_kind, policy.behaviour)
    for name, tensor in policy.network.state_dict().items():
        stored = tensor.half().float() if dtype == "float16" else tensor
        assert torch.equal(loaded.network.state_dict()[name], stored), name
    assert all(tensor.dtype == torch.float32 for tensor in loaded.network.state_dict().values())


def test_outputs_survive_bit_for_bit(policy, tmp_path):
    policy.save(tmp_path / "p.safetensors")
    loaded = load_policy(str(tmp_path / "p.safetensors"))
    for task in policy.tasks:
        own, other = (each.for_task(task.name)(observations_for(policy))[0] for each in (policy, loaded))
        assert torch.equal(own.raw, other.raw)
        assert torch.equal(own.features, other.features)
        assert (own.value is None) == (other.value is None)


def test_float16_takes_half_the_bytes(tmp_path):
    policy = small_policy(image_task(), network="net3")
    for dtype in ("float32", "float16"):
        policy.with_spec(weights_dtype=dtype).save(tmp_path / dtype)
    full, half = ((tmp_path / dtype).stat().st_size for dtype in ("float32", "float16"))
    saved = 2 * sum(parameter.numel() for parameter in policy.network.parameters())
    assert abs(full - half - saved) <= 16  # the header, rounded up to 8 bytes, names offsets of fewer digits


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_hash_is_the_recorded_one_before_saving_and_after_loading(policy, dtype, tmp_path):
    policy = policy.with_spec(weights_dtype=dtype)
    policy.save(tmp_path / "p.safetensors")
    assert recorded_hash(tmp_path / "p.safetensors") == policy.hash == load_policy(tmp_path / "p.safetensors").hash


def test_the_hash_does_not_depend_on_where_a_policy_lies(tmp_path, monkeypatch):
    policy = small_policy()
    (tmp_path / "folder").mkdir()
    policy.save(tmp_path / "a.safetensors")
    monkeypatch.chdir(tmp_path / "folder")
    policy.save("another name")
    assert load_policy("another name").hash == load_policy(tmp_path / "a.safetensors").hash
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "folder" / "another name").read_bytes()


def test_the_hash_of_a_fixed_policy_stays_what_it_is():
    # A change here means that every policy file ever written loses its identity: raise the schema version instead.
    task = vector_task()
    policy = small_policy(task, network=Architecture("mlp:2", "mlp", (2,)), name="fixed")
    with torch.no_grad():
        for index, parameter in enumerate(policy.network.parameters()):
            parameter.fill_(index / 4)
    assert policy.hash == "e4bf6fa7ef0eda863cee876cee3f59ea88c20b6160176231ca03c44d5f2a8065"


def test_a_stranger_can_compute_the_hash_from_its_description(policy, tmp_path):
    policy.with_spec(weights_dtype="float16").save(tmp_path / "p.safetensors")
    with safetensors.safe_open(tmp_path / "p.safetensors", framework="np") as file:
        content = json.loads(file.metadata()["rldistill"])
        recorded = content.pop("sha256")
        digest = hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())
        for name in sorted(file.keys()):
            array = file.get_tensor(name)
            digest.update(f"{name}|{array.dtype}|{'x'.join(map(str, array.shape))}|".encode() + array.tobytes())
    assert digest.hexdigest() == recorded


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"behaviour": "sample"},
        {"output_kind": "logits"},
        {"input_scale": 0.5},
        {"weights_dtype": "float16"},
        {"provenance": {"chosen_by": "last step"}},
    ],
)
def test_the_hash_changes_with_everything_a_file_says(change):
    policy = small_policy()
    assert policy.with_spec(**change).hash != policy.hash


def test_the_hash_changes_with_one_weight():
    policy = small_policy()
    before = policy.hash
    with torch.no_grad():
        next(policy.network.parameters())[0, 0] += 1e-6
    assert policy.hash != before


def test_the_hash_knows_which_weight_is_where():
    first, second = small_policy(), small_policy()
    with torch.no_grad():
        layers = [second.network.torso[1].bias, second.network.heads[0].output.bias]
        layers[0][0], layers[1][0] = 1.0, 2.0
        first.network.torso[1].bias[0], first.network.heads[0].output.bias[0] = 2.0, 1.0
    assert first.hash != second.hash


def test_the_file_carries_one_metadata_key_with_canonical_json(tmp_path):
    small_policy().save(tmp_path / "p.safetensors")
    with safetensors.safe_open(tmp_path / "p.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert list(metadata) == ["rldistill"]
    content = json.loads(metadata["rldistill"])
    assert canonical_json(content) == metadata["rldistill"]
    assert content["schema_version"] == 1
    assert sorted(content) == [
        "architecture",
        "behaviour",
        "heads",
        "input_scale",
        "module",
        "name",
        "output_kind",
        "provenance",
        "schema_version",
        "sha256",
        "weights_dtype",
    ]


def test_the_heads_in_the_file_are_in_the_order_of_their_tensors(tmp_path):
    POLICIES["three games"]().save(tmp_path / "p.safetensors")
    with safetensors.safe_open(tmp_path / "p.safetensors", framework="pt") as file:
        content = json.loads(file.metadata()["rldistill"])
        shapes = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
    assert [head["task"]["name"] for head in content["heads"]] == ["atari:pong", "atari:breakout", "atari:freeway"]
    assert [shapes[f"heads.{head}.hidden.0.weight"] for head in range(3)] == [[3, 4]] * 3
    for index, head in enumerate(content["heads"]):
        num_actions = len(head["task"]["fingerprint"]["action_set"])
        assert shapes[f"heads.{index}.output.weight"] == [num_actions, 3]


def test_saving_replaces_a_file_and_leaves_nothing_else(tmp_path):
    small_policy(seed=0).save(tmp_path / "p.safetensors")
    small_policy(seed=1).save(tmp_path / "p.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["p.safetensors"]
    assert load_policy(tmp_path / "p.safetensors").hash == small_policy(seed=1).hash


def test_the_page_of_the_format_names_every_key_and_every_choice():
    page = (Path(__file__).resolve().parents[2] / "docs" / "policy-file.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.MULTILINE))
    assert rows.keys() == {"schema_version", "sha256", *(field.name for field in fields(PolicySpec))}
    normalization = InputNormalization((0.0,) * 4, (1.0,) * 4, untouched=((1, 2),))
    architecture = [field.name for field in fields(Architecture)]
    for row, names in (
        ("architecture", [*architecture, *get_args(TorsoKind)]),
        ("output_kind", get_args(OutputKind)),
        ("normalization", normalization.settings),
        ("behaviour", LEARNED_BEHAVIOURS),
    ):
        assert [name for name in names if f"`{name}`" not in rows[row]] == []


def test_a_folder_is_made_where_there_is_none(tmp_path):
    small_policy().save(tmp_path / "a" / "b" / "p.safetensors")
    assert load_policy(tmp_path / "a" / "b" / "p.safetensors").hash == small_policy().hash


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RldistillError, match=r"^Writing .*file/p\.safetensors failed: "):
        small_policy().save(tmp_path / "file" / "p.safetensors")


@pytest.mark.parametrize(("dtype", "value"), [("float32", float("nan")), ("float16", 1e5)])
def test_weights_that_no_file_could_give_back_are_not_saved(dtype, value, tmp_path):
    policy = small_policy().with_spec(weights_dtype=dtype)
    with torch.no_grad():
        policy.network.torso[1].bias[3] = value
    with pytest.raises(NumericalError) as caught:
        policy.save(tmp_path / "p.safetensors")
    assert str(caught.value) == (
        f"Policy 'mlp:8' is not saved to {tmp_path / 'p.safetensors'}: weight torso.1.bias holds NaN or infinity in "
        f"{dtype}. Its training diverged."
    )
    assert list(tmp_path.iterdir()) == []


def test_a_loaded_policy_can_be_trained_on(tmp_path):
    small_policy().save(tmp_path / "p.safetensors")
    loaded = load_policy(tmp_path / "p.safetensors")
    loaded.network(observations_for(loaded)).outputs.sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.network.parameters())


def test_changing_a_loaded_policy_does_not_change_its_file(tmp_path):
    path = tmp_path / "p.safetensors"
    small_policy().save(path)
    before = path.read_bytes()
    loaded = load_policy(path)
    with torch.no_grad():
        for parameter in loaded.network.parameters():
            parameter.zero_()
    assert path.read_bytes() == before


# A module of one's own


class OwnModule(nn.Module):
    def __init__(self, num_hidden=5):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, num_hidden), nn.BatchNorm1d(num_hidden), nn.Linear(num_hidden, 3))

    def forward(self, observations):
        return self.layers(observations)


def own_policy(**options):
    torch.manual_seed(0)
    return TorchPolicy.from_module(OwnModule(**options), vector_task(), output_kind="q_values")


def test_a_module_of_ones_own_comes_back_with_its_counters(tmp_path):
    policy = own_policy()
    policy.network.module.layers[1].num_batches_tracked += 7
    policy.save(tmp_path / "p.safetensors")
    loaded = load_policy(tmp_path / "p.safetensors", module=OwnModule())
    observations = observations_for(policy)
    assert torch.equal(loaded(observations)[0].q_values, policy(observations)[0].q_values)
    assert int(loaded.network.module.layers[1].num_batches_tracked) == 7
    assert loaded.hash == policy.hash


def test_a_module_of_ones_own_is_asked_for(tmp_path):
    own_policy().save(tmp_path / "p.safetensors")
    with pytest.raises(PolicyFileError, match=r"own, .*OwnModule, whose code no file carries\. Load it in Python"):
        load_policy(tmp_path / "p.safetensors")


def test_a_module_that_is_not_asked_for_is_refused(tmp_path):
    small_policy().save(tmp_path / "p.safetensors")
    with pytest.raises(PolicyFileError, match=r"describes its own network \(mlp:8\): leave module= out\.$"):
        load_policy(tmp_path / "p.safetensors", module=OwnModule())


def test_a_module_of_other_sizes_is_refused(tmp_path):
    own_policy().save(tmp_path / "p.safetensors")
    with pytest.raises(PolicyFileError, match=r"module\.layers\.0\.bias float32 \[5\] instead of float32 \[6\]"):
        load_policy(tmp_path / "p.safetensors", module=OwnModule(6))


# What a specification may say


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"output_kind": "scores"}, r"^output_kind must be q_values or logits or gaussian or actions, got 'scores'\.$"),
        ({"behaviour": "argmax"}, r"^behaviour must be greedy or sample, got 'argmax'\.$"),
        ({"weights_dtype": "int8"}, r"^weights_dtype must be float32 or float16, got 'int8'\.$"),
        ({"input_scale": float("inf")}, r"^input_scale must be a finite number, got inf\.$"),
        ({"heads": ()}, r"^heads must be of one or more different tasks, got \[\]\.$"),
    ],
)
def test_a_specification_that_no_policy_can_have_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(small_policy().spec, **change)


def test_heads_must_share_one_shape_of_observations_and_differ_in_name():
    with pytest.raises(ValueError, match=r"^heads must have one kind of observation: its only layer"):
        small_policy(vector_task(3, 4, "a"), vector_task(3, 5, "b"))
    with pytest.raises(ValueError, match=r"^heads must be of one or more different tasks, got \['a', 'a'\]\.$"):
        small_policy(vector_task(name="a"), vector_task(name="a"))
