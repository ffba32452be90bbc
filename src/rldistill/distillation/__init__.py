"""The one training loop of distillation, and the sources that feed it."""

from rldistill.distillation.batch import Minibatch as Minibatch
from rldistill.distillation.batch import Window as Window
from rldistill.distillation.likeness import Likeness as Likeness
from rldistill.distillation.likeness import mean_likeness as mean_likeness
from rldistill.distillation.live import LiveSource as LiveSource
from rldistill.distillation.loop import Distiller as Distiller
from rldistill.distillation.loop import UpdateRecord as UpdateRecord
from rldistill.distillation.loop import distil as distil
from rldistill.distillation.online import OnlineSource as OnlineSource
from rldistill.distillation.optimizers import OPTIMIZERS as OPTIMIZERS
from rldistill.distillation.sources import Batches as Batches
from rldistill.distillation.sources import HeldOut as HeldOut
from rldistill.distillation.sources import Source as Source
from rldistill.distillation.stored import StoredSource as StoredSource
