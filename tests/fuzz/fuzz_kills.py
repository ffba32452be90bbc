"""Kill commands at random moments, let them go on, and compare what they leave with what an unkilled run leaves.

    python -m tests.fuzz.fuzz_kills --count 100 --seed 0

Not part of `make test`. Commands are `rldistill …` in processes of their own, forked from one that has imported
everything, and the kill is a real SIGKILL. A chain is one run that is killed up to four times and then finished. Leave
the sources alone meanwhile: a student's file says whether they were changed since the commit.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rldistill.data import Dataset, load_manifest
from rldistill.policies import load_policy
from rldistill.session.metrics import read_metrics
from rldistill.storage import load_checkpoint
from tests.kit.cart_pole import saved_teacher
from tests.kit.commands import options, run_alone, start

SMALL_SHARDS = "tests.kit.commands:write_small_shards"
KILLS_PER_CHAIN = 4
# What may lie in a folder while a run is under way; half-written files are told by their beginning.
OWN = (
    ".lock",
    "config.toml",
    "metrics.jsonl",
    "checkpoint.ckpt",
    "student.safetensors",
    "best_policy.safetensors",
    "last_policy.safetensors",
    "evaluation.json",
    "manifest.json",
    "shard-",
    "chunk-",
    "replay",
)


@dataclass(frozen=True)
class Target:
    """A command, what must hold after each kill, and what in the end.

    Attributes:
        name: for messages.
        argv: the command for a folder.
        progress: what stands safe in a folder; never less than before. Raises `AssertionError` where it is damaged.
        compare: finished folder and reference, which an unkilled command filled.
        prepare: as in `start`.
    """

    name: str
    argv: Callable[[Path], Sequence[object]]
    progress: Callable[[Path], int]
    compare: Callable[[Path, Path], None]
    prepare: str | None = None


def targets(scratch: Path) -> list[Target]:
    """Return the commands to be killed, tiny ones on CartPole, with what they need."""
    teacher = saved_teacher(scratch)
    data, run = scratch / "data", scratch / "run"
    kept = ["--num-threads", 1, "--quiet"]
    student = options(student="mlp:8", batch_size=32, precision="float32", evaluate_period=20)
    small = options(network="mlp:8", num_steps=4000, precision="float32", checkpoint_period=500)
    settings = ["--env-kwargs", '{"max_episode_steps": 60}', "--task", "CartPole-v1"]
    dqn = options(algorithm="dqn", learning_starts=100, replay_capacity=1000, exploration_steps=500)
    pqn = options(algorithm="pqn", num_envs=4, rollout_length=16, num_minibatches=2)
    live = options(collect_steps=300, collect_period=50, replay_capacity=900, num_updates=200)
    finish("collect", teacher, *settings, "--num-steps", 3000, "--exploration-epsilon", 0.2, "--out", data, *kept)
    finish("distill", data, *student, "--num-updates", 20, "--out", run, *kept)

    def collect(out: Path) -> list[object]:
        chance = ["--exploration-epsilon", 0.2, "--num-steps", 4000]
        return ["collect", teacher, *settings, *chance, "--resume", *kept, "--out", out]

    def stored(out: Path) -> list[object]:
        return ["distill", data, *student, "--num-updates", 300, "--resume", *kept, "--out", out]

    def played_live(out: Path) -> list[object]:
        return ["distill", "--teacher", teacher, *settings, *student, *live, "--resume", *kept, "--out", out]

    def learned_by(algorithm: Sequence[object]) -> Callable[[Path], list[object]]:
        return lambda out: ["train-teacher", *settings, *small, *algorithm, "--resume", *kept, "--out", out]

    def evaluate(out: Path) -> list[object]:
        return ["evaluate", run, *settings, "--num-episodes", 100, *kept, "--out", out / "evaluation.json"]

    return [
        Target("collect", collect, listed_steps, compare_datasets, SMALL_SHARDS),
        Target("distill, stored", stored, saved_updates, compare_students),
        Target("distill, live", played_live, saved_updates, check_live),
        Target("train-teacher, dqn", learned_by(dqn), saved_steps, check_training),
        Target("train-teacher, pqn", learned_by(pqn), saved_steps, check_training),
        Target("evaluate", evaluate, whole_evaluations, compare_evaluations),
    ]


def finish(*argv: object, prepare: str | None = None) -> float:
    """Run one command to its end; return the seconds it took."""
    started = time.monotonic()
    result = run_alone(*argv, prepare=prepare)
    assert result.code == 0, f"rldistill {' '.join(map(str, argv))} ended with {result.code}: {result.stderr}"
    return time.monotonic() - started


def listed_steps(out: Path) -> int:
    """Return how many steps a dataset lists, after comparing the checksum of all."""
    if not (out / "manifest.json").exists():
        return 0
    return Dataset.open(out, allow_empty=True).num_steps


def saved_updates(out: Path) -> int:
    """Return after how many updates a checkpoint stands."""
    return _saved(out).get("update", 0)


def saved_steps(out: Path) -> int:
    """Return after how many steps a checkpoint stands; every policy there must load."""
    for path in out.glob("*_policy.safetensors"):
        load_policy(path)
    return _saved(out).get("step", 0)


def whole_evaluations(out: Path) -> int:
    """Return how many evaluations there are, which must be whole."""
    return sum(len(json.loads(path.read_text())["policies"]) == 3 for path in out.glob("evaluation.json"))


def _saved(out: Path) -> dict[str, Any]:
    """Return a checkpoint, whose replays must be there."""
    if not (out / "checkpoint.ckpt").exists():
        return {}
    state = load_checkpoint(out / "checkpoint.ckpt")
    for number, replay in enumerate(json.loads(state["replays"])):
        for chunk in replay["chunks"]:
            path = out / "replay" / str(number) / chunk["file"]
            assert path.stat().st_size == chunk["num_bytes"], f"{path} is listed and not whole"
    return state


def compare_datasets(out: Path, reference: Path) -> None:
    """Compare every episode, step for step; how steps are shared out among shards depends on the kills."""
    found, expected = Dataset.open(out), Dataset.open(reference)
    assert found.manifest.is_complete, "the manifest does not say that it is complete"
    assert found.num_steps == expected.num_steps, f"{found.num_steps} steps, expected {expected.num_steps}"
    assert found.episode_numbers.tolist() == expected.episode_numbers.tolist(), "other episodes"
    for episode in expected.episode_numbers.tolist():
        mine, theirs = found.episode_steps(episode), expected.episode_steps(episode)
        np.testing.assert_array_equal(found.observations(mine), expected.observations(theirs))
        np.testing.assert_array_equal(found.last_observation(episode), expected.last_observation(episode))
        for name in expected.provenance.step_fields:
            np.testing.assert_array_equal(found.field(name)[mine], expected.field(name)[theirs])
    assert len(list(out.glob("shard-*"))) == len(load_manifest(out).shards), "shards that nobody lists"


def compare_students(out: Path, reference: Path) -> None:
    """Compare the student's file and the records, bit for bit."""
    for name in ("student.safetensors", "metrics.jsonl"):
        assert (out / name).read_bytes() == (reference / name).read_bytes(), f"{name} differs from an unkilled run's"
    assert names(out) == names(reference), f"{names(out)} against {names(reference)}"


def check_live(out: Path, reference: Path) -> None:
    """Check that a live distillation came to its end; its teacher began new episodes, so it is another student."""
    updates = [[record["update"] for record in read_metrics(folder / "metrics.jsonl")] for folder in (out, reference)]
    assert updates[0] == updates[1], f"records of updates {updates[0]}, expected {updates[1]}"
    made = load_policy(out / "student.safetensors").spec.provenance["num_updates"]
    assert made == saved_updates(out) == updates[0][-1], f"the student is of {made} updates"
    assert names(out) == names(reference), f"{names(out)} against {names(reference)}"
    check_chunks(out)


def check_chunks(out: Path) -> None:
    """Check that replays hold what the checkpoint lists, and nothing else."""
    listed = {
        f"{number}/{chunk['file']}"
        for number, replay in enumerate(json.loads(_saved(out)["replays"]))
        for chunk in replay["chunks"]
    }
    found = {str(path.relative_to(out / "replay")) for path in out.glob("replay/*/*")}
    assert found == listed, f"chunks that nobody lists: {found - listed}"


def check_training(out: Path, reference: Path) -> None:
    """Check that a training came to its end; the environments began new episodes, so it is another policy."""
    steps = [record["step"] for record in read_metrics(out / "metrics.jsonl")]
    assert steps == sorted(set(steps)), "steps must increase"
    assert steps[-1] == saved_steps(out) == saved_steps(reference), "another number of steps"
    missing = names(reference) - names(out) - {"best_policy.safetensors"}  # some runs have no best one
    assert not missing, f"missing: {missing}"
    check_chunks(out)


def compare_evaluations(out: Path, reference: Path) -> None:
    """Compare all but how fast the policies were."""
    found, expected = (json.loads((folder / "evaluation.json").read_text()) for folder in (out, reference))
    for row in (*found["policies"], *expected["policies"]):
        for key in ("latency_seconds", "decisions_per_second"):
            row.pop(key, None)
    assert found == expected, "the evaluation differs from an unkilled one"


def names(out: Path) -> set[str]:
    """Return what lies in a folder, without the chunks of replays."""
    return {path.name for path in out.rglob("*") if not path.name.startswith("chunk-")}


def check_names(out: Path) -> None:
    """Check that nothing in a folder is of another's making."""
    for path in out.rglob("*"):
        is_half = path.name.startswith(".") and path.name.endswith(".tmp") and path.name[1:].startswith(OWN)
        assert is_half or path.name.startswith(OWN) or path.parent.name == "replay", f"who made {path}?"


def kill_once(target: Target, out: Path, delay: float) -> bool:
    """Start the command and kill it after some seconds; returns whether it was still at work."""
    command = start(*target.argv(out), prepare=target.prepare)
    time.sleep(delay)
    os.kill(command.pid, signal.SIGKILL)
    code = command.wait().code
    assert code in (0, -signal.SIGKILL), f"ended with {code}: {command.stderr}"
    return code != 0


def chain(target: Target, out: Path, reference: Path, seconds: float, rng: np.random.Generator, most: int) -> int:
    """Kill one run again and again, finish it, and compare; returns the number of kills."""
    num_kills, safe = 0, 0
    while num_kills < most:
        if not kill_once(target, out, rng.uniform(0, seconds)):
            break
        num_kills += 1
        check_names(out)
        now = target.progress(out)
        assert now >= safe, f"{safe} were reported safe, {now} are there"
        safe = now
    finish(*target.argv(out), prepare=target.prepare)
    target.compare(out, reference)
    left = list(out.rglob("*.tmp"))
    assert not left, f"left behind: {left}"
    return num_kills


def main(argv: Sequence[str] | None = None) -> int:
    """Do so many kills; 1 and a line where something was lost or other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    rng = np.random.default_rng(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        prepared: list[tuple[Target, Path, float]] = []
        for number, target in enumerate(targets(scratch)):
            reference = scratch / f"reference-{number}"
            reference.mkdir()
            prepared.append((target, reference, finish(*target.argv(reference), prepare=target.prepare)))
        counts = {target.name: [0, 0] for target, _, _ in prepared}
        started, num_kills, num_chains = time.monotonic(), 0, 0
        while num_kills < arguments.count:
            target, reference, seconds = prepared[num_chains % len(prepared)]
            out = scratch / f"chain-{num_chains}"
            out.mkdir()
            try:
                done = chain(target, out, reference, seconds, rng, min(KILLS_PER_CHAIN, arguments.count - num_kills))
            except AssertionError as error:
                sys.stderr.write(f"{target.name}, chain {num_chains}, --seed {arguments.seed}: {error}\n")
                return 1
            num_kills, num_chains = num_kills + done, num_chains + 1
            counts[target.name][0] += done
            counts[target.name][1] += 1
        for name, (kills, chains) in counts.items():
            sys.stdout.write(f"{name:<20} {kills:3} kills in {chains:2} chains: nothing lost, nothing other\n")
        sys.stdout.write(f"{num_kills} kills in {time.monotonic() - started:.0f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
