"""What a file is: told by its content, before anything in it is run, in one line where nothing can read it."""

import io
import pickle
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch

from rldistill.adapters.load import detect_kind
from rldistill.errors import PolicyFileError
from tests.kit.small_policies import small_policy


def zipped(*names):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return data.getvalue()


def saved(**options):
    data = io.BytesIO()
    torch.save({"w": torch.zeros(2)}, data, **options)
    return data.getvalue()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (zipped("data", "policy.pth", "pytorch_variables.pth"), "sb3"),
        (zipped("p/data.pkl", "p/constants.pkl", "p/code/__torch__.py", "p/version"), "torchscript"),
        (zipped("p/models/model.json", "p/archive_format"), "torch_export"),
        (zipped("serialized_exported_program.json", "version"), "torch_export"),
        (saved(), "weights"),
        (saved(_use_new_zipfile_serialization=False), "weights"),
        (safetensors.torch.save({"w": torch.zeros(1)}), "weights"),
        (safetensors.torch.save({"w": torch.zeros(1)}, {"format": "pt"}), "weights"),
    ],
)
def test_files_are_known_by_their_content(tmp_path, data, kind):
    (tmp_path / "file").write_bytes(data)
    assert detect_kind(tmp_path / "file") == kind


def test_a_policy_file_is_known_by_its_content(tmp_path):
    small_policy().save(tmp_path / "p.bin")
    assert detect_kind(tmp_path / "p.bin") == "policy"


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (zipped("a.txt", "b.txt"), "a zip archive of a.txt, b.txt"),
        (zipped(*"abcdef"), "a zip archive of a, b, c, d, …"),
        (pickle.dumps({"a": 1}), "a Python pickle, which runs code when it is opened: it was not opened"),
        (b"\x89HDF\r\n\x1a\n...", "an HDF5 file (Keras, TensorFlow)"),
        (b"\x1f\x8b\x08....", "a gzip archive"),
        (b"#!/bin/sh\n", "a script"),
        (b"\n<!DOCTYPE html>", "a web page"),
        (b'{"a": 1}', "JSON text"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer: the file itself was not downloaded"),
        (b"learning_rate = 1", "text ('learning_rate = 1'…)"),
        (bytes([7, 255, 3, 9, 1]), "data of an unknown format (it begins with 07 ff 03 09)"),
        (b"\x08\x0a", "data of an unknown format (it begins with 08 0a)"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value[:20],
)
def test_what_nothing_can_read_is_one_line_that_says_what_it_is_and_what_is_readable(tmp_path, data, found):
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(PolicyFileError) as caught:
        detect_kind(path)
    assert str(caught.value).startswith(f"Policy file {path}: found {found}")
    assert str(caught.value).endswith(
        "Readable are policy files (.safetensors), Stable-Baselines3 zips, checkpoints of CleanRL, rl_games, rsl_rl, "
        "skrl (.pt), ONNX, TorchScript and torch.export files."
    )


def test_a_zip_of_sbx_is_named_with_the_way_on(tmp_path):
    path = tmp_path / "ppo.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data", "pytorch_variables.pth", "_stable_baselines3_version", "system_info.txt"):
            archive.writestr(name, "{}")
    with pytest.raises(PolicyFileError, match=r"found a zip of SBX.* without policy\.pth: .*Export its policy to ONNX"):
        detect_kind(path)


def test_numpy_arrays_are_recognised(tmp_path):
    np.save(tmp_path / "w.npy", np.zeros(3))
    with pytest.raises(PolicyFileError, match="found a NumPy array"):
        detect_kind(tmp_path / "w.npy")


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda path: None, "Policy file FILE: found nothing there, expected a file. Is the path right?"),
        (lambda path: path.mkdir(), "Policy file FILE: found a folder there, expected a file. Is the path right?"),
        (
            lambda path: path.write_bytes(b""),
            "Policy file FILE is empty (0 bytes): its download or copy is incomplete. Fetch it again.",
        ),
    ],
    ids=["nothing", "folder", "empty"],
)
def test_no_file_or_an_empty_one(tmp_path, make, line):
    path = tmp_path / "p.zip"
    make(path)
    with pytest.raises(PolicyFileError) as caught:
        detect_kind(path)
    assert str(caught.value).replace(str(path), "FILE") == line


def test_a_zip_that_was_cut_off(tmp_path):
    (tmp_path / "p.zip").write_bytes(zipped("data", "policy.pth")[:-30])
    with pytest.raises(PolicyFileError, match="cannot be read"):
        detect_kind(tmp_path / "p.zip")
