"""The contract of a policy: what goes in, what comes out, in which units and in which order, as one JSON.

Most robots that fall do so because of an order of joints, a scale or a missing input that two programs understood
differently. The contract says all of it term by term; it lies beside every export, and in an ONNX file's metadata too.
docs/export.md documents the schema.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, cast

from rldistill.checks import is_finite
from rldistill.errors import RldistillError, UsageError, printable, shown
from rldistill.exports.names import Names, Term, seen_names
from rldistill.exports.states import state_parts
from rldistill.networks import InputNormalization, PolicyNetwork
from rldistill.networks.combined_torso import CombinedTorso
from rldistill.policies import TorchPolicy
from rldistill.policies.input_statistics import observed_statistics

CONTRACT_VERSION = 1
_ATARI_FRAMES_PER_SECOND = 60


@dataclass(frozen=True)
class Retention:
    """How much of its teacher's skill a policy keeps, as it was measured."""

    value: float
    interval: tuple[float, float] | None  # 95 %
    teacher_hash: str
    num_episodes: int


@dataclass(frozen=True)
class Score:
    """What a policy scores on its task, as it was measured."""

    mean: float
    interval: tuple[float, float] | None  # 95 %
    num_episodes: int


def make_contract(
    policy: TorchPolicy,
    names: Names,
    retention: Retention | None,
    *,
    precision: str = "float32",
    tuned_from: str | None = None,
) -> dict[str, Any]:
    """Return the contract of the head that a policy plays, as plain JSON data.

    Args:
        policy: that is described.
        names: of the numbers that go in and come out.
        retention: as it was measured, with these weights in float32.
        precision: of the exported weights.
        tuned_from: hash of the policy that this one was fine-tuned from for that precision.

    Raises:
        UsageError: the names are not as many as the numbers.
    """
    task = policy.tasks[0]
    fingerprint = replace(policy.spec.seen, action_layout=task.fingerprint.action_layout)
    rate = _ATARI_FRAMES_PER_SECOND / fingerprint.frame_skip if task.is_atari else names.control_rate_hz
    return {
        "schema_version": CONTRACT_VERSION,
        "policy": {
            "name": policy.name,
            "hash": policy.hash,
            "behaviour": policy.behaviour,
            "tuned_from": tuned_from,
        },
        "precision": precision,
        "task": {"name": task.name, "environment_kwargs": dict(task.environment_kwargs)},
        "control_rate_hz": rate,
        "observation": {
            "dtype": "uint8" if fingerprint.observation_dtype == "uint8" else "float32",
            "shape": list(fingerprint.observation_shape),
            "terms": _observation_terms(policy, seen_names(names, policy).observation),
        },
        "action": {
            "kind": fingerprint.action_layout.kind,
            "output_kind": policy.output_kind,
            "terms": _action_terms(policy, names.action),
        },
        "states": [
            {"name": part.name, "shape": list(part.shape), "initial": 0.0, "reset": "start of every episode"}
            for part in state_parts(policy)
        ],
        "retention": None if retention is None else vars(retention),
    }


def retention_in(rows: Any, policy_hash: str) -> Retention | None:  # noqa: ANN401 (JSON)
    """Return the retention of a policy in the rows of an evaluation's JSON; None where they say none of it."""
    row = _row_with("retention", rows, policy_hash)
    if row is None:
        return None
    teacher = next((own for own in _known(rows) if own.get("role") == "teacher"), {})
    interval, num_episodes = _bounds(row.get("retention_interval")), len(row["episodes"])
    return Retention(row["retention"], interval, str(teacher.get("policy_hash")), num_episodes)


def score_in(rows: Any, policy_hash: str) -> Score | None:  # noqa: ANN401 (JSON)
    """Return the score of a policy in the rows of an evaluation's JSON; None where they say none of it."""
    row = _row_with("mean", rows, policy_hash)
    return None if row is None else Score(row["mean"], _bounds(row.get("interval")), len(row["episodes"]))


def _row_with(key: str, rows: Any, policy_hash: str) -> dict[str, Any] | None:  # noqa: ANN401 (JSON)
    """Return the first row of a policy that has a number under a key, and its episodes."""
    own = (row for row in _known(rows) if row.get("policy_hash") == policy_hash and is_finite(row.get(key)))
    return next((row for row in own if isinstance(row.get("episodes"), list)), None)


def _known(rows: Any) -> list[dict[str, Any]]:  # noqa: ANN401 (JSON)
    listed = cast(list[Any], rows) if isinstance(rows, list) else []
    return [cast(dict[str, Any], row) for row in listed if isinstance(row, dict)]


def _bounds(interval: Any) -> tuple[float, float] | None:  # noqa: ANN401 (JSON)
    ends = cast(list[Any], interval) if isinstance(interval, list) else []
    return (ends[0], ends[1]) if len(ends) == 2 and all(map(is_finite, ends)) else None


def _named_terms(policy: TorchPolicy, named: Sequence[Term]) -> list[tuple[Term, tuple[int, ...]]]:
    """Return the parts of what a policy sees, by the names that were given, else as the task's record names them.

    What is appended behind them follows, unless the names are of that, too.
    """
    seen, sight = policy.spec.seen, policy.spec.sight
    appended = [term for term, _ in _appended(policy)]
    num_own = policy.spec.num_observed - sum(term.size for term in appended)
    own = [(term, (term.size,)) for term in named]
    if named and sum(term.size for term in named) != num_own:
        return own
    own = own or [(Term(part.name, part.size), part.shape) for part in seen.observation_parts]
    if not own:
        name = "observation" if sight is None else sight.parts[0]
        own = [(Term(name, num_own), (num_own,) if appended else seen.observation_shape)]
    return own + [(term, (term.size,)) for term in appended]


def _appended(policy: TorchPolicy) -> list[tuple[Term, dict[str, Any]]]:
    """Return what is appended behind all else that a policy sees, zeros and a clock, with what its numbers are."""
    seen = policy.spec.seen
    zeros = [(Term("zero_padding", seen.zero_padding), {"constant": 0.0})] if seen.zero_padding else []
    if seen.time_feature is None:
        return zeros
    return [*zeros, (Term("time_left", 1), {"clock": {"steps": seen.time_feature, "value": "1 - t / T"}})]


def _observation_terms(policy: TorchPolicy, named: Sequence[Term]) -> list[dict[str, Any]]:
    """Say of every term what the policy does with it; one whose numbers are not all treated alike is several."""
    statistics, scales = observed_statistics(policy), _factors(policy)
    is_normalised = [False] * len(scales) if statistics is None else statistics.is_applied
    described = _named_terms(policy, named)
    _check_total("observation", [term for term, _ in described], policy.spec.num_observed)
    appended = [value for term, value in _appended(policy) for _ in range(term.size)]
    values = [{}] * (len(scales) - len(appended)) + appended
    treated = list(zip(is_normalised, scales, values, strict=True))
    terms: list[dict[str, Any]] = []
    start = 0
    for term, shape in described:
        end = start + term.size
        edges = [place for place in range(start + 1, end) if treated[place] != treated[place - 1]]
        for first, behind in pairwise([start, *edges, end]):
            name = f"{term.name}[{first - start}:{behind - start}]" if edges else term.name
            own = [behind - first] if edges else list(shape)
            data = {"name": name, "slice": [first, behind], "shape": own, "unit": term.unit}
            used = statistics if is_normalised[first] else None
            terms.append(data | _preprocessing(used, scales[first], first, behind) | values[first])
        start = end
    return terms


def _factors(policy: TorchPolicy) -> list[float]:
    """Return the factor on each number that a policy sees, `[P]`; where statistics are applied, behind these."""
    torso = policy.network.torso if isinstance(policy.network, PolicyNetwork) else None
    if not isinstance(torso, CombinedTorso):
        return [policy.spec.input_scale if policy.normalization is None else 1.0] * policy.spec.num_observed
    return [torso.image_scale if torso.is_image(part) else 1.0 for part in torso.parts for _ in range(part.size)]


def _preprocessing(statistics: InputNormalization | None, scale: float, start: int, end: int) -> dict[str, Any]:
    """Say what the policy itself does with some numbers before its first layer: they go in as the environment has them.

    By statistics: (o − mean) ÷ √(variance + epsilon), clipped to ± clip. Else o · scale.
    """
    if statistics is None:
        return {"scale": scale, "statistics": None}
    # A factor behind a division is another divisor, and another limit.
    return {
        "scale": None,
        "statistics": {
            "mean": list(statistics.mean[start:end]),
            "variance": [variance / scale**2 for variance in statistics.variance[start:end]],
            "epsilon": statistics.epsilon / scale**2,
            "clip": statistics.clip * scale if statistics.clips else None,
        },
    }


def _action_terms(policy: TorchPolicy, named: Sequence[Term]) -> list[dict[str, Any]]:
    size = policy.tasks[0].fingerprint.action_layout.action_size
    terms = list(named) or [Term("action", size)]
    _check_total("action", terms, size)
    data: list[dict[str, Any]] = []
    start = 0
    for term in terms:
        end = start + term.size
        own = {"name": term.name, "slice": [start, end], "unit": term.unit}
        data.append(own | _mapping(policy, start, end))
        start = end
    return data


def _mapping(policy: TorchPolicy, start: int, end: int) -> dict[str, Any]:
    """Say how raw outputs become the numbers of an action: squash, then · scale + offset, then clip."""
    fingerprint = policy.tasks[0].fingerprint
    layout = fingerprint.action_layout
    if not layout.is_continuous:
        sizes = [2] * (end - start) if layout.kind == "multi_binary" else list(layout.sizes[start:end])
        meanings = list(fingerprint.action_set) or None
        first = list(layout.start[start:end]) or [0] * len(sizes)
        return {"choices": sizes, "first": first, "meanings": meanings if layout.kind == "discrete" else None}
    finite = [
        [bound if abs(bound) < _UNBOUNDED else None for bound in side[start:end]] for side in (layout.low, layout.high)
    ]
    if policy.spec.is_beta:
        count = end - start
        return {"squash": "beta_mean", "scale": [2.0] * count, "offset": [-1.0] * count, "clip": finite}
    squashes = layout.mapping == "tanh_rescale"
    pairs = list(zip(layout.low[start:end], layout.high[start:end], strict=True))
    # Of a deterministic policy the network itself ends in them, of a Gaussian they are applied to the mean.
    return {
        "squash": "tanh" if squashes else None,
        "scale": [0.5 * (high - low) if squashes else 1.0 for low, high in pairs],
        "offset": [0.5 * (high + low) if squashes else 0.0 for low, high in pairs],
        "clip": finite,
    }


def _check_total(what: str, terms: Sequence[Term], expected: int) -> None:
    total = sum(term.size for term in terms)
    if total != expected:
        listing = ", ".join(f"{term.name} ({term.size})" for term in terms[:6]) + (", …" if len(terms) > 6 else "")
        raise UsageError(
            f"--names: the {what} terms take {total} numbers, the policy's {what} has {expected}: {listing}. Name all "
            "of them, in the order of the environment."
        )


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """List what two contracts say differently of what goes in and out, term by term; the policies may be any.

    Returns:
        A line for each: `action hip: scale [0.35] against [0.55]`; none where a program for one may run the other. A
        control rate or a unit that one of them does not state is none.
    """
    found = _compared("task", ours["task"]["name"], theirs["task"]["name"])
    rates = ours["control_rate_hz"], theirs["control_rate_hz"]
    found += [] if None in rates else _compared("control rate", *rates)
    for side in ("observation", "action"):
        mine, other = ours[side], theirs[side]
        for key in sorted((mine.keys() | other.keys()) - {"terms"}):
            found += _compared(f"{side} {key}", mine.get(key), other.get(key))
        found += _terms_compared(side, mine["terms"], other["terms"])
    found += _terms_compared("state", ours["states"], theirs["states"])
    return [printable(line, _MOST_OF_A_LINE) for line in found]  # names and values may be a stranger's


def _terms_compared(side: str, ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> list[str]:
    mine, other = ({str(term["name"]): term for term in terms} for terms in (ours, theirs))
    found: list[str] = []
    for name in [*mine, *(name for name in other if name not in mine)]:
        if name not in other or name not in mine:
            have, has_not = ("theirs", "ours") if name not in mine else ("ours", "theirs")
            found.append(f"{side} {name}: in {have}, not in {has_not}")
            continue
        for key in [key for key in {**mine[name], **other[name]} if key != "name"]:
            values = mine[name].get(key), other[name].get(key)
            found += [] if key in _MAY_BE_UNSAID and None in values else _compared(f"{side} {name}: {key}", *values)
    return found


def _compared(what: str, ours: object, theirs: object) -> list[str]:
    if ours == theirs:
        return []
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        mine, other = cast(Mapping[str, object], ours), cast(Mapping[str, object], theirs)
        return [line for key in {**mine, **other} for line in _compared(f"{what} {key}", mine.get(key), other.get(key))]
    return [f"{what} {_short(ours)} against {_short(theirs)}"]


def _short(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 2]} …"


_MOST_SHOWN, _MOST_OF_A_LINE = 80, 400
# All but `unit` by contracts of earlier versions.
_MAY_BE_UNSAID = frozenset({"unit", "first", "clock", "constant"})
# Many environments write float32's largest number where they mean infinity.
_UNBOUNDED = 1e30


def check_contract(what: str, data: Any) -> dict[str, Any]:  # noqa: ANN401 (JSON)
    """Return a contract that a file holds, after checking that it is one.

    Raises:
        RldistillError: it is none, or of a newer version.
    """
    wrong = f"{what} holds no contract: "
    if not isinstance(data, dict) or "schema_version" not in data:
        raise RldistillError(f"{wrong}got {shown(cast(object, data))}, expected the JSON beside an export.")
    contract = cast(dict[str, Any], data)
    if contract["schema_version"] != CONTRACT_VERSION:
        raise RldistillError(
            f"{what}: got version {shown(contract['schema_version'])} of the contract, this version reads "
            f"{CONTRACT_VERSION}. Upgrade rldistill."
        )
    for key, keys in _KEYS.items():
        if key not in contract:
            raise RldistillError(f"{wrong}{key} is missing.")
        if keys and not (isinstance(contract[key], dict) and contract[key].keys() >= keys):
            raise RldistillError(f"{wrong}{key} must have {', '.join(sorted(keys))}.")
    for terms in (contract["observation"]["terms"], contract["action"]["terms"], contract["states"]):
        if not (isinstance(terms, list) and all(isinstance(term, dict) and "name" in term for term in terms)):
            raise RldistillError(f"{wrong}its terms must be a list, each with a name.")
    return contract


_KEYS: Mapping[str, frozenset[str]] = {
    "policy": frozenset({"name", "hash", "behaviour"}),
    "task": frozenset({"name", "environment_kwargs"}),
    "control_rate_hz": frozenset(),
    "observation": frozenset({"dtype", "shape", "terms"}),
    "action": frozenset({"kind", "output_kind", "terms"}),
    "states": frozenset(),
    "retention": frozenset(),
}
