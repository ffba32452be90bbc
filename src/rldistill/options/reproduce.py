"""Options of `reproduce`."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Annotated

from rldistill.options.declaration import AtLeast, PathLike
from rldistill.options.shared import Environments, Machine, Told


@dataclass(frozen=True)
class ReproduceOptions(Environments, Machine, Told):
    """Do one of the paper's experiments, from teachers to a table and a plot. A second call goes on."""

    experiment: str
    """losses, compression, multitask3, multitask10, online, levers, or a TOML file like those in configs/."""
    _: KW_ONLY
    budget: str = "cpu"
    """smoke (half a minute, proves nothing), cpu (under three hours on two cores), paper (the paper's schedule), and
    for some experiments cpu_actor_critic (strong teachers of another origin) or gpu (with the network that plays them
    all)."""
    games: str | Sequence[str] | None = None
    """Atari games by ale-py's names, with commas between. Default: the budget's."""
    seeds: Annotated[int, AtLeast(0)] = 0
    """Number of students of each arm, with consecutive seeds from --seed on; 0: the budget's number."""
    teacher: PathLike | Sequence[PathLike] = ()
    """Policy file of a game's teacher, once for each game. Default: zoo/<game>.safetensors, else one is trained."""
    out: PathLike | None = None
    """Folder for everything. Default: reproduce/<experiment>-<budget>. What is finished there is not done again."""
    num_workers: Annotated[int, AtLeast(0)] = 1
    """Jobs at once, each in a process of its own; 0: one per processor. Default: on the
    command line 0, in Python 1; there, more than one needs the usual `if __name__ == "__main__":`."""
    overwrite: bool = False
    """Delete an earlier reproduction in --out first."""

    @property
    def game_names(self) -> tuple[str, ...] | None:
        """Games that are named; None: those of the budget."""
        if self.games is None:
            return None
        return tuple(name.strip() for name in (self.games.split(",") if isinstance(self.games, str) else self.games))

    @property
    def teachers(self) -> tuple[PathLike, ...]:
        """Files that are named."""
        return (self.teacher,) if isinstance(self.teacher, PathLike) else tuple(self.teacher)
