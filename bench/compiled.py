"""How long does one decision take in C? The same teacher of two layers of 64: by Stable-Baselines3, by us, compiled.

The teacher is a fresh PPO of Stable-Baselines3, 8 numbers in, tanh, 4 actions; its C is compiled by `cc -O2` and called
in a loop of C, each time with another observation. A second table has students that remember, as a blind four-legged
robot needs them: 45 numbers that are normalised, 12 joints, a GRU of 12 to 22 units.
"""

import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import torch
from kit import Rates, run_alone, show

import rldistill as rd
from rldistill.exports.c.footprint import Footprint
from rldistill.exports.c.library import compile_c, find_compiler
from rldistill.exports.c.plan import make_plan
from rldistill.exports.c.quantize import quantize
from rldistill.exports.c.source import CSource, write_c
from rldistill.networks import InputNormalization, parse_architecture
from rldistill.policies import TorchPolicy
from rldistill.tasks import ObservationFingerprint, Task
from rldistill.types import ActionLayout

_TASK = "LunarLander-v3"
_LOOP = """
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "policy.h"
int main(int argc, char **argv)
{
    static float observations[100][POLICY_OBSERVATION_SIZE];
    const int count = argc > 1 ? atoi(argv[1]) : 1;
    float action[POLICY_ACTION_SIZE], sum = 0.0f;
    for (int i = 0; i < 100; ++i) {
        for (int k = 0; k < POLICY_OBSERVATION_SIZE; ++k) {
            observations[i][k] = (float)((i * 37 + k * 11) % 101) / 50.0f - 1.0f;
        }
    }
#ifdef POLICY_STATE_BYTES
    static policy_state state;
    policy_reset(&state);
#define policy_act(observation, action) policy_act(&state, observation, action)
#endif
    const clock_t started = clock();
    for (int i = 0; i < count; ++i) {
        policy_act(observations[i % 100], action);
        sum += action[0];
    }
    printf("%.9f %f", (double)(clock() - started) / CLOCKS_PER_SEC, sum);
    return 0;
}
"""


def _written(policy: TorchPolicy, rows: torch.Tensor | None) -> tuple[CSource, Footprint]:
    """Return the C of a policy, in int8 where there are rows to calibrate it with, and what it takes."""
    plan = make_plan(policy)
    # Of a policy that remembers these rows are first steps of episodes: ranges matter to no timing.
    state = () if rows is None else policy.initial_state(len(rows)) or ()
    made = plan if rows is None else quantize(plan, rows, state)
    source = write_c("policy", made, ())
    return source, Footprint.of(made, source)


def _compiled(source: CSource, folder: Path) -> Callable[[], tuple[int, float]]:
    """Return a piece for `Rates`: many decisions of the C."""
    folder.mkdir()
    for name, text in {"policy.c": source.source, "policy.h": source.header}.items():
        (folder / name).write_text(text)
    # One file: the loop and what it calls.
    (folder / "main.c").write_text(source.source + _LOOP)
    compiler = find_compiler()
    assert compiler is not None, "asked before"
    compile_c(folder / "main.c", folder / "program", compiler=compiler)

    def piece() -> tuple[int, float]:
        count = 50_000
        done = subprocess.run([folder / "program", str(count)], capture_output=True, text=True, check=True)
        return count, float(done.stdout.split()[0])

    return piece


def _timed(decide: Callable[[], object], count: int) -> Callable[[], tuple[int, float]]:
    def piece() -> tuple[int, float]:
        started = time.process_time()
        for _ in range(count):
            decide()
        return count, time.process_time() - started

    return piece


def main(*, quick: bool) -> None:
    try:
        from stable_baselines3 import PPO
    except ImportError:
        print("compiled: Stable-Baselines3 is not installed")
        return
    if find_compiler() is None:
        print("compiled: no C compiler is installed")
        return
    torch.set_num_threads(1)
    count, num_rounds = (100, 5) if quick else (500, 15)
    rows = np.random.default_rng(0).standard_normal((256, 8), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        teacher = PPO("MlpPolicy", gymnasium.make(_TASK), seed=0, device="cpu")
        teacher.save(Path(folder, "teacher.zip"))
        policy = rd.load_policy(Path(folder, "teacher.zip"), task=_TASK)
        decisions = {
            "Stable-Baselines3 predict": _timed(lambda: teacher.predict(rows[0], deterministic=True), count),
            "policy.act": _timed(lambda: policy.act(rows[:1]), count),
            "C, float32": _compiled(_written(policy, None)[0], Path(folder, "float32")),
            "C, int8": _compiled(_written(policy, torch.from_numpy(rows))[0], Path(folder, "int8")),
        }
        rates = Rates(decisions, num_rounds=num_rounds)
    show(
        "One decision of a teacher of 64x64",
        ["", "µs", "times as fast as predict"],
        [
            [name, f"{1e6 / rates.median(name):.2f}", f"{rates.ratio(name, 'Stable-Baselines3 predict'):.0f}"]
            for name in decisions
        ],
        f"medians of {num_rounds} turns, process time.",
    )
    _show_blind(num_rounds)


def _blind(size: int) -> TorchPolicy:
    """Return a student of a four-legged robot, as drawn: how fast it decides does not depend on what it learned."""
    layout = ActionLayout("box", (12,), (-1.0,) * 12, (1.0,) * 12, "clip")
    task = Task("blind", ObservationFingerprint((45,), "float32", layout))
    return TorchPolicy.create(
        parse_architecture(f"gru:{size}"),
        [task],
        output_kind="actions",
        normalization=InputNormalization([0.1] * 45, [2.0] * 45),
        zero_output=False,
        generator=torch.Generator().manual_seed(0),
    )


def _show_blind(num_rounds: int) -> None:
    rows = torch.randn(256, 45, generator=torch.Generator().manual_seed(0))
    policies = {size: _blind(size) for size in (12, 16, 22)}
    made = {
        f"gru:{size}, {'float32' if own is None else 'int8'}": (policy, *_written(policy, own))
        for size, policy in policies.items()
        for own in (None, rows)
    }
    with tempfile.TemporaryDirectory() as folder:
        pieces = {
            name: _compiled(source, Path(folder, str(place)))
            for place, (name, (_, source, _)) in enumerate(made.items())
        }
        rates = Rates(pieces, num_rounds=num_rounds)
    show(
        "One decision of a blind student, 45 numbers to 12 joints",
        ["", "parameters", "flash, bytes", "RAM, bytes", "of it the state", "multiply-adds", "µs"],
        [
            [
                name,
                f"{policy.num_parameters:,}",
                f"{footprint.flash_bytes:,}",
                f"{footprint.ram_bytes:,}",
                f"{source.num_state_bytes}",
                f"{footprint.num_macs:,}",
                f"{1e6 / rates.median(name):.2f}",
            ]
            for name, (policy, source, footprint) in made.items()
        ],
        f"flash and RAM as the export says them, for a Cortex-M4; µs: medians of {num_rounds} turns on this machine.",
    )


if __name__ == "__main__":
    run_alone(main, __doc__)
