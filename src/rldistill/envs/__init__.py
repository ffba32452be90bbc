"""Environments: Atari on its native vector emulator, and everything Gymnasium can make."""

from rldistill.envs.make import EpisodeEnvs as EpisodeEnvs
from rldistill.envs.make import PlayableTask as PlayableTask
from rldistill.envs.make import TaskLike as TaskLike
from rldistill.envs.make import make_task as make_task
from rldistill.envs.overlapped import OverlappedEnvs as OverlappedEnvs
from rldistill.envs.protocol import StepBatch as StepBatch
