#!/usr/bin/env python3
"""Retort against PyTorch on an NVIDIA GPU: training steps in bf16, in turn, in the same run on the same device.

    tests/bench/compare_gpu.py [--cases resnet18:128,resnet18:512,resnet20:512] [--rounds 3] [--output FILE]

PyTorch runs channels-last under bf16 autocast with its fused optimizer: as it is, compiled, and compiled with CUDA
graphs (reduce-overhead); the best counts. Times are CUDA events on its side; Retort's are those of its step_bench.
"""
import argparse
import os
import pathlib
import subprocess

import compare_common as common


def gpu_description():
    fields = "name,driver_version,memory.total,power.limit,clocks.max.sm"
    done = subprocess.run(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"], capture_output=True, text=True)
    return dict(common.device_description(), gpu=done.stdout.strip() or "unknown")


def sides_of(args, peers, arch, batch):
    shape = ["--arch", arch, "--batch", batch, "--steps", args.steps, "--warmup", args.warmup, "--classes", 100,
             "--device", "cuda", "--precision", args.precision, "--stem", args.stem]
    sides = {}
    if not args.peers_only:
        sides["Retort"] = lambda: common.run_json([args.build / "tests/bench/step_bench", *shape, "--json"])
    for peer in peers.values():
        for mode in args.modes.split(","):
            command = [peer["python"], common.HERE / "peer_step.py", *shape, "--layout", "channels_last", "--compile", mode]
            label = f"PyTorch {peer['version']} " + ("as it is" if mode == "none" else f"compiled, {mode}")
            sides[label] = lambda command=command: common.run_json(command)
    return sides


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="resnet18:128,resnet18:512,resnet20:512", help="arch:batch,...")
    parser.add_argument("--modes", default="none,default,reduce-overhead", help="of torch.compile")
    parser.add_argument("--stem", default="cifar")
    parser.add_argument("--precision", default="bf16", choices=["bf16", "tf32", "f32"])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--warmup", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default="", help="name=python,...")
    parser.add_argument("--peers-only", action="store_true", help="measure PyTorch alone")
    parser.add_argument("--build", type=pathlib.Path, default=common.ROOT / "build")
    parser.add_argument("--output", help="where the JSON goes (default: tests/bench/results/gpu.json)")
    args = parser.parse_args()
    os.environ.setdefault("TORCHINDUCTOR_FX_GRAPH_CACHE", "1")  # later rounds need not compile again
    peers = common.find_peers(args.peers)
    comparisons = []
    device, versions = gpu_description(), {name: peer["version"] for name, peer in peers.items()}
    for case in args.cases.split(","):
        arch, _, batch = case.partition(":")
        results = common.measure_in_turn(sides_of(args, peers, arch, int(batch or 128)), args.rounds, "images_per_second")
        title = f"training step, {arch}, {args.stem} stem, batch {batch or 128}, {args.precision}"
        comparisons.append(common.compare(title, results, "Retort", "images_per_second"))
        common.print_comparison(comparisons[-1], 0)
        path = common.write_results("gpu", device, versions, comparisons, args.output)  # a run cut off loses nothing
    print(f"\nwritten: {path}")


if __name__ == "__main__":
    main()
