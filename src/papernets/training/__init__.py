"""Training: one loop on Lightning Fabric, seeding, learning-rate schedules, checkpoints that resume, full recipes."""

from papernets.training._loop import History, accuracy, fit, loader, logits
from papernets.training._recipe import Recipe, crop_and_flip, run_recipe
from papernets.training._schedules import Schedule, cosine, steps, with_warmup
from papernets.training._seed import seed_everything, single_thread

__all__ = ["History", "Recipe", "Schedule", "accuracy", "cosine", "crop_and_flip", "fit", "loader", "logits",
           "run_recipe", "seed_everything", "single_thread", "steps", "with_warmup"]
