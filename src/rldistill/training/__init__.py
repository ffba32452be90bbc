"""Teachers are trained only as far as the paper needs: PQN here."""

from rldistill.training.pqn import PQNLearner as PQNLearner
from rldistill.training.pqn import PQNSettings as PQNSettings
from rldistill.training.stream import GameRecord as GameRecord
from rldistill.training.stream import Rollout as Rollout
from rldistill.training.stream import TrainingStream as TrainingStream
