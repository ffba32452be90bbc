"""Teachers are trained only as far as the paper needs: DQN and PQN, of one task or of several."""

from rldistill.training.dqn import DQNLearner as DQNLearner
from rldistill.training.dqn import DQNSettings as DQNSettings
from rldistill.training.dqn_training import DQNTraining as DQNTraining
from rldistill.training.optimizers import LEARNING_RATES as LEARNING_RATES
from rldistill.training.pqn import PQNLearner as PQNLearner
from rldistill.training.pqn import PQNSettings as PQNSettings
from rldistill.training.pqn import PQNTraining as PQNTraining
from rldistill.training.protocol import IterationRecord as IterationRecord
from rldistill.training.protocol import Training as Training
from rldistill.training.stream import GameRecord as GameRecord
from rldistill.training.stream import Rollout as Rollout
from rldistill.training.stream import StreamStep as StreamStep
from rldistill.training.stream import TrainingStream as TrainingStream
