"""Training with PyTorch Lightning: what the assignments share.

* `checkpoints`: one checkpoint that is always complete, also after Ctrl-C
* `divergence`: a callback that restores an earlier state when training diverges
* `display`: the progress bar, and sample images after every epoch
* `fitting`: `fit`, a `Trainer` with these callbacks
* `augmentation`: small random affine changes of images
"""

from ebmcourse.training.augmentation import random_affine
from ebmcourse.training.checkpoints import LastCheckpoint, to_plain
from ebmcourse.training.display import Progress, SamplePictures
from ebmcourse.training.divergence import DivergenceRollback
from ebmcourse.training.fitting import fit

__all__ = ["DivergenceRollback", "LastCheckpoint", "Progress", "SamplePictures", "fit", "random_affine", "to_plain"]
