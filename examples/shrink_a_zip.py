"""Find the smallest student of a Stable-Baselines3 zip, and check it once more on episodes of your own.

    python examples/shrink_a_zip.py ppo-LunarLander-v2.zip LunarLander-v3

With the published PPO teacher of 4,996 parameters: mlp:2, 30 parameters, proved to keep at least 97.9 %, and
0.983 [0.965, 1.000] in the 200 episodes below; one search, seed 0, 57 s of processor time for all of it. The clock
steers the search: another machine, or another `within`, may find another student.
"""

import sys

import rldistill as rd


def main(path: str, task: str, within: float = 600.0, num_episodes: int = 200) -> None:
    # Nothing in the zip is executed: its weights and its JSON are read, and a normaliser beside it is found.
    teacher = rd.load_policy(path, task=task)
    print(teacher)

    found = rd.shrink(
        teacher, task, keep=0.95, within=within, out="runs/shrunk", overwrite=True, callbacks=[rd.ProgressBar()]
    )
    print(found)
    if not found.held:
        sys.exit("nothing was proved to keep 95 %: give it more time")

    # The search never saw these episodes: seeds are streams of their own for each purpose.
    result = rd.evaluate(found.student, task, teacher=teacher, num_episodes=num_episodes, seed=1)
    student, *_ = [row for row in result.to_dict()["policies"] if row["role"] == "student"]
    low, high = student["retention_interval"]
    print(f"{student['num_parameters']} parameters keep {student['retention']:.3f} [{low:.3f}, {high:.3f}]")
    found.student.save("student.safetensors")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], *map(float, sys.argv[3:4]), *map(int, sys.argv[4:5]))
