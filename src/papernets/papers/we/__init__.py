"""Weight Evolution: Improving Deep Neural Networks Training through Evolving Inferior Weight Values."""

from papernets.papers.we.method import (
    CIFAR, IMAGENET, KINDS, MIXES, REFILLS, WE, WE_IMAGENET, Change, Evolution, Falling, Stages, cross_kernels, cross_pointwise,
    evolve_, importance, match, mixture, populations, relative_importance, select, threshold, weak)
