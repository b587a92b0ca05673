"""Training with PyTorch Lightning: what the assignments share.

* `checkpoints`: the last checkpoint, which is always complete, also after Ctrl-C, and the best one by a measure
* `averaging`: a running mean of the weights, which draws better samples than the last ones
* `quality`: measures of samples
* `divergence`: a callback that restores an earlier state when training diverges
* `display`: the progress bar, and sample images after every epoch
* `fitting`: `fit`, a `Trainer` with these callbacks
* `augmentation`: small random affine changes of images
"""

from ebmcourse.training.augmentation import random_affine
from ebmcourse.training.averaging import WeightAverage
from ebmcourse.training.checkpoints import BestCheckpoint, LastCheckpoint, to_plain
from ebmcourse.training.display import Progress, SamplePictures
from ebmcourse.training.divergence import DivergenceRollback
from ebmcourse.training.fitting import fit
from ebmcourse.training.quality import diversity, frechet_distance, sample_quality

__all__ = [
    "BestCheckpoint",
    "DivergenceRollback",
    "LastCheckpoint",
    "Progress",
    "SamplePictures",
    "WeightAverage",
    "diversity",
    "fit",
    "frechet_distance",
    "random_affine",
    "sample_quality",
    "to_plain",
]
