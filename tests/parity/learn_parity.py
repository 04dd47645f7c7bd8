#!/usr/bin/env python3
"""Does Retort learn at PyTorch's pace? The shipped resnet20 recipe on CIFAR-100, two epochs in both, over several seeds.

    tests/parity/learn_parity.py [--build build] [--seeds 3] [--epochs 2]

Recipe, augmentation and split sizes are read from configs/resnet20_cifar100.cfg. The two sides draw different random
numbers, so single accuracies differ; the means must not differ by more than three standard errors.
Needs numpy and PyTorch (1.13 or newer), Python 3.11, CIFAR-100 and a built `train`.
"""
import argparse
import math
import pathlib
import statistics
import sys
import tempfile
import time
import tomllib

import numpy
import torch
from torch.nn import functional as F

import parity_common as common
import peer_models


def load_config(path):
    """A config with what it extends underneath, table by table."""
    config = tomllib.loads(path.read_text())
    if "extends" in config:
        base = load_config(path.parent / config.pop("extends"))
        for key, value in config.items():
            base[key] = {**base.get(key, {}), **value} if isinstance(value, dict) else value
        return base
    return config


def augment(images, padding, generator):
    """Padded crop and horizontal flip, each image on its own."""
    n, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    top = torch.randint(2 * padding + 1, (n, 1), generator=generator)
    left = torch.randint(2 * padding + 1, (n, 1), generator=generator)
    flip = torch.rand((n, 1), generator=generator) < 0.5
    rows = top + torch.arange(height)
    columns = torch.where(flip, torch.arange(width - 1, -1, -1), torch.arange(width)) + left
    return padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def accuracy(model, images, labels):
    model.eval()
    with torch.no_grad():
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in zip(images.split(500), labels.split(500)))
    model.train()
    return right / len(labels)


def train_in_torch(config, seed, epochs):
    data, optimizer_config = config["data"], config["optimizer"]
    assert [a if isinstance(a, str) else a["name"] for a in data["augment"]] == ["crop", "flip"], "another augmentation"
    mean, std = data["normalize"]["mean"], data["normalize"]["std"]
    images, labels = common.cifar100("train.bin")
    order = numpy.random.default_rng(seed).permutation(len(labels))
    held_out, kept = order[:data["validation"]], order[data["validation"]:]

    def tensors(indices):
        return torch.from_numpy(images[indices].astype(numpy.float32) / 255), torch.from_numpy(labels[indices])

    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (mean, std))
    validation_images, validation_labels = tensors(held_out)
    validation_images = ((validation_images - mean) / std).contiguous(memory_format=torch.channels_last)
    train_images, train_labels = tensors(kept)

    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = peer_models.make(config["model"]["arch"], 100, zero_gamma=config["model"].get("zero_init_residual", False))
    model = model.to(memory_format=torch.channels_last)
    decay = optimizer_config["weight_decay"]
    groups = model.parameters() if optimizer_config["decay"] == "all" else peer_models.parameter_groups(model, decay)
    optimizer = torch.optim.SGD(groups, lr=optimizer_config["lr"], momentum=optimizer_config["momentum"],
                                nesterov=optimizer_config["nesterov"], weight_decay=decay)
    result = []
    for _ in range(epochs):
        for batch in torch.randperm(len(kept), generator=generator).split(data["batch_size"]):
            x = augment(train_images[batch], data["augment"][0]["padding"], generator)
            x = ((x - mean) / std).contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(model(x), train_labels[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        result.append(accuracy(model, validation_images, validation_labels))
    return result


def train_in_retort(arguments, config_path, seed, folder):
    name = f"seed{seed}"
    common.run_train(arguments.build, config_path, "--set", f"seed={seed}", "--set", f"name={name}", "--set",
                     f"train.epochs={arguments.epochs}", "--set", "train.evaluate_test=false", "--set",
                     f"output.root={folder}", "--set", f"device={arguments.device}")
    return [line["val"]["top1"] for line in common.metrics(common.version_folder(folder, name), "epoch")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=common.ROOT / "build")
    parser.add_argument("--config", type=pathlib.Path, default=common.ROOT / "configs" / "resnet20_cifar100.cfg")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="of Retort")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch")
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error("--seeds: at least 2, one says nothing about the noise")
    torch.set_num_threads(arguments.threads)
    config = load_config(arguments.config)
    milestones = config["schedule"].get("milestones", [])
    if config["schedule"]["type"] not in ("constant", "milestones") or any(m < arguments.epochs for m in milestones):
        parser.error("this compares epochs at a constant learning rate")

    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, arguments.seeds + 1):
            begin = time.perf_counter()
            ours.append(train_in_retort(arguments, arguments.config, seed, folder))
            middle = time.perf_counter()
            theirs.append(train_in_torch(config, seed, arguments.epochs))
            end = time.perf_counter()
            text = ["  ".join(f"{100 * a:5.2f} %" for a in side[-1]) for side in (ours, theirs)]
            print(f"seed {seed}   Retort {text[0]} ({middle - begin:.0f} s)   PyTorch {text[1]} ({end - middle:.0f} s)", flush=True)

    failed = False
    for epoch in range(arguments.epochs):
        a, b = ([100 * side[epoch] for side in runs] for runs in (ours, theirs))
        error = math.sqrt((statistics.variance(a) + statistics.variance(b)) / arguments.seeds)
        difference = statistics.mean(a) - statistics.mean(b)
        verdict = "within noise" if abs(difference) <= 3 * error else "DIFFERENT"
        failed |= epoch == arguments.epochs - 1 and abs(difference) > 3 * error
        print(f"after epoch {epoch + 1}: Retort {statistics.mean(a):.2f} %, PyTorch {statistics.mean(b):.2f} %, "
              f"difference {difference:+.2f} ± {error:.2f} (standard error): {verdict}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
