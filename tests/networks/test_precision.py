"""Precision is a rule of device and processor flags, never a timing."""

from pathlib import Path

import pytest
import torch

from rldistill.errors import UsageError
from rldistill.networks import precision
from rldistill.networks.precision import autocast, resolve_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def give_processor(monkeypatch, tmp_path: Path, flags: str | None):
    file = tmp_path / "cpuinfo"
    if flags is not None:
        file.write_text(f"processor : 0\nflags\t\t: fpu {flags} lm\n")
    monkeypatch.setattr(precision, "Path", lambda _name: file)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("amx_bf16 amx_tile", "bfloat16"), ("avx512f avx512_bf16", "bfloat16"), ("avx512f", "float32"), (None, "float32")],
)
def test_auto_on_a_processor_follows_its_flags(monkeypatch, tmp_path, flags, expected):
    give_processor(monkeypatch, tmp_path, flags)
    assert resolve_precision("auto", CPU) == expected


@pytest.mark.parametrize(("has_bfloat16", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_auto_on_a_gpu_follows_the_gpu(monkeypatch, has_bfloat16, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: has_bfloat16)
    assert resolve_precision("auto", CUDA) == expected


def test_auto_is_float32_for_networks_of_vectors_on_every_machine(monkeypatch, tmp_path):
    give_processor(monkeypatch, tmp_path, "amx_bf16")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert {resolve_precision("auto", device, images=False) for device in (CPU, CUDA)} == {"float32"}


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_named_precision_is_taken_as_it_is(name):
    assert resolve_precision(name, CPU) == name


@pytest.mark.parametrize("name", ["float16", "fp32", "Auto", ""])
def test_another_name_is_refused(name):
    with pytest.raises(UsageError) as caught:
        resolve_precision(name, CPU)
    assert str(caught.value) == f"precision: got {name!r}, expected auto, float32 or bfloat16."


@pytest.mark.parametrize(("name", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_autocast_contexts_compute_in_the_precision_and_can_be_entered_again(name, dtype):
    context = autocast(name, CPU)
    for _ in range(2):
        with context():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
    assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
