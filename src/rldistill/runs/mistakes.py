"""The usual silent mistakes between a teacher's file and the teacher: what is done here, and what else could be tried.

None of them raises an error by itself; each may turn a good policy into one that plays at random. What another
reading would score is found by playing it, and says what *would explain* a gap, not what does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium
import torch

from rldistill.adapters.program import ProgramPolicy
from rldistill.adapters.sb3.beside import find_normalizer
from rldistill.adapters.sb3.load import load_sb3
from rldistill.envs import PlayableTask, make_task
from rldistill.envs.versions import older_versions_allowed, other_versions
from rldistill.errors import RldistillError
from rldistill.networks import PolicyNetwork
from rldistill.networks.architecture import Activation
from rldistill.networks.outputs import OutputDeclaration
from rldistill.policies import HeadSpec, Policy, TorchPolicy, fit_policy
from rldistill.policies.behaviour import Behaviour
from rldistill.policies.padded import probe_rows
from rldistill.tasks import Task
from rldistill.types import ActionLayout

# A clock that is at its beginning for ever.
_STANDING_CLOCK = 10**9
_USUAL_ACTIVATIONS: tuple[Activation, ...] = ("relu", "tanh")
_HIDDEN_INSIDE = "inside the program, not to be seen"


@dataclass(frozen=True)
class Trial:
    """Another reading of the same file.

    Attributes:
        change: what differs: `without its normaliser`.
        policy: read so.
        playable: what it plays.
    """

    change: str
    policy: Policy
    playable: PlayableTask


@dataclass(frozen=True)
class Suspect:
    """One of the usual mistakes.

    Attributes:
        name: of what may be wrong.
        as_played: what is done here.
        make_trials: other readings that can be played.
        note: what the files say against it, or why it cannot be tried.
        likely: what speaks for it, and what to do, where it cannot be tried.
    """

    name: str
    as_played: str
    make_trials: Callable[[], list[Trial]] = list
    note: str | None = None
    likely: str | None = None


def suspects(policy: Policy, playable: PlayableTask, path: Path | None = None) -> list[Suspect]:
    """Return the usual mistakes, in the order of how often they are made.

    Args:
        policy: that plays, with its head of the task.
        playable: what it plays.
        path: of its file, where there is one.
    """
    if isinstance(policy, TorchPolicy):
        policy = policy.single_task(policy.tasks[0].name)
    found = [
        _normalizer(policy, playable, path),
        _activation(policy, playable),
        _action_scaling(policy, playable),
        _quantile_order(policy),
        _time_feature(policy, playable),
        _environment_version(policy, playable),
        _behaviour(policy, playable),
    ]
    return [suspect for suspect in found if suspect is not None]


def _normalizer(policy: Policy, playable: PlayableTask, path: Path | None) -> Suspect:
    if not isinstance(policy, TorchPolicy):
        return Suspect("normaliser", _HIDDEN_INSIDE)
    statistics = policy.normalization
    if statistics is not None:
        as_played = f"applied, clipped to ±{statistics.clip:g}" if statistics.clips else "applied, not clipped"

        def without() -> list[Trial]:
            return [Trial("without its normaliser", _rebuilt(policy, normalization=None), playable)]

        return Suspect("normaliser", as_played, without)
    beside = None if path is None or source_of(policy).get("format") != "stable-baselines3" else find_normalizer(path)
    if path is not None and beside is not None:

        def with_it() -> list[Trial]:
            loaded = load_sb3(path, task=playable.task, normalizer=beside)
            return [Trial(f"with {beside.name}", fit_policy(loaded, playable.task), playable)]

        return Suspect("normaliser", "none", with_it, f"{beside.name} lies beside it and is not used")
    notes = source_of(policy).get("notes")
    missing = [str(note) for note in notes if "missing" in str(note)] if isinstance(notes, list) else []
    return Suspect("normaliser", "none", note="missing, and nothing to try in its place" if missing else None)


def _activation(policy: Policy, playable: PlayableTask) -> Suspect | None:
    if not isinstance(policy, TorchPolicy) or policy.spec.architecture is None:
        return Suspect("activation", _HIDDEN_INSIDE)
    architecture = policy.spec.architecture
    if not (architecture.hidden or architecture.channels or architecture.head_hidden):
        return None

    def others() -> list[Trial]:
        readings = [name for name in _USUAL_ACTIVATIONS if name != architecture.activation]
        changed = [(name, replace(architecture, activation=name)) for name in readings]
        return [Trial(f"with {name}", _rebuilt(policy, architecture=other), playable) for name, other in changed]

    return Suspect("activation", architecture.activation, others)


def _action_scaling(policy: Policy, playable: PlayableTask) -> Suspect | None:
    layout = policy.tasks[0].fingerprint.action_layout
    if not layout.is_continuous:
        return None
    has_own_units = policy.output_kind == "actions" and not _is_rebuildable(policy)
    bounds = f"[{min(layout.low):g}, {max(layout.high):g}]"
    if has_own_units:
        declared = policy.outputs if isinstance(policy, ProgramPolicy) else _declared(policy)
        if declared is not None and declared.is_scaled:
            return Suspect("action scaling", f"rescaled from [-1, 1] to {bounds}, as declared")
        note = "scaled inside the program, if at all"
        return Suspect("action scaling", f"clipped to {bounds}", note=note, likely=_unscaled(policy, bounds))
    squashes = layout.mapping == "tanh_rescale"
    as_played = f"tanh, then rescaled to {bounds}" if squashes else f"clipped to {bounds}"

    def others() -> list[Trial]:
        return [Trial(change, _with_layout(policy, other), playable) for change, other in _other_layouts(layout)]

    return Suspect("action scaling", as_played, others)


def _declared(policy: Policy) -> OutputDeclaration | None:
    return policy.spec.declared_outputs if isinstance(policy, TorchPolicy) else None


def _unscaled(policy: Policy, bounds: str) -> str | None:
    """Return what speaks for answers of which ±1 stands for the bounds: they stay within it, whatever is observed."""
    fingerprint = policy.tasks[0].fingerprint
    layout = fingerprint.action_layout
    ends = [abs(bound) for bound in (*layout.low, *layout.high)]
    if not layout.is_bounded or set(ends) == {1.0}:
        return None
    rows = probe_rows(fingerprint, 64)
    if rows.is_floating_point():
        rows = (rows - 0.5) * torch.logspace(0, 1, len(rows)).reshape(-1, *[1] * (rows.dim() - 1))
    try:
        largest = float(policy(rows)[0].raw.abs().max())
    except RldistillError:
        return None  # it takes only what its environment shows
    if largest > 1 or (max(ends) <= 1 and largest <= min(ends)):
        return None
    return (
        f"its actions stay within ±1, and the box is {bounds}. If ±1 stands for the box's bounds, as in exports of "
        "Stable-Baselines3's actors, say --outputs actions=rescale, or --outputs 'actions=rescale(NAME)'"
    )


def _other_layouts(layout: ActionLayout) -> list[tuple[str, ActionLayout]]:
    ones = (1.0,) * len(layout.low)
    minus_ones = tuple(-one for one in ones)
    unscaled = replace(layout, low=minus_ones, high=ones, mapping="tanh_rescale")
    if layout.mapping == "tanh_rescale":
        others = [("clipped, without tanh", replace(layout, mapping="clip"))]
        return others if unscaled == layout else [*others, ("tanh, not rescaled", unscaled)]
    is_bounded = all(width < float("inf") for width in layout.widths)
    return [("tanh, then rescaled", replace(layout, mapping="tanh_rescale"))] if is_bounded else []


def _quantile_order(policy: Policy) -> Suspect | None:
    if source_of(policy).get("algorithm") != "qrdqn":
        return None
    return Suspect(
        "quantile order", "averaged for each action, quantiles outermost", note="folded into the weights: not tried"
    )


def _time_feature(policy: Policy, playable: PlayableTask) -> Suspect:
    fingerprint = policy.tasks[0].fingerprint
    length = fingerprint.time_feature
    if length is None:
        return Suspect("time feature", "none")

    def others() -> list[Trial]:
        limit = _time_limit(playable.task.name)
        lengths = {f"with T = {limit}": limit} if limit not in (None, length) else {}
        return [
            trial
            for change, other in {**lengths, "with a clock that stands still": _STANDING_CLOCK}.items()
            if (trial := _with_clock(policy, playable, change, other)) is not None
        ]

    return Suspect("time feature", f"1 − t / {length}", others)


def _with_clock(policy: Policy, playable: PlayableTask, change: str, length: int | None) -> Trial | None:
    task = policy.tasks[0]
    read = _with_task(policy, replace(task, fingerprint=replace(task.fingerprint, time_feature=length)))
    return None if read is None else Trial(change, read, playable.observed_as(read.tasks[0].fingerprint))


def _environment_version(policy: Policy, playable: PlayableTask) -> Suspect:
    made_for, played = policy.tasks[0].name, playable.task.name
    environment = source_of(policy).get("environment")
    made_for = environment if isinstance(environment, str) else made_for
    as_played = played if made_for == played else f"{played}, made for {made_for}"

    def others() -> list[Trial]:
        trials: list[Trial] = []
        for name in [] if playable.task.is_atari else other_versions(played):
            try:
                with older_versions_allowed():
                    made = make_task(name, playable.task.environment_kwargs)
                other = made.observed_as(policy.tasks[0].fingerprint)
                trials.append(Trial(f"on {name}", fit_policy(policy, other.task), other))
            except RldistillError:
                continue  # gone, of other observations, or without these settings: it is not the one
        return trials

    return Suspect("environment version", as_played, others)


def _behaviour(policy: Policy, playable: PlayableTask) -> Suspect:
    if policy.output_kind == "actions":
        return Suspect("greedy or sampling", "deterministic")
    # Q-values are no distribution: a softmax of them plays at a temperature that nobody chose.
    if policy.output_kind == "q_values" and policy.behaviour == "greedy":
        return Suspect("greedy or sampling", policy.behaviour)
    other: Behaviour = "sample" if policy.behaviour == "greedy" else "greedy"

    def others() -> list[Trial]:
        changed = _with_behaviour(policy, other)
        return [] if changed is None else [Trial("sampling" if other == "sample" else "greedy", changed, playable)]

    return Suspect("greedy or sampling", policy.behaviour, others)


def source_of(policy: Policy) -> dict[str, Any]:
    """Return what a policy's file says of the file that it was converted from; a stranger's may say anything."""
    source = policy.spec.provenance.get("source") if isinstance(policy, TorchPolicy) else None
    return dict(source) if isinstance(source, dict) else {}


def _is_rebuildable(policy: Policy) -> bool:
    return isinstance(policy, TorchPolicy) and policy.spec.architecture is not None


def _rebuilt(policy: TorchPolicy, **changes: object) -> TorchPolicy:
    """Return the same weights under a changed description; those that it has no place for are left out."""
    spec = replace(policy.spec, **changes)
    assert spec.architecture is not None, "only networks of ours are rebuilt"
    # On the meta device nothing is drawn: the caller's random numbers are left alone.
    with torch.device("meta"):
        network = PolicyNetwork(
            spec.architecture,
            spec.observation_shape,
            spec.output_layers,
            parts=spec.observation_parts,
            input_scale=spec.input_scale,
            normalization=spec.empty_normalization,
        )
    names = network.state_dict().keys()
    state = {name: tensor for name, tensor in policy.network.state_dict().items() if name in names}
    network.load_state_dict(state, assign=True)
    network.use_channels_last()
    return TorchPolicy(network, spec)


def _with_layout(policy: Policy, layout: ActionLayout) -> Policy:
    task = policy.tasks[0]
    changed = _with_task(policy, replace(task, fingerprint=replace(task.fingerprint, action_layout=layout)))
    assert changed is not None, "only policies that can be read otherwise are asked to"
    return changed


def _with_task(policy: Policy, task: Task) -> Policy | None:
    if isinstance(policy, ProgramPolicy):
        return ProgramPolicy(
            policy.program, task, policy.outputs, behaviour=policy.behaviour, input_scale=policy.input_scale
        )
    if not isinstance(policy, TorchPolicy):
        return None
    heads: Sequence[HeadSpec] = (replace(policy.spec.heads[0], task=task),)
    if policy.spec.architecture is None:
        return policy.with_spec(heads=heads)
    return _rebuilt(policy, heads=heads)


def _with_behaviour(policy: Policy, behaviour: Behaviour) -> Policy | None:
    if isinstance(policy, ProgramPolicy):
        return ProgramPolicy(
            policy.program, policy.tasks[0], policy.outputs, behaviour=behaviour, input_scale=policy.input_scale
        )
    if isinstance(policy, TorchPolicy):
        return policy.with_spec(heads=(HeadSpec(policy.tasks[0], behaviour),))
    return None


def _time_limit(name: str) -> int | None:
    spec = gymnasium.registry.get(name)
    return None if spec is None else spec.max_episode_steps
