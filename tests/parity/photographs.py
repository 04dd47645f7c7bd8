"""Photographs of imagenet_samples_240 as networks take them, and networks that tell them apart.

Needs torch, torchvision and pillow.
"""
import sys

import numpy
import torch
from PIL import Image
from torchvision import transforms
from torchvision.models.resnet import BasicBlock, Bottleneck

import parity_common as common

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def files(count):
    """So many of them, evenly over the set."""
    folder = common.datasets() / "imagenet_samples_240"
    found = sorted(folder.glob("*.JPEG"))
    if len(found) < count:
        sys.exit(f"{folder}: {len(found)} photographs, {count} are needed")
    return found[:: len(found) // count][:count]


def middle(file):
    """The middle 224x224 pixels, as torchvision's evaluation takes them."""
    with Image.open(file) as opened:
        return transforms.CenterCrop(224)(transforms.Resize(256)(opened.convert("RGB")))


def network_input(pictures):
    pixels = numpy.stack([numpy.asarray(picture).transpose(2, 0, 1) for picture in pictures])
    return common.normalise(pixels, numpy.float32, IMAGENET_MEAN, IMAGENET_STD)


def logits(model, images):
    with torch.no_grad():
        return torch.cat([model(batch) for batch in torch.as_tensor(images).split(16)]).numpy()


def calibrate(model, images):
    """Gives a network of random weights the statistics of the images, and logits that differ by about 1 from image to
    image: without, deep networks are all but constant and any tolerance holds. The last normalisation of a residual
    block gets a small gain, as training gives it: otherwise a deep ResNet is at the limit of what f32 can compute."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.2)
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        for block in model.modules():
            if isinstance(block, (BasicBlock, Bottleneck)):
                (block.bn3 if isinstance(block, Bottleneck) else block.bn2).weight *= 0.2
    logits(model.train(), images)
    last = [module for module in model.modules() if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d))][-1]
    spread = float(logits(model.eval(), images).std(0).mean())
    with torch.no_grad():
        last.weight /= spread
        last.bias /= spread
    return model
