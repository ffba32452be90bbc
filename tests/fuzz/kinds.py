"""Kinds of files that are damaged and read: a registry to which a library's adapter adds its own.

A kind makes the files of a case from honest ones and says how they are read. Reading is to end in one of two ways: what
was read works (a policy acts, a dataset gives its steps), or one of our own errors; anything else is a fault.
"""

import hashlib
import io
import json
import random
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch

import rldistill as rd
from rldistill.data import Dataset
from rldistill.policies.file_format import pack_policy, unpack_policy
from rldistill.storage import with_checksum
from tests.fuzz import onnx_cases
from tests.fuzz.mutators import any_value, damage_archive, damage_bytes, damage_json, damage_pickle, damage_value
from tests.fuzz.seeds import Seeds

MOST_ACTED_ON = 1 << 22
Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes:
        make: the files of a case by their names, from random numbers and honest files.
        read: reads a case, given the folder in which its files lie.
        weight: how often it is drawn, beside the others.
    """

    make: Callable[[random.Random, Seeds], Files]
    read: Callable[[Path], None]
    weight: float = 1


KINDS: dict[str, Kind] = {}


def register(
    name: str, make: Callable[[random.Random, Seeds], Files], read: Callable[[Path], None], weight: float = 1
) -> None:
    """Add a kind of file to those that are drawn."""
    assert name not in KINDS, name
    KINDS[name] = Kind(make, read, weight)


def load_and_act(path: Path, **words: object) -> None:
    """Load a policy and let it act on zeros, greedily and by its own behaviour."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        policy = rd.load_policy(path, **words)
    for task in policy.tasks[:3]:
        shape = task.fingerprint.observation_shape
        if prod(shape) > MOST_ACTED_ON:
            continue
        observations = np.zeros((2, *shape), task.fingerprint.observation_dtype)
        own = policy.for_task(task.name)
        actions, _ = own.act(observations, rng=np.random.default_rng(0), exploration_epsilon=0.5)
        assert actions.shape == (2, *task.fingerprint.action_layout.action_shape), actions.shape
        own(observations)
    str(policy.hash)


# Policy files of our own: the description with a right hash, weights, bytes


def _policy(rng: random.Random, seeds: Seeds) -> Files:
    data = seeds.read(rng.choice(seeds.names("policy")))
    if rng.random() < 0.2:
        return {"p.safetensors": damage_bytes(rng, data)}
    description, weights = unpack_policy(seeds.unpacked(data))
    if rng.random() < 0.2:
        weights = _damaged_tensors(rng, weights)
    else:
        changed = damage_value(rng, description)
        description = changed if isinstance(changed, dict) else description
    return {"p.safetensors": pack_policy(description, weights)}


def _damaged_tensors(rng: random.Random, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    result = dict(tensors)
    name = rng.choice(list(result))
    tensor = result[name]
    changes: list[Callable[[], torch.Tensor]] = [
        lambda: tensor.flatten().clone(),
        lambda: tensor[:0].clone(),
        lambda: tensor.unsqueeze(0).clone(),
        lambda: tensor.double(),
        lambda: tensor.half(),
        lambda: tensor.to(torch.int64),
        lambda: tensor.to(torch.bool),
        lambda: torch.full_like(tensor, float("nan")) if tensor.is_floating_point() else tensor,
        lambda: torch.full_like(tensor, 1e38) if tensor.is_floating_point() else tensor,
        lambda: torch.cat([tensor.flatten(), tensor.flatten()]),
        lambda: torch.tensor(1.0),
    ]
    match rng.randrange(4):
        case 0:
            del result[name]
        case 1:
            other = rng.choice(("x", "0", f"{name}.weight", name.replace("0", "1"), "x" * 300, "\x1b[31m"))
            result[other] = result.pop(name).clone()
        case _:
            result[name] = rng.choice(changes)()
    return result or {"x": torch.zeros(1)}


register("policy", _policy, lambda folder: load_and_act(folder / "p.safetensors"), weight=4)


# Checkpoints of torch.save


def _checkpoint(rng: random.Random, seeds: Seeds) -> Files:
    data = seeds.read(rng.choice(seeds.names("checkpoint")))
    match rng.randrange(4):
        case 0:
            return {"p.pt": damage_bytes(rng, data)}
        case 1:
            content = torch.load(io.BytesIO(data), weights_only=True)
            return {"p.pt": _saved(_damaged_content(rng, content), rng)}
        case _:
            return {"p.pt": damage_archive(rng, data, {"data.pkl": damage_pickle})}


def _damaged_content(rng: random.Random, content: object) -> object:
    if not isinstance(content, dict):
        return content
    if any(isinstance(value, torch.Tensor) for value in content.values()):
        return _damaged_tensors(
            rng, {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
        )
    result = dict(content)
    name = rng.choice(list(result))
    result[name] = any_value(rng) if rng.random() < 0.3 else _damaged_content(rng, result[name])
    return result


def _saved(content: object, rng: random.Random) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=rng.random() < 0.7)
    return buffer.getvalue()


def _read_checkpoint(folder: Path) -> None:
    from tests.kit.small_policies import box_task, image_task, vector_task

    path = folder / "p.pt"
    task = (vector_task(), box_task(), image_task(), None)[path.stat().st_size % 4]
    load_and_act(path, task=task)


register("checkpoint", _checkpoint, _read_checkpoint, weight=4)


# Zips of Stable-Baselines3, with what lies beside them


def _sb3(rng: random.Random, seeds: Seeds) -> Files:
    data = seeds.read(rng.choice(seeds.names("sb3")))
    beside = seeds.beside_sb3()
    if rng.random() < 0.3:
        name = rng.choice(list(beside))
        beside[name] = (
            _damaged_statistics(rng, beside[name]) if name.endswith(".pkl") else damage_bytes(rng, beside[name])
        )
        return {"p.zip": data, **beside}
    beside = beside if rng.random() < 0.3 else {}
    if rng.random() < 0.15:
        return {"p.zip": damage_bytes(rng, data), **beside}
    return {"p.zip": damage_archive(rng, data, {"policy.pth": _damaged_weights, "data": damage_json}), **beside}


def _damaged_weights(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.5:
        return damage_archive(rng, data, {"data.pkl": damage_pickle})
    return _saved(_damaged_content(rng, torch.load(io.BytesIO(data), weights_only=True)), rng)


def _damaged_statistics(rng: random.Random, data: bytes) -> bytes:
    return damage_pickle(rng, data) if rng.random() < 0.8 else damage_bytes(rng, data)


register("sb3", _sb3, lambda folder: load_and_act(folder / "p.zip"), weight=4)


# Running statistics


def _normalizer(rng: random.Random, seeds: Seeds) -> Files:
    name = rng.choice(seeds.names("normalizer"))
    data = seeds.read(name)
    if name.endswith(".pkl"):
        data = _damaged_statistics(rng, data)
    elif name.endswith(".npz") and rng.random() < 0.7:
        data = damage_archive(rng, data, {})
    else:
        data = damage_bytes(rng, data)
    return {"p.pt": seeds.read("checkpoint/ppo_continuous.pt"), f"n{Path(name).suffix}": data}


def _read_normalizer(folder: Path) -> None:
    from tests.kit.small_policies import box_task

    load_and_act(folder / "p.pt", task=box_task(), normalizer=next(folder.glob("n.*")))


register("normalizer", _normalizer, _read_normalizer, weight=2)


# Datasets with right checksums


def _dataset(rng: random.Random, seeds: Seeds) -> Files:
    folder = rng.choice(seeds.names("dataset"))
    files = {Path(name).name: seeds.read(name) for name in seeds.names(folder)}
    manifest = json.loads(files.pop("manifest.json"))
    if rng.random() < 0.5:
        name = rng.choice(sorted(files))
        files[name] = _damaged_shard(rng, files[name])
        for shard in manifest["shards"]:
            if shard["file"] == name:
                shard.update(sha256=hashlib.sha256(files[name]).hexdigest(), num_bytes=len(files[name]))
    else:
        manifest = damage_value(rng, manifest)
    if isinstance(manifest, dict):
        manifest.pop("sha256", None)
        # Half of them with a right checksum, the others as a version wrote them that had none.
        manifest = with_checksum(manifest) if rng.random() < 0.5 else manifest
    text = json.dumps(manifest).encode()
    return {**files, "manifest.json": damage_bytes(rng, text) if rng.random() < 0.1 else text}


def _damaged_shard(rng: random.Random, data: bytes) -> bytes:
    from safetensors.numpy import load, save

    if rng.random() < 0.3:
        return damage_bytes(rng, data)
    arrays = load(data)
    name = rng.choice(sorted(arrays))
    array = arrays[name].copy()
    if array.size and rng.random() < 0.8:
        flat = array.reshape(-1)
        for _ in range(rng.choice((1, 1, 3))):
            place = rng.randrange(min(len(flat), 64))
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                flat[place] = np.array(rng.choice((0, 1, -1, 2, 255, 2**31, 2**62, 1e300, float("nan")))).astype(
                    array.dtype
                )
        arrays[name] = array
    elif rng.random() < 0.5:
        arrays[name] = array.reshape(-1)[: max(array.size - rng.randrange(1, 4), 0)]
    else:
        del arrays[name]
    return save(arrays)


def _read_dataset(folder: Path) -> None:
    dataset = Dataset.open(folder)
    steps = np.unique([0, dataset.num_steps // 2, dataset.num_steps - 1])
    dataset.observations(steps)
    dataset.observation_parts(steps)
    dataset.targets(steps)
    assert len(dataset.store.next_steps) == dataset.num_steps
    dataset.segments()
    for episode in dataset.episode_numbers[:3].tolist():
        dataset.last_observation(episode)


register("dataset", _dataset, _read_dataset, weight=4)


# ONNX files, with weights beside them: endless ones take seconds each, so they are few


register(
    "onnx",
    lambda rng, _seeds: {"p.onnx": onnx_cases.cases(rng), "w.bin": bytes(128)},
    lambda folder: onnx_cases.read(folder / "p.onnx"),
    weight=0.25,
)
