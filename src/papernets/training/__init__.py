"""Training: one loop on Lightning Fabric, seeding, schedules, checkpoints that resume, changes of images, full recipes."""

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
    mixed,
    mixing,
    mixup,
    rand_augment,
)
from papernets.training._evaluate import detection_score, segmentation_score
from papernets.training._loop import History, accuracy, fit, loader, logits
from papernets.training._recipe import Recipe, run_recipe
from papernets.training._schedules import Schedule, cosine, steps, with_warmup
from papernets.training._seed import seed_everything, single_thread

__all__ = ["CIFAR10_POLICY", "OPERATIONS", "RANDOM_OPERATIONS", "History", "Pictures", "Recipe", "RepeatedSampler",
           "Schedule", "accuracy", "auto_augment", "cosine", "crop_and_flip", "cutmix", "detection_score", "erase", "fit",
           "loader", "logits", "mixed", "mixing", "mixup", "rand_augment", "run_recipe", "seed_everything",
           "segmentation_score", "single_thread", "steps", "with_warmup"]
