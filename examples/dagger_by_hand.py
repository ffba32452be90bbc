"""Choose yourself who acts while a student learns: offline, DAgger, and both mixed by decision.

The teacher labels every state; `teacher_fraction` is the chance that it also acts. What is left out of `Live`
and `distill` the recipe of this kind of teacher says, and it is printed.

    python examples/dagger_by_hand.py ppo-LunarLander-v2.zip LunarLander-v3 mlp:2

With the published PPO teacher and a student of 30 parameters, one seed, 100 episodes each, 95 % intervals:

    offline   20,000 steps: keeps -0.714 [-0.799, -0.633]
    DAgger    20,000 steps: keeps 0.986 [0.961, 1.012]
    mixed     20,000 steps: keeps 0.995 [0.975, 1.016]

With mlp:4 (56 parameters) all three keep 1.00: what the student's own mistakes teach counts where it makes some.
"""

import sys

import rldistill as rd

WAYS = {
    "offline": {"teacher_fraction": 1.0},
    "DAgger": {"teacher_fraction": "linear:1->0@0.3"},
    "mixed": {"teacher_fraction": 0.5, "mix": "decision"},
}


def main(path: str, task: str, network: str, num_updates: int = 3_000, num_episodes: int = 100) -> None:
    teacher = rd.load_policy(path, task=task)
    for name, who_acts in WAYS.items():
        student = rd.distill(
            rd.Live(teacher, task, replay_capacity=200_000, **who_acts),
            student=network,
            num_updates=num_updates,
            evaluate_episodes=0,
            out=f"runs/dagger-{name}",
            overwrite=True,
            callbacks=[rd.ProgressBar()],
        )
        result = rd.evaluate(student, task, teacher=teacher, num_episodes=num_episodes, seed=1)
        row = next(row for row in result.to_dict()["policies"] if row["role"] == "student")
        low, high = row["retention_interval"]
        steps = student.spec.provenance["dataset"]["num_steps"]
        print(f"{name:<8} {steps:>7,} steps: keeps {row['retention']:.3f} [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:4], *map(int, sys.argv[4:6]))
