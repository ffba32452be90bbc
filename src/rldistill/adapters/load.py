"""A policy from whatever holds one: the file's content, not its name, decides how it is read."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from rldistill.adapters.checkpoints import CHECKPOINT, LIBRARIES
from rldistill.adapters.formats import FileKind, FileStart, Format, LoadedPolicy, warn
from rldistill.adapters.in_process import function_policy, initial_parts, module_policy
from rldistill.adapters.onnx_program import ONNX
from rldistill.adapters.sb3.load import SB3
from rldistill.adapters.torch_programs import TORCH_EXPORT, TORCHSCRIPT
from rldistill.adapters.weights import is_safetensors, open_archive
from rldistill.data import is_dataset_folder
from rldistill.envs.extended import observed_as
from rldistill.envs.make import TaskLike, make_task
from rldistill.errors import PolicyFileError, UsageError, reading_file
from rldistill.networks.outputs import BETA_MEANS, TANH_ACTIONS, OutputDeclaration, parse_outputs
from rldistill.options.declaration import verb
from rldistill.options.load_policy import LoadOptions
from rldistill.options.reading import Reading
from rldistill.policies import TorchPolicy, files, fit_policy
from rldistill.policies.behaviour import Behaviour, check_can_sample
from rldistill.policies.sighted import SightedPolicy, check_takes_parts
from rldistill.sight import choose_parts, shown_to
from rldistill.tasks import Task
from rldistill.types import resolve_device

_READABLE = (
    f"Readable are policy files (.safetensors), Stable-Baselines3 zips, checkpoints of {', '.join(sorted(LIBRARIES))} "
    "(.pt), ONNX, TorchScript and torch.export files"
)
_NUM_HEAD_BYTES = 64
_POLICY_OF_HUBS = "policy.safetensors"
_KNOWN_STARTS = (
    (b"\x89HDF", "an HDF5 file (Keras, TensorFlow)"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"#!", "a script"),
    (b"version https://git-lfs", "a Git LFS pointer: the file itself was not downloaded (git lfs pull)"),
    (b"{", "JSON text"),
    (b"<", "a web page"),
)
# By what lies in them, what can be done with folders.
_KNOWN_FOLDERS = {
    "students": "name one of its students, which lie in the folder students.",
    "config.toml": "its run has not finished: repeat its command with --resume.",
    "rllib_checkpoint.json": "it is a checkpoint of RLlib: export its module to ONNX, and load that.",
    "policy.pth": "it is an unpacked zip of Stable-Baselines3: load the .zip itself.",
}


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
    """Return a file as it is, and of a run folder the policy that its run ended in, of an exported one its policy.

    Raises PolicyFileError: none.
    """
    with reading_file(f"Policy file {path}", PolicyFileError):
        if not path.is_dir():
            return path
        for name in ("student.safetensors", "last_policy.safetensors", _POLICY_OF_HUBS):
            if (path / name).is_file():
                return path / name
        if is_dataset_folder(path):
            raise PolicyFileError(
                f"{path} is a dataset, expected a policy file or a run folder. To learn from it: rldistill distill "
                f"{path}, without --teacher."
            )
        others = (way for name, way in _KNOWN_FOLDERS.items() if (path / name).exists())
        raise PolicyFileError(
            f"{path} holds neither student.safetensors nor last_policy.safetensors nor {_POLICY_OF_HUBS}; "
            f"{next(others, 'this is not a run folder.')}"
        )


def _described(file: FileStart) -> str:
    head = file.head
    if "_stable_baselines3_version" in file.members:
        return (
            "a zip of SBX, or of another library on Stable-Baselines3, without policy.pth: its network is pickled, and "
            "was not opened. Export its policy to ONNX where that library is installed, and load that"
        )
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


PROGRAMS: frozenset[FileKind] = frozenset(item.kind for item in FORMATS if "outputs" in item.words)
"""Kinds of files that do not say what their outputs are."""
# What is said of all files of a command at once.
_SHARED_WORDS = ("input_scale", "activation", "normalizer")
_BY_KIND: Mapping[FileKind, Format] = {item.kind: item for item in FORMATS}


@verb(LoadOptions)
def load_policy(options: LoadOptions) -> LoadedPolicy | SightedPolicy:
    """Load a policy; nothing in a file is executed unless `trust` says so.

    Returns:
        The policy: `act`, `initial_state`, `tasks`, `behaviour`, `hash`; `save`, unless it is a program.

    Raises:
        PolicyFileError: the file cannot be read as a policy, or is a program and not trusted.
        UsageError: something must be said that the source does not tell, or was said and does not apply.
        MismatchError: the policy does not fit the task.
    """
    source, module = options.source, options.module
    if module is not None and not isinstance(module, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance] Python lets anything in
        raise UsageError(f"load_policy: got module={_shown(module)}, expected an nn.Module, such as Net().")
    if options.env_kwargs and options.task is None:
        raise UsageError("load_policy: env_kwargs are settings of task, which is missing.")
    whole, device = _task(options.task, options.env_kwargs), resolve_device(options.device)
    if whole is None and options.teacher_sees is not None:
        raise UsageError("load_policy: teacher_sees chooses parts of the observations of task, which is missing.")
    sight = None if whole is None else choose_parts("teacher_sees", options.teacher_sees, options.names, whole)
    # What sees some parts is loaded for a task that shows no others.
    task = None if whole is None else shown_to(whole, sight)
    if isinstance(source, str | Path):
        if options.initial_state is not None:
            raise UsageError("load_policy: initial_state belongs with a module or a function: files say theirs.")
        path, said = policy_file_of(Path(source)), options.as_reading()
        policy = load_with(path, said, device=options.device, task=task, module=module, must_fit=sight is None)
    elif any(hint is not None for hint in (module, options.input_scale, options.activation, options.normalizer)):
        raise UsageError("load_policy: module, input_scale, activation and normalizer belong with a file.")
    elif not callable(source) or isinstance(source, type) or hint_to_save(source):
        raise UsageError(
            f"load_policy: got {_shown(source)}, expected a path, an nn.Module, or a function of observations."
            f"{hint_to_save(source)}"
        )
    else:
        initial = () if options.initial_state is None else initial_parts(options.initial_state)
        outputs, behaviour = options.outputs, options.behaviour or "greedy"
        if isinstance(source, nn.Module):
            policy = module_policy(source, task, outputs=outputs, behaviour=behaviour, initial=initial)
            policy = policy.to(device)
        else:
            policy = function_policy(source, task, outputs=outputs, behaviour=behaviour, initial=initial)
        _check_sampling(policy, options.behaviour)
    if whole is None or sight is None:
        return policy
    check_takes_parts(policy, sight, str(source) if isinstance(source, str | Path) else f"Policy {policy.name!r}")
    return SightedPolicy(policy, whole, sight)


def load_with(
    path: Path,
    reading: Reading,
    *,
    device: str,
    task: Task | None,
    module: nn.Module | None = None,
    must_fit: bool = False,
) -> LoadedPolicy:
    """Load a policy with what a user says of this file; raises as `load_policy`.

    Unless it must, a file that says its own task need not fit another: play will tell.
    """
    with reading_file(f"Policy file {path}", PolicyFileError):
        found = detect_format(path)
        check_reading(path, found.kind, reading, module=module)
        # Before the file is read, which may take long: a device that is not there is the user's to correct.
        target = resolve_device(device)
        policy = found.load(path, reading, task, module)
        if isinstance(policy, TorchPolicy):
            policy = policy.to(target)
            # Weights for a module of the user's say nothing that could contradict them.
            if module is None or found.kind != "weights":
                policy = _of_its_own_word(policy, path, task if must_fit or not found.says_task else None, reading)
    _check_sampling(policy, reading.behaviour)
    return policy


def check_reading(path: Path, kind: FileKind, reading: Reading, *, module: nn.Module | None = None) -> None:
    """Check that what a user says of a file applies to files of its kind; raises UsageError, which names the words."""
    said = {"module": module} | {word: getattr(reading, word) for word in _SHARED_WORDS}
    beyond = [name for name, value in said.items() if value is not None and name not in _BY_KIND[kind].words]
    if beyond:
        raise UsageError(f"{path} ({_BY_KIND[kind].name}) takes no {' and no '.join(beyond)}. Leave it out.")


def acting(policy: LoadedPolicy, behaviour: Behaviour | None) -> LoadedPolicy:
    """Return a policy all of whose heads act so; None: as its file says."""
    if behaviour is None or all(policy.for_task(own.name).behaviour == behaviour for own in policy.tasks):
        return policy
    return policy.acting(behaviour)


def share_words(paths: Sequence[Path], reading: Reading) -> list[Reading]:
    """Return, of what a user says of several files at once, what each of them does not say itself.

    Raises:
        PolicyFileError: one of the files is none.
        UsageError: a word applies to none of them.
    """
    words = [word for word in ("outputs", *_SHARED_WORDS) if getattr(reading, word) is not None]
    if not words:
        return [reading] * len(paths)
    formats = [detect_format(path) for path in paths]
    taken = {word for word in words if any(word in item.words for item in formats)}
    if beyond := [word for word in words if word in _SHARED_WORDS and word not in taken]:
        listing = ", ".join(f"{path} ({item.name})" for path, item in zip(paths, formats, strict=True))
        raise UsageError(f"{beyond[0]}: none of these files takes one: {listing}. Leave it out.")
    # Outputs that no program takes are compared with what each file says.
    return [replace(reading, **dict.fromkeys(taken - item.words)) for item in formats]


def _task(task: TaskLike | None, env_kwargs: Mapping[str, Any] | None) -> Task | None:
    # A record is complete as it is: nothing needs to be playable for a file to be read.
    return task if task is None or (isinstance(task, Task) and not env_kwargs) else make_task(task, env_kwargs).task


def hint_to_save(source: object) -> str:
    """Return how a model of Stable-Baselines3 that is in memory, or its policy, is loaded; of other objects nothing."""
    is_model = isinstance(getattr(source, "policy", None), nn.Module) and hasattr(source, "save")
    # Its module answers actions, values and log-probabilities, and no logits.
    is_policy = any(base.__module__ == "stable_baselines3.common.policies" for base in type(source).__mro__)
    if not is_policy and (not is_model or isinstance(source, nn.Module)):
        return ""
    return (
        " Save a model of Stable-Baselines3 first, model.save('model.zip') and env.save('vecnormalize.pkl') of its "
        "VecNormalize in the same folder, and name the zip."
    )


def _shown(source: object) -> str:
    return f"the class {source.__name__}" if isinstance(source, type) else f"a {type(source).__name__}"


def _check_sampling(policy: LoadedPolicy, behaviour: Behaviour | None) -> None:
    """Check, where a user says that a policy draws its actions, that it says what to draw them from."""
    if behaviour != "sample":
        return
    check_can_sample(policy.name, policy.output_kind)
    if policy.output_kind == "q_values":
        warn(
            f"Policy {policy.name!r} gives Q-values, which are no chances: sampled, it draws from their softmax at "
            "temperature 1."
        )


def _of_its_own_word(policy: TorchPolicy, path: Path, task: Task | None, reading: Reading) -> TorchPolicy:
    """Return a policy whose file says everything itself, after comparing that with what the user says."""
    outputs = reading.outputs
    own = {OutputDeclaration(policy.output_kind)} | ({BETA_MEANS} if policy.spec.is_beta else set())
    squashes = policy.tasks[0].fingerprint.action_layout.mapping == "tanh_rescale"
    own |= {TANH_ACTIONS} if squashes and policy.output_kind == "actions" else set()
    if outputs is not None and parse_outputs(outputs) not in own:
        raise UsageError(f"{path} says itself that its outputs are {policy.output_kind}: got outputs={outputs!r}.")
    acts = acting(policy, reading.behaviour)
    assert isinstance(acts, TorchPolicy), "a policy of ours stays one"
    if task is None:
        return acts
    # What a teacher saw beside its environment's observations, such as a clock, its file says itself.
    head = acts.for_task(task.name) if task.name in [own.name for own in acts.tasks] else acts
    fitted = fit_policy(acts, observed_as(task, head.tasks[0].fingerprint))
    assert isinstance(fitted, TorchPolicy), "a policy of ours stays one"
    return fitted
