"""Teachers are trained only as far as the paper needs: PQN here."""

from rldistill.training.pqn import PQNLearner as PQNLearner
from rldistill.training.pqn import PQNSettings as PQNSettings
from rldistill.training.pqn import PQNTraining as PQNTraining
from rldistill.training.protocol import IterationRecord as IterationRecord
from rldistill.training.protocol import Training as Training
from rldistill.training.stream import GameRecord as GameRecord
from rldistill.training.stream import Rollout as Rollout
from rldistill.training.stream import TrainingStream as TrainingStream
