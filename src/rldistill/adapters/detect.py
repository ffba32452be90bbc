"""What a file is, told by its content and without running anything of it."""

import re
from pathlib import Path
from typing import Literal

from rldistill.adapters.archive import open_archive
from rldistill.adapters.weights import check_header, is_safetensors
from rldistill.data import is_dataset_folder
from rldistill.errors import PolicyFileError, reading_file
from rldistill.limits import HEADER, read_json
from rldistill.policies.file_format import METADATA_KEY

FileKind = Literal["policy", "sb3", "onnx", "torchscript", "torch_export", "weights"]

_READABLE = (
    "Readable are policy files (.safetensors), Stable-Baselines3 zips, CleanRL and rsl_rl checkpoints (.pt), ONNX, "
    "TorchScript and torch.export files"
)
_NUM_HEAD_BYTES = 64
# What torch.save wrote before 2020 begins with: a pickle of its own magic number.
_OLD_TORCH = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
_KNOWN_STARTS = (
    (b"\x89HDF", "an HDF5 file (Keras, TensorFlow)"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"#!", "a script"),
    (b"version https://git-lfs", "a Git LFS pointer: the file itself was not downloaded (git lfs pull)"),
    (b"{", "JSON text"),
    (b"<", "a web page"),
)
# Numbers of the fields of ONNX's ModelProto, and those that every model has: the graph and its operator sets.
_ONNX_FIELDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26})
_ONNX_NEEDED = frozenset({7, 8})
# One for each operator set, function and entry of its metadata.
_MOST_ONNX_FIELDS = 100_000


def policy_file_of(path: Path) -> Path:
    """Return a file as it is, and of a run folder the policy that its run ended in.

    Raises:
        PolicyFileError: a folder that holds none.
    """
    with reading_file(f"Policy file {path}", PolicyFileError):
        if not path.is_dir():
            return path
    files = [path / name for name in ("student.safetensors", "last_policy.safetensors")]
    found = [file for file in files if file.is_file()]
    if found:
        return found[0]
    if is_dataset_folder(path):
        raise PolicyFileError(f"{path} is a dataset, expected a policy file or a run folder. `distill` learns from it.")
    is_run = (path / "config.toml").is_file()
    way_on = "its run has not finished: repeat its command with --resume." if is_run else "this is not a run folder."
    raise PolicyFileError(f"{path} holds neither student.safetensors nor last_policy.safetensors; {way_on}")


def detect_kind(path: Path) -> FileKind:
    """Return what kind of policy a file holds.

    Raises:
        PolicyFileError: there is no file, or none of a kind that is readable; says what was found.
    """
    with reading_file(f"Policy file {path}", PolicyFileError):
        if not path.is_file():
            found = "a folder" if path.is_dir() else "nothing"
            raise PolicyFileError(f"Policy file {path}: found {found} there, expected a file. Is the path right?")
        with path.open("rb") as file:
            head = file.read(_NUM_HEAD_BYTES)
    if not head:
        raise PolicyFileError(
            f"Policy file {path} is empty (0 bytes): its download or copy is incomplete. Fetch it again."
        )
    if head.startswith(b"PK"):
        return _kind_of_zip(path)
    if head.startswith(_OLD_TORCH):
        return "weights"
    if path.suffix == ".safetensors" or is_safetensors(head):
        return "weights" if _is_bare_safetensors(path) else "policy"
    if path.suffix == ".onnx" or _is_onnx(path):
        return "onnx"
    raise PolicyFileError(f"Policy file {path}: found {_describe_head(head)}. {_READABLE}.")


def _kind_of_zip(path: Path) -> FileKind:
    with open_archive(path) as archive:
        names = archive.names
    parts = {name.partition("/")[2] for name in names}
    if {"data", "policy.pth"} <= names:
        return "sb3"
    if "constants.pkl" in parts and any(part.startswith("code/") for part in parts):
        return "torchscript"
    if "serialized_exported_program.json" in names or "models/model.json" in parts:
        return "torch_export"
    if "data.pkl" in parts:
        return "weights"
    shown = ", ".join(sorted(names)[:4]) + (", …" if len(names) > 4 else "")
    raise PolicyFileError(f"Policy file {path}: found a zip archive of {shown or 'nothing'}. {_READABLE}.")


def _is_bare_safetensors(path: Path) -> bool:
    """Are these tensors by name that nobody said the use of? What is damaged is left to the reader of policy files."""
    with path.open("rb") as file:
        head = file.read(9)
        if not is_safetensors(head):
            return False
        check_header(head, source=f"Policy file {path}")
        file.seek(8)
        try:
            header = read_json(file.read(int.from_bytes(head[:8], "little")), HEADER)
            return METADATA_KEY not in header.get("__metadata__", {})
        except (ValueError, AttributeError, TypeError):
            return False


def _is_onnx(path: Path) -> bool:
    """Walk over the outermost fields of a protobuf message: are they those of an ONNX model?"""
    size = path.stat().st_size
    found: set[int] = set()
    num_fields = 0
    with path.open("rb") as file:
        while (position := file.tell()) < size:
            key = _read_varint(file.read(10))
            if key is None:
                return False
            number, wire_type = key[0] >> 3, key[0] & 7
            file.seek(position + key[1])
            value = _read_varint(file.read(10))
            num_fields += 1
            if number not in _ONNX_FIELDS or wire_type not in (0, 2) or value is None or num_fields > _MOST_ONNX_FIELDS:
                return False
            found.add(number)
            file.seek(position + key[1] + value[1] + (value[0] if wire_type == 2 else 0))
        return file.tell() == size and found >= _ONNX_NEEDED


def _read_varint(data: bytes) -> tuple[int, int] | None:
    """Return the number that bytes begin with and how many bytes it takes; None if they do not."""
    value = 0
    for index, byte in enumerate(data):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, index + 1
    return None


def _describe_head(head: bytes) -> str:
    for start, what in _KNOWN_STARTS:
        if head.lstrip().startswith(start):
            return what
    if head[0] == 0x80 and 2 <= head[1] <= 5:
        return "a Python pickle, which runs code when it is opened: it was not opened"
    if re.fullmatch(rb"[\t\n\r\x20-\x7e]+", head):
        return f"text ({head[:20].decode('ascii').strip()!r}…)"
    return f"data of an unknown format (it begins with {head[:4].hex(' ')})"
