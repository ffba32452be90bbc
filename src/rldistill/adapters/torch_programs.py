"""TorchScript and torch.export files as programs: loaded only from sources that the user trusts.

Both bring code that their maker wrote and that runs when they do; what they say of themselves is
not checked. An archive's entries can be looked at without running it.
"""

import contextlib
import warnings
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rldistill.adapters.contents import refuse_memory
from rldistill.adapters.contract import CONTRACT_FILE, Contract
from rldistill.adapters.formats import FileStart, Format, warn
from rldistill.adapters.program import Program, ProgramPolicy, ProgramState
from rldistill.adapters.weights import check_module_weights
from rldistill.errors import PolicyFileError, first_line, listed
from rldistill.networks.foreign import named_outputs
from rldistill.options.reading import Reading
from rldistill.policies.padded import ROWS_PER_BATCH, probe_rows
from rldistill.storage import sha256_file
from rldistill.tasks import Task

# How exports of rsl_rl and of those who build on it call what empties their memory.
_RESETS = ("reset", "reset_memory")
_WITH_RESET = (
    "Export it as TorchScript with its memory in buffers, and a method reset that sets them to where an episode begins."
)
_OBSERVATION_TYPES = (torch.float32, torch.float64, torch.float16, torch.uint8)


def _is_torchscript(file: FileStart) -> bool:
    return "constants.pkl" in file.below_root and any(name.startswith("code/") for name in file.below_root)


def _is_exported(file: FileStart) -> bool:
    return "serialized_exported_program.json" in file.members or "models/model.json" in file.below_root


def _load_torchscript(path: Path, reading: Reading, task: Task | None, _module: nn.Module | None) -> ProgramPolicy:
    what = f"TorchScript file {path}"
    _check_trusted(what, trust=reading.trust)
    try:
        with warnings.catch_warnings():
            # torch advises makers of such files to export them differently; a reader cannot.
            warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is", DeprecationWarning)
            files = {CONTRACT_FILE: ""}
            module = torch.jit.load(path, map_location="cpu", _extra_files=files)
    except (RuntimeError, ValueError, OSError) as error:
        raise PolicyFileError(f"{what} cannot be loaded: {first_line(error)}. Fetch it again.") from error
    contract = Contract.read(files[CONTRACT_FILE])
    dtype = torch.uint8 if contract.takes_bytes else None
    return contract.policy(_program(path, what, module.eval(), contract.task_for(task), dtype=dtype), task, reading)


def _load_exported(path: Path, reading: Reading, task: Task | None, _module: nn.Module | None) -> ProgramPolicy:
    what = f"torch.export file {path}"
    _check_trusted(what, trust=reading.trust)
    try:
        files = {CONTRACT_FILE: ""}
        exported = torch.export.load(path, extra_files=files)
        module = exported.module()
    except Exception as error:  # torch's many parsers of this format raise many types
        raise PolicyFileError(
            f"{what} cannot be loaded: {first_line(error)}. It may be of another version of torch, or incomplete."
        ) from error
    if exported.graph_signature.buffers_to_mutate:
        raise PolicyFileError(_recurrent(what, ", ".join(sorted(exported.graph_signature.buffers_to_mutate.values()))))
    shape, dtype = _only_input(what, exported)
    contract = Contract.read(files[CONTRACT_FILE])
    return contract.policy(_program(path, what, module, task, shape=shape, dtype=dtype), task, reading)


_WORDS = frozenset({"outputs", "input_scale"})
TORCHSCRIPT = Format("torchscript", "TorchScript file", _is_torchscript, _load_torchscript, _WORDS)
TORCH_EXPORT = Format("torch_export", "torch.export file", _is_exported, _load_exported, _WORDS)


def _program(
    path: Path,
    what: str,
    module: nn.Module,
    task: Task | None,
    *,
    shape: tuple[int | None, ...] | None = None,
    dtype: torch.dtype | None = None,
) -> Program:
    tensors = chain(module.parameters(), module.buffers())
    input_dtype = dtype or next((each.dtype for each in tensors if each.is_floating_point()), torch.float32)
    memory = _buffers_of_memory(what, module) if shape is None else {}
    if not memory and shape is None and task is not None:
        memory = _changing_buffers(what, module, probe_rows(task.fingerprint, 1).to(input_dtype))
    weights = {name: tensor for name, tensor in module.state_dict().items() if name not in memory}
    # Without a task nothing was called, and its name will be asked for.
    if not memory and (shape is not None or task is not None):
        refuse_memory(what, weights, _WITH_RESET)
    check_module_weights(what, module, PolicyFileError)
    return Program(
        name=path.stem,
        what=what,
        format="torchscript" if shape is None else "torch_export",
        run=_runner(what, module, tuple(memory)),
        content_hash=sha256_file(path),
        observation_shape=None if shape is None else tuple(size for size in shape[1:] if size is not None),
        input_dtype=input_dtype,
        # Its buffers hold the memory of one environment.
        batch_size=1 if memory else (None if shape is None else shape[0]) or ROWS_PER_BATCH["cpu"],
        num_parameters=sum(tensor.numel() for tensor in weights.values()),
        num_bytes=path.stat().st_size,
        states=tuple(ProgramState(name, value) for name, value in memory.items()),
    )


def _buffers_of_memory(what: str, module: nn.Module) -> dict[str, Tensor]:
    """Return what a module remembers when an episode begins: the buffers that its method `reset` sets, by name.

    Of several methods the first counts that sets any: Isaac Lab exports a `reset` that does nothing.
    """
    resets = [getattr(module, name) for name in _RESETS if hasattr(module, name)]
    return next((memory for reset in resets if (memory := _set_by(what, module, reset))), {})


@torch.no_grad()
def _set_by(what: str, module: nn.Module, reset: Callable[[], object]) -> dict[str, Tensor]:
    """Return the buffers that a method sets, by name.

    They are told by giving every buffer another value before: what keeps it is no memory, and gets its own back.
    """
    before = {name: tensor.clone() for name, tensor in module.named_buffers()}
    memory: dict[str, Tensor] = {}
    # Twice: a value that is what `reset` sets would look as if it kept it.
    for shift in (1, 2):
        others = {name: _another(tensor, shift) for name, tensor in before.items()}
        for name, tensor in module.named_buffers():
            tensor.copy_(others[name])
        try:
            reset()
        except RuntimeError as error:
            raise PolicyFileError(
                f"{what} has a method {' or '.join(_RESETS)} that cannot be called: {_reason(error)}. It is called "
                "without arguments, for the state at an episode's start."
            ) from error
        now = dict(module.named_buffers())
        memory |= {name: own.clone() for name, own in now.items() if not torch.equal(own, others[name])}
    for name, tensor in module.named_buffers():
        tensor.copy_(memory.get(name, before[name]))
    return memory


@torch.no_grad()
def _changing_buffers(what: str, module: nn.Module, rows: Tensor) -> dict[str, Tensor]:
    """Return the buffers that a call changes, by name, with the values that the file holds, and warn of them."""
    before = {name: tensor.clone() for name, tensor in module.named_buffers()}
    if not before:
        return {}
    with contextlib.suppress(PolicyFileError):  # what plays it will say so
        _call(what, module, rows)
    now = dict(module.named_buffers())
    memory = {name: own for name, own in before.items() if not torch.equal(now[name], own)}
    if any(now[name].shape != own.shape for name, own in memory.items()):
        raise PolicyFileError(_recurrent(what, ", ".join(memory)))
    for name, own in memory.items():
        now[name].copy_(own)
    if memory:
        warn(
            f"{what} has no method reset that sets what its calls change ({listed(memory)}): each episode begins with "
            "the values that the file holds. Was it saved before it played?"
        )
    return memory


def _call(what: str, module: nn.Module, rows: Tensor) -> object:
    try:
        # The same graph at the first call and at the thousandth: profiling rewrites it in between.
        with torch.jit.optimized_execution(False):  # pyright: ignore[reportPrivateImportUsage]
            return module(rows)
    except (RuntimeError, TypeError, ValueError, IndexError, AssertionError, NotImplementedError) as error:
        raise PolicyFileError(f"{what} cannot be run on observations {list(rows.shape)}: {_reason(error)}") from error


def _another(tensor: Tensor, shift: int) -> Tensor:
    """Return other values: of a truth value its opposite first, then itself."""
    if tensor.dtype == torch.bool:
        return ~tensor if shift == 1 else tensor
    return tensor + shift


def _runner(what: str, module: nn.Module, memory: tuple[str, ...]) -> Callable[..., Mapping[str, Tensor]]:
    """Return what runs a module on rows and, in a batch of one, the values of its buffers of memory."""
    is_checked = False

    def run(rows: Tensor, *state: Tensor) -> Mapping[str, Tensor]:
        nonlocal is_checked
        buffers = dict(module.named_buffers())
        before = {} if is_checked else {name: each.clone() for name, each in buffers.items() if name not in memory}
        for name, (value,) in zip(memory, state, strict=True):
            buffers[name].copy_(value)
        answer = _call(what, module, rows)
        buffers = dict(module.named_buffers())
        is_checked = True
        if changed := [name for name in before if not torch.equal(buffers[name], before[name])]:
            raise PolicyFileError(_recurrent(what, ", ".join(changed)))
        # Copies: the next environment's state overwrites the buffers.
        return named_outputs(what, answer) | {name: buffers[name].clone()[None] for name in memory}

    return run


def _reason(error: Exception) -> str:
    """Return why a call failed: TorchScript tells its own stack first and the reason last."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _check_trusted(what: str, *, trust: bool) -> None:
    if not trust:
        raise PolicyFileError(
            f"{what} is a program, not data: loading it runs code that its maker wrote, with all your rights. If you "
            "trust where it came from, add --trust (Python: trust=True). A state dict, an ONNX or a .safetensors file "
            "needs no trust."
        )


def _recurrent(what: str, memory: str) -> str:
    return f"{what} is recurrent: it carries {memory} from one call to the next. {_WITH_RESET}"


def _only_input(what: str, exported: Any) -> tuple[tuple[int | None, ...], torch.dtype]:  # noqa: ANN401
    """Return the dimensions of the only input, None for a batch of any size, and its type."""
    names = exported.graph_signature.user_inputs
    if len(names) != 1:
        raise PolicyFileError(
            f"{what} takes {len(names)} inputs ({', '.join(map(str, names))}). Policies take one: export it with its "
            "observations alone."
        )
    value = next(node.meta["val"] for node in exported.graph.nodes if node.name == names[0])
    if not isinstance(value, Tensor) or value.dim() == 0 or value.dtype not in _OBSERVATION_TYPES:
        raise PolicyFileError(
            f"{what}: its input {names[0]} is {value}, expected a batch of observations [B, …]. Export it with one."
        )
    sizes = [size if isinstance(size, int) else None for size in value.shape]
    for index, size in enumerate(sizes[1:], start=1):
        if size is None:
            raise PolicyFileError(
                f"{what}: dimension {index} of its input {names[0]} is not fixed; only the batch, dimension 0, may be. "
                "Export it with the shape of the observations."
            )
    return tuple(sizes), value.dtype
