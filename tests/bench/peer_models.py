"""The ResNets that Retort trains, in plain PyTorch (1.13 and newer) with torchvision's parameter names.

make("resnet18", classes=100, stem="cifar", shortcut="projection"): ResNet 10 to 152 with the CIFAR or the ImageNet stem,
the thin resnet8 ... resnet110 and the four times wider resnet8x4, resnet32x4 of the distillation tables.
Run as a program it checks the parameter counts.
"""
import torch
from torch import nn
from torch.nn import functional as F

WIDE = {10: ("basic", [1, 1, 1, 1]), 18: ("basic", [2, 2, 2, 2]), 34: ("basic", [3, 4, 6, 3]),
        50: ("bottleneck", [3, 4, 6, 3]), 101: ("bottleneck", [3, 4, 23, 3]), 152: ("bottleneck", [3, 8, 36, 3])}
THIN = (8, 14, 20, 32, 44, 56, 110)

PARAMETERS = {  # (arch, classes): published counts, CIFAR stem, projection shortcuts
    ("resnet10", 10): 4_903_242, ("resnet10", 100): 4_949_412, ("resnet18", 10): 11_173_962,
    ("resnet18", 100): 11_220_132, ("resnet34", 10): 21_282_122, ("resnet34", 100): 21_328_292,
    ("resnet50", 10): 23_520_842, ("resnet50", 100): 23_705_252, ("resnet101", 10): 42_512_970,
    ("resnet101", 100): 42_697_380, ("resnet152", 10): 58_156_618, ("resnet152", 100): 58_341_028,
    ("resnet8", 100): 83_892, ("resnet14", 100): 181_108, ("resnet20", 100): 278_324, ("resnet32", 100): 472_756,
    ("resnet44", 100): 667_188, ("resnet56", 100): 861_620, ("resnet110", 100): 1_736_564,
    ("resnet8x4", 100): 1_233_540, ("resnet32x4", 100): 7_433_860,
}
PARAMETERS_IMAGENET_STEM = {("resnet50", 2): 23_512_130, ("resnet18", 2): 11_177_538, ("resnet18", 11): 11_182_155}


class PadShortcut(nn.Module):
    """He et al. 2016, option A: every second pixel, the new channels zero, half of them on either side."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.extra, self.stride = outputs - inputs, stride

    def forward(self, x):
        return F.pad(x[:, :, ::self.stride, ::self.stride],
                     (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))


def conv(inputs, outputs, kernel, stride=1):
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


def make_shortcut(kind, inputs, outputs, stride):
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    if kind == "pad":
        return PadShortcut(inputs, outputs, stride)
    return nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class Basic(nn.Module):
    expansion = 1

    def __init__(self, inputs, width, stride, shortcut):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3), nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = make_shortcut(shortcut, inputs, width, stride)
        self.last_bn = [self.bn2]  # in a list: not registered a second time

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.downsample(x)
        return self.relu(y)


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inputs, width, stride, shortcut):
        super().__init__()
        outputs = width * self.expansion
        self.conv1, self.bn1 = conv(inputs, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, outputs, 1), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = make_shortcut(shortcut, inputs, outputs, stride)
        self.last_bn = [self.bn3]

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += self.downsample(x)
        return self.relu(y)


class ResNet(nn.Module):
    def __init__(self, block, stem_width, widths, depths, classes, stem, shortcut):
        super().__init__()
        if stem == "cifar":
            self.conv1, self.maxpool = conv(3, stem_width, 3), nn.Identity()
        else:
            self.conv1, self.maxpool = conv(3, stem_width, 7, 2), nn.MaxPool2d(3, 2, 1)
        self.bn1, self.relu = nn.BatchNorm2d(stem_width), nn.ReLU(inplace=True)
        channels = stem_width
        self.stages = len(widths)
        for i, (width, depth) in enumerate(zip(widths, depths)):
            blocks = []
            for j in range(depth):
                blocks.append(block(channels, width, 2 if i > 0 and j == 0 else 1, shortcut))
                channels = width * block.expansion
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for i in range(self.stages):
            x = getattr(self, f"layer{i + 1}")(x)
        return self.fc(x.mean((2, 3)))


def make(arch, classes=100, stem="cifar", shortcut="projection", zero_gamma=True):
    """zero_gamma: the last BN of each block starts at 0 (Goyal et al. 2017)."""
    if not arch.startswith("resnet"):
        raise ValueError(f"unknown arch {arch}")
    depth, _, width = arch[len("resnet"):].partition("x")
    depth = int(depth)
    if not width and depth in WIDE:
        kind, depths = WIDE[depth]
        model = ResNet(Basic if kind == "basic" else Bottleneck, 64, [64, 128, 256, 512], depths, classes, stem, shortcut)
    elif width == "4" or (not width and depth in THIN):
        k = int(width or 1)
        model = ResNet(Basic, 32 if width else 16, [16 * k, 32 * k, 64 * k], [(depth - 2) // 6] * 3, classes, stem, shortcut)
    else:
        raise ValueError(f"unknown arch {arch}")
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if zero_gamma:
        for module in model.modules():
            if hasattr(module, "last_bn"):
                nn.init.zeros_(module.last_bn[0].weight)
    return model


def parameter_count(model):
    return sum(p.numel() for p in model.parameters())


def parameter_groups(model, weight_decay):
    """Weight decay on the weights of convolutions and linear layers only."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def check_parameter_counts():
    for table, stem in ((PARAMETERS, "cifar"), (PARAMETERS_IMAGENET_STEM, "imagenet")):
        for (arch, classes), expected in table.items():
            found = parameter_count(make(arch, classes, stem))
            assert found == expected, f"{arch}, {classes} classes, {stem} stem: {found} parameters, expected {expected}"
    found = make("resnet20", 10, shortcut="pad")(torch.zeros(2, 3, 32, 32)).shape
    assert found == (2, 10), found


if __name__ == "__main__":
    check_parameter_counts()
    print(f"parameter counts of {len(PARAMETERS) + len(PARAMETERS_IMAGENET_STEM)} networks as published")
