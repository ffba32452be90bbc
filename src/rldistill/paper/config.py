"""Configuration of `reproduce`; the docstring of a field is its help on the command line."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from rldistill.checks import check_not_negative, check_num_envs, check_types


@dataclass(frozen=True, kw_only=True)
class ReproduceConfig:
    """Do one of the paper's experiments, from teachers to a table and a plot; a second call goes on."""

    experiment: tyro.conf.Positional[str | None] = None
    """losses, compression, multitask3, multitask10, online, or a TOML file like those in configs/."""
    budget: str = "cpu"
    """smoke (a minute, proves nothing), cpu (under three hours on two cores), paper (the paper's schedule), and of some
    experiments cpu_actor_critic (strong teachers of another origin) or gpu (with the network that plays them all)."""
    games: str | None = None
    """Atari games with commas between; none: the budget's."""
    seeds: int = 0
    """Students of each arm, of consecutive seeds; 0: the budget's."""
    teacher: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """Policy file of a game's teacher, once for each; none: zoo/<game>.safetensors, else one is trained."""
    out: Path | None = None
    """Folder of everything; none: reproduce/<experiment>-<budget>."""
    num_workers: int = 0
    """Jobs at once, each in a process of its own; 0: one per processor, 1: no other process."""
    seed: int = 0
    """First of the seeds."""
    num_envs: int = 16
    """Environments stepped together; changes no result."""
    num_threads: int = 0
    """Threads of each job; 0: the processors shared among the jobs at once."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def __post_init__(self) -> None:
        check_types(self)
        check_num_envs(self.num_envs)
        check_not_negative(self, "seeds", "num_workers", "seed", "num_threads")
