"""PyTorch's training step: forward, label-smoothed cross-entropy, backward, SGD with momentum and weight decay.

    peer_step.py --arch resnet18 --batch 128 --steps 5 --warmup 2 --layout channels_last [--compile default] [--device cuda]

Prints one JSON object like that of Retort's step_bench. The batch lies ready as normalised floats: loading and
augmenting are not part of PyTorch's time. Works with PyTorch 1.13 and newer.
"""
import argparse
import json
import resource
import statistics
import time

import torch
from torch.nn import functional as F

import peer_models


def make_optimizer(model, device):
    groups = peer_models.parameter_groups(model, 5e-4)
    try:  # one fused kernel, where this PyTorch has it for the device
        return torch.optim.SGD(groups, lr=0.05, momentum=0.9, fused=True), "fused"
    except (TypeError, RuntimeError):
        return torch.optim.SGD(groups, lr=0.05, momentum=0.9, foreach=device.type == "cuda"), "plain"


def make_step(args, device):
    memory_format = torch.channels_last if args.layout == "channels_last" else torch.contiguous_format
    torch.manual_seed(0)
    model = peer_models.make(args.arch, args.classes, args.stem).to(device).to(memory_format=memory_format)
    optimizer, kind = make_optimizer(model, device)
    size = 224 if args.stem == "imagenet" else 32
    images = torch.randn(args.batch, 3, size, size, device=device).contiguous(memory_format=memory_format)
    labels = torch.randint(args.classes, (args.batch,), device=device)

    def loss_of(x, y):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=args.precision == "bf16"):
            logits = model(x)
        return F.cross_entropy(logits.float(), y, label_smoothing=0.1)

    compiled = loss_of if args.compile == "none" else torch.compile(loss_of, mode=args.compile)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = compiled(images, labels)
        loss.backward()
        optimizer.step()
        return loss

    return step, kind


def time_cpu(step, steps):
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def time_cuda(step, steps):
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]
    marks[0].record()
    for mark in marks[1:]:
        step()
        mark.record()
    torch.cuda.synchronize()
    return [a.elapsed_time(b) for a, b in zip(marks, marks[1:])]


def argument_parser(arch, batch):
    parser = argparse.ArgumentParser()
    parser.add_argument("--arch", default=arch)
    parser.add_argument("--stem", default="cifar")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--layout", choices=["contiguous", "channels_last"], default="channels_last")
    parser.add_argument("--compile", choices=["none", "default", "reduce-overhead", "max-autotune"], default="none")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["f32", "tf32", "bf16"], default="f32")
    parser.add_argument("--threads", type=int, default=2)
    return parser


def measure(args, make_step):
    """Times the step that make_step(args, device) gives; what is printed of it."""
    device = torch.device(args.device)
    torch.set_num_threads(args.threads)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.precision != "f32"
    step, optimizer = make_step(args, device)
    for _ in range(args.warmup):
        loss = step()
    loss.item()
    times = (time_cuda if device.type == "cuda" else time_cpu)(step, args.steps)
    median = statistics.median(times)
    return {
        "arch": args.arch, "batch": args.batch, "images_per_second": args.batch * 1e3 / median, "median_ms": median,
        "min_ms": min(times), "max_ms": max(times), "layout": args.layout, "compile": args.compile,
        "precision": args.precision, "optimizer": optimizer, "version": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "peak_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        "rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


if __name__ == "__main__":
    print(json.dumps(measure(argument_parser("resnet18", 128).parse_args(), make_step)))
