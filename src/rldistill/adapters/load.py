"""A policy from whatever holds one: the file's content, not its name, decides how it is read."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rldistill.adapters.checkpoints import load_checkpoint, load_into_module
from rldistill.adapters.detect import FileKind, detect_kind
from rldistill.adapters.functions import function_policy, module_policy
from rldistill.adapters.onnx_program import load_onnx
from rldistill.adapters.outputs import OutputDeclaration, parse_outputs
from rldistill.adapters.program import Program, ProgramPolicy
from rldistill.adapters.sb3.load import load_sb3
from rldistill.adapters.torch_programs import load_exported, load_torchscript
from rldistill.envs.make import TaskLike, make_task
from rldistill.errors import UsageError
from rldistill.policies import HeadSpec, TorchPolicy, files, fit_policy
from rldistill.policies.behaviour import Behaviour
from rldistill.tasks import Task
from rldistill.types import resolve_device

PolicySource = str | Path | nn.Module | Callable[[Tensor], Any]
LoadedPolicy = TorchPolicy | ProgramPolicy

_PROGRAMS = frozenset({"onnx", "torchscript", "torch_export"})


def load_policy(
    source: PolicySource,
    *,
    device: str = "cpu",
    module: nn.Module | None = None,
    trust: bool = False,
    task: TaskLike | None = None,
    outputs: str | None = None,
    behaviour: Behaviour | None = None,
    input_scale: float | None = None,
    activation: str | None = None,
    normalizer: str | Path | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
) -> LoadedPolicy:
    """Load a policy; nothing in a file is executed unless `trust` says so.

    Args:
        source: a policy file, a file of another library, an `nn.Module`, or a function from observations to outputs.
        device: `auto`, `cpu` or `cuda`; programs run on the CPU.
        module: for weights whose network is a module of one's own: that module, whose weights are replaced in place.
        trust: whether files that are programs (TorchScript, torch.export) may run.
        task: that it plays, for sources that do not say it themselves.
        outputs: what its outputs are, for sources that do not say it: `q_values`, `logits`, `gaussian` or `actions`;
            of several outputs also which, such as `logits=policy` or `gaussian=mu,log_std`.
        behaviour: how it acts, `greedy` or `sample`; None: as the file says, else greedily.
        input_scale: of programs that take floats where the environment gives bytes: the factor to apply.
        activation: of checkpoints that do not say it (rsl_rl's): `elu`, `relu`, `tanh`, …
        normalizer: of Stable-Baselines3 zips: their `vecnormalize.pkl`; None: the one beside it; `"none"`: without.
        env_kwargs: settings of the task.

    Raises:
        PolicyFileError: the file cannot be read as a policy, or is a program and not trusted.
        UsageError: something must be said that the source does not tell, or was said and does not apply.
        MismatchError: the policy does not fit the task.
    """
    named = _task(task, env_kwargs)
    if not isinstance(source, str | Path):
        return _from_object(source, named, device=device, outputs=outputs, behaviour=behaviour or "greedy")
    path = Path(source)
    kind = detect_kind(path)
    what = f"Policy file {path}"
    if kind == "weights" and module is not None:
        policy = load_into_module(path, module, named, outputs=outputs, behaviour=behaviour)
        return policy.to(resolve_device(device))
    if kind in _PROGRAMS:
        resolve_device(device)  # refuses what is not there; programs run on the CPU
        program = _load_program(path, kind, trust=trust)
        return ProgramPolicy.create(
            program, named, outputs=outputs, behaviour=behaviour or "greedy", input_scale=input_scale
        )
    if kind == "policy":
        policy = files.load_policy(path, device=device, module=module)
    elif kind == "sb3":
        policy = load_sb3(path, device=device, task=None if named is None else named.name, normalizer=normalizer)
    else:
        policy = load_checkpoint(path, named, behaviour=behaviour, activation=activation).to(resolve_device(device))
    return _of_its_own_word(policy, what, named, outputs=outputs, behaviour=behaviour)


def _task(task: TaskLike | None, env_kwargs: Mapping[str, Any] | None) -> Task | None:
    # A record is complete as it is: nothing needs to be playable for a file to be read.
    return task if task is None or (isinstance(task, Task) and not env_kwargs) else make_task(task, env_kwargs).task


def _from_object(
    source: nn.Module | Callable[[Tensor], Any],
    task: Task | None,
    *,
    device: str,
    outputs: str | None,
    behaviour: Behaviour,
) -> LoadedPolicy:
    if isinstance(source, nn.Module):
        return module_policy(source, task, outputs=outputs, behaviour=behaviour).to(resolve_device(device))
    if not callable(source):
        raise UsageError(
            f"load_policy: got a {type(source).__name__}, expected a path, an nn.Module, or a function of observations."
        )
    return function_policy(source, task, outputs=outputs, behaviour=behaviour)


def _of_its_own_word(
    policy: TorchPolicy, what: str, task: Task | None, *, outputs: str | None, behaviour: Behaviour | None
) -> TorchPolicy:
    """Return a policy whose file says everything itself, after comparing that with what the user says."""
    if outputs is not None and parse_outputs(outputs) != OutputDeclaration(policy.output_kind):
        raise UsageError(f"{what} says itself that its outputs are {policy.output_kind}: got outputs={outputs!r}.")
    if behaviour is not None and any(policy.for_task(own.name).behaviour != behaviour for own in policy.tasks):
        heads = tuple(HeadSpec(head.task) for head in policy.spec.heads)
        policy = policy.with_spec(heads=heads, behaviour=behaviour)
    if task is not None:
        fitted = fit_policy(policy, task)
        assert isinstance(fitted, TorchPolicy), "a policy of ours stays one"
        return fitted
    return policy


def _load_program(path: Path, kind: FileKind, *, trust: bool) -> Program:
    if kind == "torchscript":
        return load_torchscript(path, trust=trust)
    if kind == "torch_export":
        return load_exported(path, trust=trust)
    return load_onnx(path)
