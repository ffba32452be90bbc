"""The formats of policy files that are read, and which of them a file has: told by its content, not by its name."""

import re
from pathlib import Path

from torch import nn

from rldistill.adapters.archive import open_archive
from rldistill.adapters.checkpoints import CHECKPOINT, LIBRARIES
from rldistill.adapters.formats import FileKind, FileStart, Format
from rldistill.adapters.onnx_program import ONNX
from rldistill.adapters.sb3.load import SB3
from rldistill.adapters.torch_programs import TORCH_EXPORT, TORCHSCRIPT
from rldistill.adapters.weights import is_safetensors
from rldistill.data import is_dataset_folder
from rldistill.errors import PolicyFileError, reading_file
from rldistill.options.reading import Reading
from rldistill.policies import TorchPolicy, files
from rldistill.tasks import Task

_READABLE = (
    f"Readable are policy files (.safetensors), Stable-Baselines3 zips, {' and '.join(sorted(LIBRARIES))} checkpoints "
    "(.pt), ONNX, TorchScript and torch.export files"
)
_NUM_HEAD_BYTES = 64
_KNOWN_STARTS = (
    (b"\x89HDF", "an HDF5 file (Keras, TensorFlow)"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"#!", "a script"),
    (b"version https://git-lfs", "a Git LFS pointer: the file itself was not downloaded (git lfs pull)"),
    (b"{", "JSON text"),
    (b"<", "a web page"),
)


def _is_own(file: FileStart) -> bool:
    # What is damaged is left to the reader of policy files; checkpoints among them were told before.
    return not file.is_zip and (file.path.suffix == ".safetensors" or is_safetensors(file.head))


def _load_own(path: Path, _reading: Reading, _task: Task | None, module: nn.Module | None) -> TorchPolicy:
    return files.load_policy(path, module=module)


_OWN = Format("policy", "policy file of rldistill", _is_own, _load_own, frozenset({"module"}), says_task=True)

FORMATS: tuple[Format, ...] = (SB3, TORCHSCRIPT, TORCH_EXPORT, CHECKPOINT, _OWN, ONNX)
"""All that are read. A new one is a module with a `Format`, and its name here."""


def detect_format(path: Path) -> Format:
    """Return the format of a policy file. Raises PolicyFileError: no file, or not readable; says what was found."""
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
    start = FileStart(path, head)
    if start.is_zip:
        with open_archive(path) as archive:
            start = FileStart(path, head, archive.names)
    for candidate in FORMATS:
        if candidate.recognises(start):
            return candidate
    raise PolicyFileError(f"Policy file {path}: found {_described(start)}. {_READABLE}.")


def detect_kind(path: Path) -> FileKind:
    """Return the kind of a policy file's format; raises as `detect_format`."""
    return detect_format(path).kind


def policy_file_of(path: Path) -> Path:
    """Return a file as it is, and of a run folder the policy that its run ended in. Raises PolicyFileError: none."""
    with reading_file(f"Policy file {path}", PolicyFileError):
        if not path.is_dir():
            return path
    for name in ("student.safetensors", "last_policy.safetensors"):
        if (path / name).is_file():
            return path / name
    if is_dataset_folder(path):
        raise PolicyFileError(f"{path} is a dataset, expected a policy file or a run folder. `distill` learns from it.")
    is_run = (path / "config.toml").is_file()
    way_on = "its run has not finished: repeat its command with --resume." if is_run else "this is not a run folder."
    raise PolicyFileError(f"{path} holds neither student.safetensors nor last_policy.safetensors; {way_on}")


def _described(file: FileStart) -> str:
    head = file.head
    if file.is_zip:
        names = ", ".join(sorted(file.members)[:4]) + (", …" if len(file.members) > 4 else "")
        return f"a zip archive of {names or 'nothing'}"
    for start, what in _KNOWN_STARTS:
        if head.lstrip().startswith(start):
            return what
    if head[0] == 0x80 and 2 <= head[1] <= 5:
        return "a Python pickle, which runs code when it is opened: it was not opened"
    if re.fullmatch(rb"[\t\n\r\x20-\x7e]+", head):
        return f"text ({head[:20].decode('ascii').strip()!r}…)"
    return f"data of an unknown format (it begins with {head[:4].hex(' ')})"
