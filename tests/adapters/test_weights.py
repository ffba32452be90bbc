"""State dicts of strangers: tensors and nothing else, finite, float32, on the CPU."""

import io
import os
import pickle
import struct
import zipfile

import pytest
import torch
from torch import nn

from rldistill.adapters.weights import read_tensors, read_torch_data, read_weights
from rldistill.errors import PolicyFileError
from rldistill.limits import TOO_MUCH


def saved(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def weights_of(content, **options):
    return read_weights(read_torch_data(saved(content, **options), source="FILE"), source="FILE")


def refusal(data_or_content):
    data = data_or_content if isinstance(data_or_content, bytes) else saved(data_or_content)
    with pytest.raises(PolicyFileError) as caught:
        read_weights(read_torch_data(data, source="FILE"), source="FILE")
    line = str(caught.value)
    assert "\n" not in line
    return line


STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([0.5, -0.5])}


@pytest.mark.parametrize("new_format", [True, False])
def test_both_formats_of_torch(new_format):
    weights = weights_of(STATE, _use_new_zipfile_serialization=new_format)
    assert weights.converted_from == ()
    for name, tensor in STATE.items():
        torch.testing.assert_close(weights.tensors[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floats_become_float32_and_say_so(dtype):
    weights = weights_of({"a": torch.tensor([0.5, -2.0], dtype=dtype), "b": torch.zeros(1)})
    assert weights.tensors["a"].dtype == torch.float32
    assert weights.tensors["a"].tolist() == [0.5, -2.0]
    assert weights.converted_from == (str(dtype).removeprefix("torch."),)


def test_counters_stay_integers():
    assert weights_of({"n": torch.tensor(7)}).tensors["n"].dtype == torch.int64


def test_parameters_views_and_transposed_tensors():
    base = torch.arange(12.0)
    weights = weights_of({"p": nn.Parameter(base[:3]), "v": base[6:9], "t": base.reshape(3, 4).T})
    assert weights.tensors["v"].tolist() == [6.0, 7.0, 8.0]
    assert weights.tensors["t"].is_contiguous()
    assert not weights.tensors["p"].requires_grad


def test_weights_from_a_gpu_come_to_the_cpu():
    # What a file saved on a GPU says of its storages: the place is a text in its pickle.
    data = saved(STATE, _use_new_zipfile_serialization=False)
    tagged = data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    assert tagged != data
    weights = read_weights(read_torch_data(tagged, source="FILE"), source="FILE")
    assert {tensor.device.type for tensor in weights.tensors.values()} == {"cpu"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_no_number_is_named(value):
    assert refusal({"a": torch.zeros(2), "b.bias": torch.tensor([0.0, value])}) == (
        "FILE: tensor b.bias holds NaN or infinity. Its training diverged, or the file is damaged."
    )


def test_a_float64_beyond_float32():
    assert refusal({"a": torch.tensor([1e300], dtype=torch.float64)}) == (
        "FILE: tensor a holds numbers beyond the range of float32. Its training diverged, or the file is damaged."
    )


class Intruder:
    """A pickle of it makes a folder when it is loaded."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return os.mkdir, (self._path,)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_pickle_that_would_be_executed_is_refused_by_name(tmp_path, new_format):
    target = tmp_path / "broken in"
    data = saved({"a": Intruder(str(target))}, _use_new_zipfile_serialization=new_format)
    assert refusal(data) == (
        "FILE is refused: its pickle wants posix.mkdir, which weights do not need. Nothing of it was executed."
    )
    assert not target.exists()


def test_a_bare_pickle(tmp_path):
    assert "is refused: its pickle wants posix.mkdir" in refusal(pickle.dumps(Intruder(str(tmp_path / "x")), 2))
    assert list(tmp_path.iterdir()) == []


def test_a_whole_module():
    assert refusal(nn.Linear(2, 2)) == (
        "FILE is refused: its pickle wants torch.nn.modules.linear.Linear, which weights do not need. "
        "Nothing of it was executed. If you trust its maker, load it yourself (torch.load(path, weights_only=False)), "
        "and pass its module to rd.load_policy or save the weights alone: torch.save(module.state_dict(), "
        "'weights.pt')."
    )


def test_an_empty_file():
    assert refusal(b"") == "FILE is empty: got 0 bytes. Its download or copy was cut off. Fetch it again."


@pytest.mark.parametrize("new_format", [True, False])
def test_truncated_files(new_format):
    data = saved(STATE, _use_new_zipfile_serialization=new_format)
    for length in range(1, len(data), 7):
        assert refusal(data[:length]).startswith("FILE ")


@pytest.mark.parametrize("new_format", [True, False])
def test_any_altered_byte_is_at_most_one_line(new_format):
    data = saved(STATE, _use_new_zipfile_serialization=new_format)
    for position in [*range(0, len(data) - 200, 13), *range(len(data) - 200, len(data))]:
        altered = bytearray(data)
        altered[position] ^= 0x55
        try:
            read_weights(read_torch_data(bytes(altered), source="FILE"), source="FILE")
        except PolicyFileError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("data", [b"hello", b"\x89PNG\r\n\x1a\n" + bytes(50), b"PK\x03\x04" + bytes(50)])
def test_something_else(data):
    assert refusal(data).startswith("FILE ")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ([1, 2], "FILE: got a list, expected a state dict: tensors by name."),
        ({}, "FILE: got nothing, expected a state dict: tensors by name."),
        ({"a": 1.5}, "FILE: got a float under 'a', expected a state dict: tensors by name."),
        ({3: torch.zeros(1)}, "FILE: got a Tensor under 3, expected a state dict: tensors by name."),
    ],
)
def test_what_is_no_state_dict(content, line):
    assert refusal(content) == line


def test_a_tensor_larger_than_its_bytes_is_refused_before_it_fills_the_memory():
    huge = torch.zeros(1).expand(10**12)
    assert refusal({"a": huge}) == (
        "FILE is refused: tensor a declares [1000000000000] but is backed by 4 bytes. "
        "It was made to exhaust its reader."
    )


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(2, 2).to_sparse(),
        torch.zeros(2, dtype=torch.complex64),
        torch.zeros(2).to(torch.float8_e4m3fn),
    ],
    ids=["sparse", "complex", "float8"],
)
def test_tensors_that_no_network_here_has(tensor):
    assert "tensor a is " in refusal({"a": tensor})


def test_numbers_that_torch_does_not_know_are_one_line():
    header = b'{"a":{"dtype":"F8_E8M0","shape":[4],"data_offsets":[0,4]}}'
    with pytest.raises(PolicyFileError) as caught:
        read_tensors(struct.pack("<Q", len(header)) + header + bytes(4), source="FILE")
    assert str(caught.value) == (
        "FILE cannot be read as tensors: 'F8_E8M0' is not known. Its download or copy is incomplete, or another "
        "program wrote it."
    )


def test_a_huge_storage_in_the_old_format():
    data = saved({"a": torch.zeros(77)}, _use_new_zipfile_serialization=False)
    huge = data.replace(b"K\x4d", b"\x8a\x06" + struct.pack("<q", 2**46)[:6])
    assert huge != data
    assert refusal(huge).startswith("FILE ")


# What asks more of its reader than a policy needs, in either format: refused before torch makes anything of it

MADE_TO_EXHAUST = TOO_MUCH


def torch_zip(data):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def storage_of(count):
    key = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0" + b"0X\x03\0\0\0cpu"
    return key + b"\x8a\x08" + count.to_bytes(8, "little") + b"tQ"


HOSTILE = [
    (
        b"Nq\x000" + b"".join(b"h%ch%c\x86q%c0" % (i, i, i + 1) for i in range(45)) + b"h\x2d.",
        "holds more than 2,000,000 values",
    ),
    (b"]q\x00h\x00a.", "holds itself"),
    (b"]" * 5000 + b"a" * 4999 + b".", "is nested more than 64 deep"),
    (b"}K\x01" * 3000 + b"}" + b"s" * 3000 + b".", "is nested more than 64 deep"),
    (b"(" + b"K\x01" * 2_000_000 + b"t.", "has more than 2,000,000 instructions"),
]


@pytest.mark.parametrize(("data", "reason"), HOSTILE, ids=[reason for _, reason in HOSTILE])
@pytest.mark.parametrize("pack", [torch_zip, bytes], ids=["zip", "pickle"])
def test_pickles_that_keep_their_reader_busy(pack, data, reason):
    assert refusal(pack(b"\x80\x02" + data)) == f"FILE is refused: its pickle {reason}. {MADE_TO_EXHAUST}"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"}K\x01\x85\x85Ns.", "its pickle has a tuple as a key. Nothing of it was executed."),
        (
            b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
            "its pickle makes room with builtins.bytearray. Weights do not.",
        ),
        (
            b"ctorch\nFloatTensor\nJ\xff\xff\xff\x7f\x85R.",
            "its pickle makes room with torch.FloatTensor. Weights do not.",
        ),
        (
            storage_of(10**12) + b".",
            "its tensors are declared to hold 1,000,000,000,000 numbers and lie in 57 bytes. It was made to exhaust "
            "its reader.",
        ),
    ],
)
def test_room_that_is_made_out_of_nothing(data, reason):
    data = b"\x80\x02" + data
    line = refusal(torch_zip(data))
    assert line == f"FILE is refused: {reason}".replace("57 bytes", f"{len(data) + 2} bytes")


def test_pairs_of_numbers_may_be_keys():
    content = {"model": STATE, "visits": {(0, 1): 3, (1, 1): 4}}
    assert read_torch_data(saved(content), source="FILE")["visits"] == content["visits"]


@pytest.mark.parametrize("new_format", [True, False])
def test_a_checkpoint_with_an_optimiser_and_shared_tensors_is_read(new_format):
    module = nn.Sequential(*(nn.Linear(4, 4) for _ in range(50)))
    module[1].weight = module[0].weight
    optimizer = torch.optim.Adam(module.parameters())
    sum(layer(torch.ones(4)).sum() for layer in module).backward()
    optimizer.step()
    content = {"model": module.state_dict(), "optimizer": optimizer.state_dict(), "returns": [0.5] * 10_000}
    read = read_torch_data(saved(content, _use_new_zipfile_serialization=new_format), source="FILE")
    torch.testing.assert_close(read["model"]["1.weight"], module[0].weight.detach(), rtol=0, atol=0)


def test_a_safetensors_header_that_takes_more_than_any_tensors_need():
    text = b'{"a":[' + b"[]," * 3_000_000 + b"[]]}"
    with pytest.raises(PolicyFileError, match=r"^FILE is refused: its header takes 9,000,010 bytes, expected at most"):
        read_tensors(len(text).to_bytes(8, "little") + text, source="FILE")
