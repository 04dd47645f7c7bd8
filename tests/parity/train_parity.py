#!/usr/bin/env python3
"""Trains the same network from the same weights on the same images in PyTorch and in Retort and compares every step.

    tests/parity/train_parity.py [--build build] [--cases f64,resnet20,resnet18] [--keep FOLDER]

PyTorch writes the initial weights as safetensors; both then train 20 steps on CIFAR-100 in file order, without
augmentation: SGD (lr 0.05, momentum 0.9, weight decay 5e-4 on convolution and linear weights), label smoothing 0.1.

f64        resnet8, batch 16: every loss and all final weights within 1e-9 relative
resnet20   f32, batch 64: the first loss within 1e-5, all within 1e-3
resnet18   f32, batch 32: the same

Needs numpy and PyTorch (1.13 or newer) and a built `train`.
"""
import argparse
import pathlib
import sys
import tempfile

import numpy
import torch
from torch.nn import functional as F

import parity_common as common
import peer_models

STEPS, LR, MOMENTUM, WEIGHT_DECAY, SMOOTHING = 20, 0.05, 0.9, 5e-4, 0.1
# In f32 the last BN of each block starts at 0. With 1, 20 steps at this learning rate amplify rounding so much that
# PyTorch's own two memory layouts come to losses 1e-2 (resnet20) and 3e-2 (resnet18) apart: nothing could be compared.
# In f64 it starts at 1, so that every layer has a gradient from the first step.
CASES = {  # name: arch, batch, precision, BN starts at 0, tolerance of the first loss, all losses, the final weights
    "f64": ("resnet8", 16, "f64", False, 1e-9, 1e-9, 1e-9),
    "resnet20": ("resnet20", 64, "f32", True, 1e-5, 1e-3, None),
    "resnet18": ("resnet18", 32, "f32", True, 1e-5, 1e-3, None),
}
CONFIG = """# Written by tests/parity/train_parity.py
name = "{name}"
seed = 1
device = "{device}"
precision = "{precision}"
{strict}
[data]
dataset = "cifar100"
validation = 0
shuffle = false
augment = []
normalize = {{ mean = [{mean}], std = [{std}] }}
batch_size = {batch}
[model]
arch = "{arch}"
stem = "cifar"
shortcut = "projection"
init = "{init}"
[optimizer]
type = "sgd"
lr = {lr}
momentum = {momentum}
nesterov = false
weight_decay = {weight_decay}
decay = "weights"
[schedule]
type = "constant"
[train]
max_steps = {steps}
evaluate_test = false
label_smoothing = {smoothing}
[output]
root = "{root}"
"""


def numpy_state(model):
    return {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}


def train_in_torch(arch, batch, dtype, zero_gamma, threads):
    torch.manual_seed(7)
    torch.set_num_threads(threads)
    model = peer_models.make(arch, 100, zero_gamma=zero_gamma).to(dtype)
    initial = numpy_state(model)
    images, labels = common.cifar100("train.bin")
    optimizer = torch.optim.SGD(peer_models.parameter_groups(model, WEIGHT_DECAY), lr=LR, momentum=MOMENTUM)
    numpy_type = numpy.float64 if dtype == torch.float64 else numpy.float32
    losses = []
    for step in range(STEPS):
        part = slice(step * batch, (step + 1) * batch)
        x = torch.from_numpy(common.normalise(images[part], numpy_type))
        loss = F.cross_entropy(model(x), torch.from_numpy(labels[part]), label_smoothing=SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return initial, losses, numpy_state(model)


def compare(name, arguments, folder):
    arch, batch, precision, zero_gamma, first_tolerance, all_tolerance, weight_tolerance = CASES[name]
    dtype = torch.float64 if precision == "f64" else torch.float32
    initial, expected, final = train_in_torch(arch, batch, dtype, zero_gamma, arguments.threads)
    init = folder / f"{name}-init.safetensors"
    common.write_safetensors(init, initial)
    config = folder / f"{name}.cfg"
    strict = "strict_math = true" if precision == "f32" else ""
    config.write_text(CONFIG.format(name=name, precision=precision, strict=strict, batch=batch, arch=arch, init=init, lr=LR,
                                    momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, steps=STEPS, smoothing=SMOOTHING,
                                    device=arguments.device, root=folder / "runs",
                                    mean=", ".join(map(str, common.CIFAR100_MEAN)),
                                    std=", ".join(map(str, common.CIFAR100_STD))))
    common.run_train(arguments.build, config)
    run = common.version_folder(folder / "runs", name)
    found = [line["loss"] for line in common.metrics(run, "step")]
    weights = common.read_safetensors(run / "last.safetensors")

    print(f"\n{name}: {arch}, batch {batch}, {precision}, {STEPS} steps, PyTorch {torch.__version__}")
    if len(found) != STEPS:
        print(f"  FAILED: {len(found)} steps in metrics.jsonl, expected {STEPS}")
        return False
    errors = [abs(a - b) / abs(b) for a, b in zip(found, expected)]
    for step in range(STEPS):
        if step < 3 or step % 5 == 4:
            print(f"  step {step + 1:2}   PyTorch {expected[step]:.12f}   Retort {found[step]:.12f}   relative {errors[step]:.1e}")
    ok = report("first loss", errors[0], first_tolerance)
    ok &= report("all losses", max(errors), all_tolerance)

    missing = sorted(set(final) - set(weights)) + sorted(set(weights) - set(final))
    if missing:
        print(f"  FAILED: names on one side only: {', '.join(missing[:6])}{' ...' if len(missing) > 6 else ''}")
        return False
    differences = {key: common.relative(weights[key], final[key]) for key in final}
    worst = max(differences, key=differences.get)
    return ok & report(f"final weights (worst: {worst})", differences[worst], weight_tolerance)


def report(what, error, tolerance):
    if tolerance is None:
        print(f"  {what}: {error:.1e} (for information)")
        return True
    passed = error <= tolerance  # False for NaN
    print(f"  {what}: {error:.1e}, allowed {tolerance:.0e}: {'ok' if passed else 'FAILED'}")
    return passed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=common.ROOT / "build")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--device", default="cpu", help="of Retort")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch")
    parser.add_argument("--keep", help="keep configs, weights and runs in this folder")
    arguments = parser.parse_args()
    for name in arguments.cases.split(","):
        if name not in CASES:
            parser.error(f"unknown case {name}: {', '.join(CASES)}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = common.fresh_folder(arguments.keep).resolve() if arguments.keep else pathlib.Path(temporary)
        failed = [name for name in arguments.cases.split(",") if not compare(name, arguments, folder)]
    print(f"\nfailed: {', '.join(failed)}" if failed else "\nevery case agrees with PyTorch")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
