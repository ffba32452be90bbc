"""What a student minimises: pure functions per row, their mean, and losses by name."""

from rldistill.losses.continuous import diag_gaussian_kl as diag_gaussian_kl
from rldistill.losses.continuous import mean_huber as mean_huber
from rldistill.losses.continuous import mean_mse as mean_mse
from rldistill.losses.continuous import reverse_diag_gaussian_kl as reverse_diag_gaussian_kl
from rldistill.losses.discrete import nll as nll
from rldistill.losses.discrete import q_mse as q_mse
from rldistill.losses.discrete import reverse_kl as reverse_kl
from rldistill.losses.discrete import sharpened_kl as sharpened_kl
from rldistill.losses.discrete import softened_kl as softened_kl
from rldistill.losses.factored import multi_binary_loss as multi_binary_loss
from rldistill.losses.factored import multi_discrete_loss as multi_discrete_loss
from rldistill.losses.reduce import mean_over_batch as mean_over_batch
from rldistill.losses.spec import LOSS_NAMES as LOSS_NAMES
from rldistill.losses.spec import TEMPERED_LOSS_NAMES as TEMPERED_LOSS_NAMES
from rldistill.losses.spec import CustomLoss as CustomLoss
from rldistill.losses.spec import LossFunction as LossFunction
from rldistill.losses.spec import LossSpec as LossSpec
from rldistill.losses.spec import check_loss as check_loss
from rldistill.losses.spec import make_loss as make_loss
from rldistill.losses.spec import pairing_warning as pairing_warning
from rldistill.losses.spec import resolve_loss as resolve_loss
from rldistill.losses.temperature import auto_temperature as auto_temperature
