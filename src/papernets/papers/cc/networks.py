"""The networks of CC, and what they cost."""

import functools

from papernets.measure import count_of, size_of
from papernets.nn import VGG, DenseNetCIFAR, GoogLeNet, Network, Networks, ResNetCIFAR, ResNetImageNet

#: The networks of the released code.
NETWORKS = Networks({
    "resnet56": Network(functools.partial(ResNetCIFAR, 56)), "densenet40": Network(DenseNetCIFAR),
    "googlenet": Network(GoogLeNet), "vgg16": Network(VGG), "resnet50": Network(ResNetImageNet, (3, 224, 224))})


def counts(name: str) -> dict[str, int]:
    """MACs and parameters of a dense network of the paper, and of MACs those of convolutions and of the classifier."""
    made = NETWORKS[name]
    size, linear = size_of(made.build, made.shape), count_of(made.build, made.shape)["classifier"].macs
    return {"macs": size["macs"], "macs.conv": size["macs"] - linear, "macs.fc": linear, "params": size["params"]}
