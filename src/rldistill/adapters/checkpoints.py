"""Checkpoints: files of `torch.save` and flax, and bare safetensors, read as data and known by their tensors' names."""

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

from torch import nn
from torch.nn.parameter import is_lazy

from rldistill.adapters import contents
from rldistill.adapters.cleanrl import find_cleanrl
from rldistill.adapters.contents import UnknownLayersError, shown_tensors
from rldistill.adapters.flax_file import find_flax, is_flax, read_flax
from rldistill.adapters.formats import OWN_MODULE, FileStart, Format, FoundNetwork, Said, build_policy, warn
from rldistill.adapters.in_process import check_module, module_policy
from rldistill.adapters.normalizer_file import normalization_for
from rldistill.adapters.rl_games import find_rl_games
from rldistill.adapters.rsl_rl import find_rsl_rl
from rldistill.adapters.skrl import find_skrl, refuse_own_module
from rldistill.adapters.weights import is_safetensors, read_tensors, unwrapped_names
from rldistill.errors import PolicyFileError, UsageError, first_line
from rldistill.limits import HEADER, read_json
from rldistill.networks import InputNormalization
from rldistill.networks.architecture import Activation
from rldistill.networks.outputs import parse_outputs
from rldistill.options.reading import WITHOUT_NORMALIZER, Reading
from rldistill.policies import TorchPolicy
from rldistill.policies.file_format import METADATA_KEY, check_header
from rldistill.tasks import Task

LIBRARIES: Mapping[str, Callable[[object, Said], FoundNetwork | None]] = {
    "rsl_rl": find_rsl_rl,
    "rl_games": find_rl_games,
    "skrl": find_skrl,
    "CleanRL": lambda content, said: find_cleanrl(content, said) or find_flax(content, said),
}
"""Whose checkpoints are read: by name what returns the network that acts, None where it is another library's file."""
MAX_BYTES = 2**31
"""Of a file: a policy of 500 million float32 weights, or a tenth of that with an optimiser's state."""
# What the weights in a zip of Stable-Baselines3 are called.
_OF_SB3 = re.compile(r"(mlp_extractor|(pi_|q_net\.)?features_extractor|q_net\.q_net|actor\.(latent_pi|mu))\.")
# What torch.save wrote before 2020 begins with: a pickle of its own magic number.
_OLD_TORCH = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
# Not part of the note that the policy keeps: what can be done is no part of its identity.
_SAVE_STATISTICS = "Save their mean and var to an .npz and name it with --normalizer (in Python normalizer=)."


def _is_checkpoint(file: FileStart) -> bool:
    is_of_torch = "data.pkl" in file.below_root or file.head.startswith(_OLD_TORCH)
    return is_of_torch or is_flax(file.head) or _is_bare_safetensors(file)


def _is_bare_safetensors(file: FileStart) -> bool:
    """Are these tensors by name without our description? What is damaged is left to the reader of policy files."""
    if not is_safetensors(file.head):
        return False
    check_header(file.head, source=f"Policy file {file.path}")
    with file.path.open("rb") as opened:
        opened.seek(8)
        try:
            header = read_json(opened.read(int.from_bytes(file.head[:8], "little")), HEADER)
            return METADATA_KEY not in header.get("__metadata__", {})
        except (ValueError, AttributeError, TypeError):
            return False


def _load(path: Path, reading: Reading, task: Task | None, module: nn.Module | None) -> TorchPolicy:
    if module is not None:
        return _load_into_module(path, reading, task, module)
    declared = None if reading.outputs is None else parse_outputs(reading.outputs)
    if declared is not None and declared.is_scaled:
        raise UsageError(
            f"Policy file {path} is a checkpoint, and rescale belongs with programs: got outputs={reading.outputs!r}. "
            "Say --outputs actions, or actions=tanh where a tanh follows its last layer, whose -1 and 1 stand for the "
            "bounds of the task's box."
        )
    said = Said(path, task, _activation(reading.activation), declared, reading.normalizer, reading.input_scale)
    content, converted_from = _content(path)
    # Statistics change what every layer above them sees: they come in before the policy is made, and are in its hash.
    found = _with_normalizer(_scaled(_find(content, said), said), content, said)
    policy = build_policy(found, said, reading.behaviour, converted_from)
    for guess in found.guesses:
        warn(f"{said.source}: {guess}")
    for note in found.notes:
        # What can be done is told here and not recorded: it is no part of the policy.
        remedy = f" {_SAVE_STATISTICS}" if note == found.without_normalizer else ""
        warn(f"{said.source}: {note}{remedy}")
    return policy


_WORDS = frozenset({"module", "activation", "normalizer", "input_scale"})
CHECKPOINT = Format("weights", "checkpoint", _is_checkpoint, _load, _WORDS)


def _find(content: object, said: Said) -> FoundNetwork:
    try:
        for find in LIBRARIES.values():
            if (found := find(content, said)) is not None:
                return found
        first, *_ = contents.known_state_dicts(said.source, content)
        if any(map(_OF_SB3.match, first)):
            raise PolicyFileError(
                f"{said.source} holds the weights of a zip of Stable-Baselines3 (policy.pth), and not what the zip "
                "says of them: spaces, activation, algorithm. Load the .zip itself."
            )
        raise UnknownLayersError(f"got {shown_tensors(first)}, expected those of {', '.join(sorted(LIBRARIES))}")
    # The last three: shapes that no layer has, numbers that no description holds.
    except (UnknownLayersError, ValueError, LookupError, TypeError) as error:
        raise PolicyFileError(f"{said.source}: its layers are not known: {first_line(error)}. {OWN_MODULE}") from error


def _scaled(found: FoundNetwork, said: Said) -> FoundNetwork:
    """Return a network with the factor on its images that its user names. Raises UsageError: it takes no images."""
    if said.input_scale is None:
        return found
    if not found.layers.first.is_convolution:
        raise UsageError(f"{said.path} ({CHECKPOINT.name}) takes no input_scale. Leave it out.")
    return replace(found, layers=replace(found.layers, input_scale=said.input_scale))


def _with_normalizer(found: FoundNetwork, content: object, said: Said) -> FoundNetwork:
    """Return a network with the running statistics that its user names, or that its file holds, or without any."""
    beside = [] if found.holds_statistics else contents.statistics_beside(content)
    if said.normalizer == WITHOUT_NORMALIZER:
        return replace(found, layers=replace(found.layers, normalization=None))
    if said.normalizer is not None:
        normalization, entry = _named_normalization(found, said.normalizer, said.source)
    elif beside:
        numbers = contents.mean_and_variance(beside[0], said.source) if len(beside) == 1 else None
        if found.clip is None or numbers is None or len(numbers[0]) != found.num_inputs:
            raise contents.unused_statistics(said.source, beside)
        normalization = InputNormalization(*numbers, epsilon=1e-8, clip=found.clip)
        entry = {"inside": contents.names_of(beside)}
    else:
        unsaid = () if found.without_normalizer is None else (found.without_normalizer,)
        return replace(found, notes=(*found.notes, *unsaid))
    return replace(found, layers=replace(found.layers, normalization=normalization), normalizer=entry)


def _named_normalization(
    found: FoundNetwork, normalizer: str | Path, source: str
) -> tuple[InputNormalization | None, dict[str, object]]:
    if found.layers.normalization is not None:
        raise UsageError(f"{source} holds the statistics of its observations itself: leave normalizer out.")
    what = f"{source} ({found.label})"
    if found.layers.first.is_convolution:
        raise UsageError(f"{what} takes images, which are not normalised by running statistics: leave normalizer out.")
    return normalization_for(Path(normalizer), found.num_inputs, policy=what)


def _load_into_module(path: Path, reading: Reading, task: Task | None, module: nn.Module) -> TorchPolicy:
    """Return a policy around a module, after replacing its weights; nothing of it is replaced if that fails."""
    source, outputs, normalizer = f"Policy file {path}", reading.outputs, reading.normalizer
    for word in ("activation", "input_scale"):
        if (value := getattr(reading, word)) is not None:
            raise UsageError(
                f"load_policy: got {word}={value!r} with a module of your own, which has its own. Leave it out."
            )
    task, _ = check_module(module, task, outputs)
    normalization = None
    if normalizer not in (None, WITHOUT_NORMALIZER):
        num_inputs = math.prod(task.fingerprint.observation_shape)
        normalization, _ = normalization_for(Path(normalizer), num_inputs, policy=source)
    buffers = unwrapped_names([name for name, _ in module.named_buffers()])
    content, _ = _content(path, may_be_infinite=buffers)
    dicts = contents.known_state_dicts(source, content)
    if normalizer is None and (beside := contents.statistics_beside(content)):
        raise contents.unused_statistics(source, beside)
    # Names and shapes are all compared before anything is replaced: a module of the user is filled whole or not at all.
    own = module.state_dict()
    if lazy := [name for name, tensor in own.items() if is_lazy(tensor)]:
        raise UsageError(
            f"Module {type(module).__name__}: weight {lazy[0]} has no shape yet. Call the module on a batch of "
            "observations before you pass it."
        )
    names = dict(zip(unwrapped_names(own), own, strict=True))
    for tensors in dicts:
        if {name: tensor.shape for name, tensor in tensors.items()} == {n: own[names[n]].shape for n in names}:
            module.load_state_dict({names[name]: tensor for name, tensor in tensors.items()})
            acts = reading.behaviour or "greedy"
            return module_policy(module, task, outputs=outputs, behaviour=acts, normalization=normalization)
    raise PolicyFileError(
        f"{source}: its tensors are not those of {type(module).__name__}: got {shown_tensors(dicts[0])}, expected "
        f"{shown_tensors(own)}. Pass the module that it was saved from."
    )


def _content(path: Path, *, may_be_infinite: Collection[str] = ()) -> tuple[object, tuple[str, ...]]:
    """Return what a file holds, its state dicts checked, and the floating types that were converted."""
    source, num_bytes = f"Policy file {path}", path.stat().st_size
    if num_bytes > MAX_BYTES:
        raise PolicyFileError(
            f"{source} takes {num_bytes / 2**20:,.0f} MiB, the most that is read is {MAX_BYTES // 2**20} MiB. Save the "
            "state dict of the actor alone."
        )
    data = path.read_bytes()
    content = read_flax(data, source=source) if is_flax(data[:64]) else read_tensors(data, source=source)
    refuse_own_module(content, source)
    return contents.checked_content(content, source, may_be_infinite=may_be_infinite)


def _activation(name: str | None) -> Activation | None:
    if name is not None and name not in get_args(Activation):
        raise UsageError(f"activation: got {name!r}, expected one of {', '.join(get_args(Activation))}.")
    return cast(Activation | None, name)
