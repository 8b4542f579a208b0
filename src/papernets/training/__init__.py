"""Training: one loop on Lightning Fabric, the frame of an experiment, schedules, losses, changes of images, full recipes.

Checkpoints resume. What belongs to one method alone stays with the method.
"""

from papernets.training._augment import (
    CIFAR10_POLICY,
    OPERATIONS,
    RANDOM_OPERATIONS,
    Pictures,
    RepeatedSampler,
    auto_augment,
    crop_and_flip,
    cutmix,
    erase,
    lighting,
    mixed,
    mixing,
    mixup,
    rand_augment,
)
from papernets.training._evaluate import detection_score, segmentation_score
from papernets.training._experiment import Task, pair, row, scores
from papernets.training._loop import History, accuracy, fit, loader, logits
from papernets.training._losses import clipped_sgd, decay_groups, smoothed, taught_by
from papernets.training._norms import reestimate_
from papernets.training._recipe import RUNS, Recipe, run_recipe, trained
from papernets.training._schedules import Schedule, cosine, steps, warm_cosine, with_warmup
from papernets.training._seed import seed_everything, single_thread

__all__ = ["CIFAR10_POLICY", "OPERATIONS", "RANDOM_OPERATIONS", "RUNS", "History", "Pictures", "Recipe", "RepeatedSampler",
           "Schedule", "Task", "accuracy", "auto_augment", "clipped_sgd", "cosine", "crop_and_flip", "cutmix", "decay_groups",
           "detection_score", "erase", "fit", "lighting", "loader", "logits", "mixed", "mixing", "mixup", "pair",
           "rand_augment", "reestimate_", "row", "run_recipe", "scores", "seed_everything", "segmentation_score",
           "single_thread", "smoothed", "steps", "taught_by", "trained", "warm_cosine", "with_warmup"]
