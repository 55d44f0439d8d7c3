"""The share of this process in the work, by the variables that `torchrun` and job arrays set."""

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """A process among several: it takes the blocks `rank`, `rank + world_size`, ...

    Attributes:
        rank: its number, from 0.
        world_size: how many processes there are.
        is_supervised: `torchrun` started them all, and fails if one of them does.
    """

    rank: int = 0
    world_size: int = 1
    is_supervised: bool = False

    def has(self, block: int) -> bool:
        """Whether a block is this process's to compute."""
        return block % self.world_size == self.rank


def share_of_environment(variables: Mapping[str, str] | None = None) -> Share:
    """The share that `RANK` and `WORLD_SIZE` name; everything where both are missing.

    Raises:
        ValueError: one is missing, is no whole number, or they contradict each other.

    Warns:
        UserWarning: both are missing, and `srun` has started several processes.
    """
    variables = os.environ if variables is None else variables
    given = {name: variables[name] for name in ("RANK", "WORLD_SIZE") if name in variables}
    if not given:
        if variables.get("SLURM_STEP_NUM_TASKS", "1") != "1":
            warnings.warn(
                f"srun has started {variables['SLURM_STEP_NUM_TASKS']} processes, and each does the whole work: to "
                "share it, set RANK=$SLURM_PROCID, WORLD_SIZE=$SLURM_NTASKS and LOCAL_RANK=$SLURM_LOCALID in each",
                stacklevel=4,
            )
        return Share()
    if len(given) == 1:
        missing = "RANK" if "WORLD_SIZE" in given else "WORLD_SIZE"
        raise ValueError(f"{_listed(given)} is set without {missing}: set both, or neither")
    try:
        rank, world_size = int(given["RANK"]), int(given["WORLD_SIZE"])
    except ValueError:
        raise ValueError(f"{_listed(given)}: both must be whole numbers") from None
    if world_size < 1:
        raise ValueError(f"WORLD_SIZE={world_size} must be at least 1")
    if not 0 <= rank < world_size:
        raise ValueError(f"RANK={rank} must be from 0 to {world_size - 1}, since WORLD_SIZE={world_size}: count from 0")
    return Share(rank, world_size, "TORCHELASTIC_RUN_ID" in variables)


def _listed(given: Mapping[str, str]) -> str:
    return " and ".join(f"{name}={value}" for name, value in given.items())
