"""Backbones that two or more papers use, the choice of layers, and how others are put in their place."""

from papernets.nn._choose import chosen, rounded
from papernets.nn._densenet import DenseNetCIFAR
from papernets.nn._faster_rcnn import FasterRCNN
from papernets.nn._flow import Flow, flow
from papernets.nn._googlenet import GOOGLENET_WIDTHS, GoogLeNet
from papernets.nn._mobilenet import MobileNetV1, MobileNetV2, MobileNetV3
from papernets.nn._network import Network, Networks
from papernets.nn._packed import Packed
from papernets.nn._pspnet import PSPNet
from papernets.nn._published import load_published
from papernets.nn._replace import conv_like, linear_like, plain_like, replace_, replaced
from papernets.nn._resnet import PadShortcut, ResNetBasic, ResNetCIFAR, ResNetImageNet
from papernets.nn._small import ConvNet, SmallMLP, SmallMobileNet
from papernets.nn._vgg import VGG, VGG16_WIDTHS
from papernets.nn._vit import DeiT

__all__ = ["GOOGLENET_WIDTHS", "VGG", "VGG16_WIDTHS", "ConvNet", "DeiT", "DenseNetCIFAR", "FasterRCNN", "Flow", "GoogLeNet",
           "MobileNetV1", "MobileNetV2", "MobileNetV3", "Network", "Networks", "PSPNet", "Packed", "PadShortcut",
           "ResNetBasic", "ResNetCIFAR", "ResNetImageNet", "SmallMLP", "SmallMobileNet", "chosen", "conv_like", "flow",
           "linear_like", "load_published", "plain_like", "replace_", "replaced", "rounded"]
