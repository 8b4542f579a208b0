"""The experiments of the chapter on DCFF."""

from dataclasses import dataclass, field, replace

import torch
from torch import nn

from papernets.data import Split, photograph_patches
from papernets.nn import ConvNet, surgery
from papernets.papers.dcff.method import DCFF, FusedConv2d, compact, fuse_narrow_, kept_width, refresh_, select
from papernets.training import cosine, fit, loader, logits, seed_everything, single_thread

ARMS = ("fused", "narrow", "l1", "random")


@dataclass(frozen=True)
class Trial:
    """One run: test accuracy (a share) after every epoch, the trained network, and how many kept filters changed."""

    accuracy: list[float]
    model: nn.Module
    exchanged: list[int] = field(default_factory=list)


def keep_largest(model: nn.Module, rate: float, example: torch.Tensor) -> nn.Module:
    """A narrower copy of a trained network: in every convolution the filters of largest L1 norm. The usual baseline."""
    kept = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            norm = module.weight.detach().abs().sum((1, 2, 3))
            kept[name] = select(norm, kept_width(len(norm), rate))
    return surgery.keep_filters(model, kept, example)


def trial(arm: str, data: tuple[Split, Split], *, widths=(32, 64, 64), rate: float = 0.5, epochs: int = 20,
          seed: int = 0, lr: float = 0.05, batch: int = 64, config: DCFF | None = None) -> Trial:
    """Train one arm of the comparison; every arm has ``epochs`` epochs, the same seed and the same order of the data.

    ``fused``: fused training. ``random``: the same, with random filters kept. ``narrow``: the narrow network directly.
    ``l1``: the wide network for half the epochs, its filters of largest L1 norm kept, fine-tuned for the other half; each
    half has a cosine of its own, the second from a fifth of the rate.
    """
    if arm not in ARMS:
        raise ValueError(f"no arm {arm!r}; choose from {', '.join(ARMS)}")
    train, test = loader(data[0], batch, True), loader(data[1], 500, False)
    classes, channels = len(data[0].classes), data[0].images.shape[1]
    with single_thread():
        seed_everything(seed)
        if arm == "l1":
            model = ConvNet(widths, classes, channels)
            half = epochs // 2
            first = fit(model, train, test, epochs=half, lr=cosine(lr, half), seed=seed).accuracy if half else []
            model = keep_largest(model, rate, data[0].images[:1])
            rest = epochs - half
            second = fit(model, train, test, epochs=rest, lr=cosine(lr / 5, rest), seed=seed + 1).accuracy
            return Trial(first + second, model)
        model = ConvNet([kept_width(C, rate) for C in widths], classes, channels)
        before, exchanged = None, []
        if arm != "narrow":
            full = {name: C for (name, module), C in zip(
                ((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d)), widths)}
            fuse_narrow_(model, full, replace(config or DCFF(), random=arm == "random"))

            def before(model, epoch):
                kept = [set(m.kept.tolist()) for m in model.modules() if isinstance(m, FusedConv2d)]
                refresh_(model, epoch, epochs)
                now = [set(m.kept.tolist()) for m in model.modules() if isinstance(m, FusedConv2d)]
                if epoch > 0:
                    exchanged.append(sum(len(new - old) for old, new in zip(kept, now)))

        history = fit(model, train, test, epochs=epochs, lr=cosine(lr, epochs), seed=seed, before_epoch=before)
        return Trial(history.accuracy, model, exchanged)


def compare(seed: int, *, train: int = 2000, test: int = 1000, epochs: int = 20,
            widths=(32, 64, 64), rate: float = 0.5) -> dict:
    """All arms for one seed on the photograph patches: their accuracies, and the fused network against its export."""
    data = photograph_patches(train, test, seed)
    runs = {arm: trial(arm, data, widths=widths, rate=rate, epochs=epochs, seed=seed) for arm in ARMS}
    fused = runs["fused"].model
    with single_thread():
        gap = logits(fused, data[1].images) - logits(compact(fused), data[1].images)
    return {"seed": seed, "export": float(gap.abs().max()), **{arm: run.accuracy for arm, run in runs.items()}}
