"""Zips and tensors of strangers: `torch.load` as data or safetensors, then checked and brought to float32 on the CPU.

A zip is read in memory and within stated limits; nothing is ever extracted. It holds at most `MAX_MEMBERS` members. One
of them may unpack to at most `MAX_MEMBER_BYTES`, and, beyond its first MiB, to at most `MAX_RATIO` times what it takes
in the archive; all together to what `limits` allows for its size. The sizes that the archive declares are checked
first; what really comes out is counted while it is read, because a declaration can lie.
"""

import contextlib
import io
import pickle
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from rldistill.adapters.arrays import NUMPY_AS_DATA
from rldistill.adapters.unpickle import STORAGE, Record, children, read_torch_pickles
from rldistill.errors import PolicyFileError, RldistillError, first_line, listed, printable, shown
from rldistill.limits import FREE_UNPACKED_BYTES, MAX_UNPACKED_RATIO, TENSORS
from rldistill.networks.foreign import holds_numbers, is_dense, shown_kind
from rldistill.policies.file_format import check_header

MAX_MEMBERS = 10_000
MAX_MEMBER_BYTES = 1 << 30
MAX_RATIO = 200
_CHUNK_BYTES = 1 << 20

# What zipfile raises for damaged, encrypted or unknown content.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, ValueError)


@dataclass(frozen=True)
class Archive:
    """An open zip archive whose declared sizes were checked."""

    zip_file: zipfile.ZipFile
    source: str  # what messages call it
    num_bytes: int  # of the whole file, by which its unpacked size is measured

    @property
    def names(self) -> frozenset[str]:
        """Names of its members."""
        return frozenset(self.zip_file.namelist())

    @property
    def unpacked_bytes(self) -> int:
        """What all members together unpack to, as the archive declares; none of them is read beyond its part."""
        return sum(member.file_size for member in self.zip_file.infolist())

    def read(self, name: str, *, most: int = MAX_MEMBER_BYTES) -> bytes:
        """Return a member's bytes, at most so many. Raises PolicyFileError: missing, damaged, or beyond the limits."""
        if name not in self.names:
            found = listed(printable(member, 60) for member in sorted(self.names)) or "nothing"
            raise PolicyFileError(f"{self.source} holds no {name!r}, only {found}. Was it written by another library?")
        if self.zip_file.getinfo(name).file_size > most:
            raise PolicyFileError(
                f"{self.source} is refused: {printable(name, 60)} unpacks to more than {most >> 20:,} MiB, the most "
                "that is read of it."
            )
        chunks: list[bytes] = []
        num_bytes = 0
        try:
            with self.zip_file.open(name) as member:
                packed = min(self.zip_file.getinfo(name).compress_size, self.num_bytes)
                while chunk := member.read(_CHUNK_BYTES):
                    num_bytes += len(chunk)
                    _check_size(self.source, name, num_bytes, packed)
                    chunks.append(chunk)
        except _DAMAGE as error:
            raise PolicyFileError(_no_archive(self.source, f"{name} in it: {first_line(error)}")) from error
        return b"".join(chunks)


@contextlib.contextmanager
def open_archive(path: Path) -> Generator[Archive]:
    """Open a zip file. Raises PolicyFileError: missing, empty, cut off, no zip, or it declares more than the limits."""
    source = f"Policy file {path}"
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise PolicyFileError(f"{source}: found {found} there, expected a zip file. Is the path right?")
    try:
        with path.open("rb") as file, opened_archive(file, source=source) as archive:
            yield archive
    except OSError as error:
        raise PolicyFileError(f"{source} cannot be read: {error.strerror or error}.") from error


@contextlib.contextmanager
def opened_archive(file: BinaryIO, *, source: str, num_bytes: int | None = None) -> Generator[Archive]:
    """Open an archive, perhaps in memory before another library unpacks it; raises as `open_archive`.

    `num_bytes` is the size of a file that it is a part of, by which its unpacked size is measured.
    """
    num_bytes = file.seek(0, io.SEEK_END) if num_bytes is None else num_bytes
    if num_bytes == 0:
        raise PolicyFileError(f"{source} is empty: got 0 bytes. Its download or copy was cut off. Fetch it again.")
    try:
        zip_file = zipfile.ZipFile(file)
    except _DAMAGE as error:
        raise PolicyFileError(_no_archive(source, first_line(error))) from error
    with zip_file:
        _check_declared(zip_file, source, num_bytes)
        yield Archive(zip_file, source, num_bytes)


def _check_declared(zip_file: zipfile.ZipFile, source: str, num_bytes: int) -> None:
    members = zip_file.infolist()
    # The end of a zip can lie inside a longer one that was cut off, when a member of it is a zip itself.
    if min((member.header_offset for member in members), default=0) > 0:
        raise PolicyFileError(_no_archive(source, "its archive does not begin where the file does"))
    if len(members) > MAX_MEMBERS:
        raise PolicyFileError(
            f"{source} is refused: got {len(members):,} members, expected at most {MAX_MEMBERS:,}. No policy needs "
            "so many: it was made to exhaust its reader."
        )
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise PolicyFileError(
            f"{source} is refused: it holds {shown(twice)} twice, and readers differ in which one they take."
        )
    for member in members:
        _check_size(source, member.filename, member.file_size, min(member.compress_size, num_bytes))
    unpacked, most = sum(member.file_size for member in members), FREE_UNPACKED_BYTES + MAX_UNPACKED_RATIO * num_bytes
    if unpacked > most:
        raise PolicyFileError(
            f"{source} is refused: its members unpack to {unpacked >> 20:,} MiB, expected at most {most >> 20:,} MiB "
            f"for {num_bytes:,} bytes. Weights do not compress like that: it was made to exhaust its reader. Save it "
            "uncompressed if it is yours."
        )


def _check_size(source: str, name: str, num_bytes: int, packed_bytes: int) -> None:
    """Refuse what unpacks to too much, absolutely or for the room that it takes in the archive."""
    if num_bytes > MAX_MEMBER_BYTES:
        raise PolicyFileError(
            f"{source} is refused: {printable(name, 60)} unpacks to more than {MAX_MEMBER_BYTES >> 20:,} MiB, the most "
            "that is read."
        )
    if num_bytes > _CHUNK_BYTES and num_bytes > MAX_RATIO * packed_bytes:
        raise PolicyFileError(
            f"{source} is refused: {printable(name, 60)} unpacks to more than {MAX_RATIO} times its "
            f"{packed_bytes:,} bytes. Weights do not compress like that: it was made to exhaust its reader."
        )


def _no_archive(source: str, reason: str) -> str:
    return (
        f"{source} cannot be read: {reason}. It is not a zip archive, or its download or copy is incomplete. "
        "Fetch it again."
    )


_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# What a zip begins with, by which torch tells its two formats apart.
_ZIP = b"PK\x03\x04"
# What the file of one policy of Stable-Baselines3 (`policy.save`) wants before anything else.
_OF_SB3 = ("gym.", "gymnasium.", "stable_baselines3.", "sb3_contrib.")
_SAVE_ZIP = "If Stable-Baselines3's policy.save() wrote it: save the whole model instead, model.save('model.zip')."
_SAVE_WEIGHTS = (
    "If you trust its maker, load it yourself (torch.load(path, weights_only=False)), and pass its module to "
    "rd.load_policy or save the weights alone: torch.save(module.state_dict(), 'weights.pt')."
)
# Modules that no model is made of; torch names builtins without theirs.
_OF_NO_MODEL = frozenset(
    {"", "asyncio", "commands", "ctypes", "http", "importlib", "io", "nt", "operator", "os", "pdb", "pickle", "posix"}
    | {"pty", "runpy", "shutil", "socket", "subprocess", "sys", "urllib", "webbrowser"}
)
# Names that allocate as many numbers as their argument says.
_ALLOCATES = re.compile(r"(bytearray|Tensor|Storage)$")
# How torch names what a file wants and data do not need.
_WANTED_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


@dataclass(frozen=True)
class Weights:
    """The tensors of one network."""

    tensors: Mapping[str, Tensor]  # by name, on the CPU, contiguous; floating ones are float32 and finite
    converted_from: tuple[str, ...] = ()  # floating types other than float32 that the file had, by name


def is_safetensors(head: bytes) -> bool:
    """Do 9 bytes or more begin as safetensors do: the length of a header, then its brace? No pickle and no zip does."""
    # Read as a length, the first 8 bytes of a pickle or of text are far beyond the limit of the format itself.
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= 100_000_000


def read_tensors(data: bytes, *, source: str) -> object:
    """Read the bytes of a file of `torch.save` or safetensors; returns and raises as `read_torch_data`."""
    if not is_safetensors(data):
        return read_torch_data(data, source=source)
    check_header(data, source=source)
    try:
        tensors = safetensors.torch.load(data)
    except Exception as error:  # a type of numbers that torch lacks is a KeyError
        raise PolicyFileError(_unreadable(source, error)) from error
    # The library gives them in any order; messages list them.
    return dict(sorted(tensors.items()))


def read_torch_data(data: bytes, *, source: str, num_bytes: int | None = None) -> object:
    """Read what `torch.save` wrote, in torch's zip format or the one before it, as data: nothing in it is executed.

    `num_bytes` is the size of a file that the data are a part of, by which their unpacked size is measured.

    Returns:
        Tensors on the CPU, numbers, texts, NumPy arrays as `NumpyArray`, and containers of them.

    Raises:
        PolicyFileError: empty, damaged, or it wants more than data (names the global).
    """
    if not data:
        raise PolicyFileError(f"{source} is empty: got 0 bytes. Its download or copy was cut off. Fetch it again.")
    if data.startswith(_ZIP):
        with opened_archive(io.BytesIO(data), source=source, num_bytes=num_bytes) as archive:
            _check_pickles(_pickle_in(archive, source), archive.unpacked_bytes, source)
    else:
        _check_pickles(data, len(data), source)
    try:
        with torch.serialization.safe_globals(NUMPY_AS_DATA):
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise PolicyFileError(_refusal(source, str(error))) from error
    except Exception as error:  # torch raises almost anything for damaged bytes
        raise PolicyFileError(_unreadable(source, error)) from error


def _pickle_in(archive: Archive, source: str) -> bytes:
    found = [name for name in archive.names if name.partition("/")[2] == "data.pkl"]
    if len(found) != 1:
        raise PolicyFileError(
            f"{source} holds {len(found)} pickles of tensors, expected one. Another program wrote it."
        )
    return archive.read(found[0], most=TENSORS.num_bytes)


def _check_pickles(data: bytes, num_bytes: int, source: str) -> None:
    """Check, before torch makes anything, that what is to be made has room in the file that describes it."""
    storages: dict[object, int] = {}
    values = read_torch_pickles(io.BytesIO(data), source=source)
    while values:
        value = values.pop()
        values += children(value)
        if not isinstance(value, Record):
            continue
        if _ALLOCATES.search(value.name) and any(isinstance(size, int) for size in value.arguments):
            raise PolicyFileError(f"{source} is refused: its pickle makes room with {value.name}. Weights do not.")
        if value.name == STORAGE and len(value.arguments) >= 5:
            _, _, key, _, count, *_ = value.arguments
            if isinstance(key, str | int) and isinstance(count, int):
                storages[key] = max(count, storages.get(key, 0))
    if sum(storages.values()) > num_bytes:
        raise PolicyFileError(
            f"{source} is refused: its tensors are declared to hold {sum(storages.values()):,} numbers and lie in "
            f"{num_bytes:,} bytes. It was made to exhaust its reader."
        )


def _unreadable(source: str, error: Exception) -> str:
    reason = first_line(error)
    if isinstance(error, KeyError):
        reason = f"{reason} is not known"
    return (
        f"{source} cannot be read as tensors: {reason}. Its download or copy is incomplete, or another program wrote "
        "it."
    )


def _refusal(source: str, message: str) -> str:
    found = _WANTED_GLOBAL.search(message)
    what = f"wants {found[1]}, which weights do not need" if found else "holds more than tensors, numbers and texts"
    refusal = f"{source} is refused: its pickle {what}. Nothing of it was executed."
    module = found[1].rpartition(".")[0] if found else ""
    if module.partition(".")[0] in _OF_NO_MODEL:
        return refusal  # it should not be opened by other means either
    return f"{refusal} {_SAVE_ZIP if f'{module}.'.startswith(_OF_SB3) else _SAVE_WEIGHTS}"


def read_weights(content: object, *, source: str, may_be_infinite: Collection[str] = ()) -> Weights:
    """Check a state dict and convert its floating tensors to float32.

    Tensors of the (unwrapped) names in `may_be_infinite` may hold infinity, such as masks.

    Raises:
        PolicyFileError: not a mapping of names to dense tensors, a tensor larger than what backs it, or a NaN or an
            infinity (names the tensor).
    """
    if not (isinstance(content, Mapping) and content):
        kind = "nothing" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise PolicyFileError(f"{source}: got {kind}, expected a state dict: tensors by name.")
    tensors: dict[str, Tensor] = {}
    converted: set[str] = set()
    unwrapped = dict(zip(content, unwrapped_names([str(name) for name in content]), strict=True))
    for name, tensor in content.items():
        if not (isinstance(name, str) and isinstance(tensor, Tensor)):
            raise PolicyFileError(
                f"{source}: got a {type(tensor).__name__} under {shown(name)}, expected a state dict: tensors by name."
            )
        _check_tensor(name, tensor, source)
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            converted.add(str(tensor.dtype).removeprefix("torch."))
        tensors[name] = _finite_float32(
            name, tensor.detach(), source, may_be_infinite=unwrapped[name] in may_be_infinite
        )
    return Weights(tensors, tuple(sorted(converted)))


def unwrapped_names(names: Collection[str]) -> list[str]:
    """Return names of tensors as they are without the wrappers of `torch.compile` and of data parallel training."""
    plain = [name.replace("_orig_mod.", "") for name in names]
    while plain and all(name.startswith("module.") for name in plain):
        plain = [name.removeprefix("module.") for name in plain]
    return plain if len(set(plain)) == len(plain) else list(names)


def check_module_weights(what: str, module: nn.Module, error: type[RldistillError]) -> None:
    """Check that a module's weights are there, of a usable type, and numbers; buffers, such as masks, may be infinite.

    Raises an error of the type given, which names the tensor.
    """
    for tensors, may_mask in ((module.named_parameters(), False), (module.named_buffers(), True)):
        for name, tensor in tensors:
            if is_lazy(tensor) or tensor.is_meta:
                raise error(f"{what}: weight {name} has no values yet. Load its weights before you pass it.")
            if not is_dense(tensor) or (tensor.is_floating_point() and tensor.dtype not in _FLOATS):
                raise error(
                    f"{what}: weight {name} is {shown_kind(tensor)}, expected dense float64, float32, float16 or "
                    "bfloat16, or integers. Convert it before you pass it."
                )
            if not holds_numbers(tensor, may_be_infinite=may_mask):
                raise error(f"{what}: weight {name} holds NaN or infinity. Its training diverged.")


def _check_tensor(name: str, tensor: Tensor, source: str) -> None:
    if not is_dense(tensor) or tensor.is_complex() or tensor.device.type != "cpu":
        raise PolicyFileError(
            f"{source}: tensor {name} is {shown_kind(tensor)}, expected dense numbers. Save its dequantised, dense "
            "weights."
        )
    # Strides of zero make a tensor of any size out of a few bytes: converting it would fill the memory.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise PolicyFileError(
            f"{source} is refused: tensor {name} declares {list(tensor.shape)} but is backed by "
            f"{tensor.untyped_storage().nbytes()} bytes. It was made to exhaust its reader."
        )
    if tensor.is_floating_point() and tensor.dtype not in _FLOATS:
        raise PolicyFileError(
            f"{source}: tensor {name} is {tensor.dtype}, expected float64, float32, float16 or bfloat16."
        )


def _finite_float32(name: str, tensor: Tensor, source: str, *, may_be_infinite: bool) -> Tensor:
    if not tensor.is_floating_point():
        return tensor.contiguous()
    converted = tensor.float().contiguous()
    if not holds_numbers(converted, may_be_infinite=may_be_infinite, before=tensor):
        beyond = torch.isfinite(tensor).all()
        what = "numbers beyond the range of float32" if beyond else "NaN or infinity"
        raise PolicyFileError(f"{source}: tensor {name} holds {what}. Its training diverged, or the file is damaged.")
    return converted
