"""How well do the bundled teachers play? The table of `zoo/README.md`, and the mark of weak ones in their files.

Beside each `zoo/GAME.safetensors` lies a folder of its name with `evaluation.json` (100 episodes, ε 0.05) and
`evaluation_greedy.json` (every start once), as `rldistill evaluate --json` prints them. Run it when a teacher is new:

    python scripts/zoo_page.py
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from rldistill import load_policy
from rldistill.policies import TorchPolicy
from rldistill.statistics import REFERENCE_SCORES, is_weak, normalised_score

ZOO = Path(__file__).resolve().parent.parent / "zoo"
HEAD = (
    "| teacher | steps | ε 0.05, mean of 100 episodes [95 %] | greedy, mean of all starts | Nature DQN | of its skill "
    "| human | random |",
    "|---|--:|--:|--:|--:|--:|--:|--:|",
)


def main() -> None:
    page = ZOO / "README.md"
    rows = [row_of(file) for file in sorted(ZOO.glob("*.safetensors"))]
    text, num_tables = re.subn(
        r"\| teacher \|.*?\n\n", "\n".join([*HEAD, *rows]) + "\n\n", page.read_text(), flags=re.S
    )
    if num_tables != 1:
        sys.exit(f"{page}: found {num_tables} tables of teachers, expected 1")
    page.write_text(text)


def row_of(file: Path) -> str:
    """Return a teacher's row; mark it in its file if it is weak."""
    game, policy = file.stem, load_policy(file)
    assert isinstance(policy, TorchPolicy)
    evaluations = [file.with_suffix("") / name for name in ("evaluation.json", "evaluation_greedy.json")]
    noisy, greedy = map(player, evaluations)
    weak, known = is_weak(noisy["mean"], game), REFERENCE_SCORES[game]
    made = policy.spec.provenance
    if made.get("weak", False) != weak:
        mark(policy, file, evaluations, weak=weak)
    share = normalised_score(noisy["mean"], game, of="nature_dqn")
    cells = [
        f"`{game}`" + (" (weak)" if weak else ""),
        f"{made['num_steps']:,}",
        f"{noisy['mean']:,.1f} [{noisy['interval'][0]:,.1f}, {noisy['interval'][1]:,.1f}]",
        f"{greedy['mean']:,.1f}",
        f"{known.nature_dqn:,g}",
        f"{share:.0%}",
        f"{known.human:,g}",
        f"{known.random:,g}",
    ]
    return f"| {' | '.join(cells)} |"


def mark(policy: TorchPolicy, file: Path, evaluations: list[Path], *, weak: bool) -> None:
    """Say in a teacher's file whether it is weak; its evaluations, of the same weights, get its new hash."""
    others = {key: value for key, value in policy.spec.provenance.items() if key != "weak"}
    marked = policy.with_provenance({**others, **({"weak": True} if weak else {})})
    marked.save(file)
    for path in evaluations:
        path.write_text(path.read_text().replace(policy.hash, marked.hash))


def player(path: Path) -> dict[str, Any]:
    """Return what an evaluation says of the teacher."""
    return next(row for row in json.loads(path.read_text())["policies"] if row["role"] != "random")


if __name__ == "__main__":
    main()
