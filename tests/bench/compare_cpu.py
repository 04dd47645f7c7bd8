#!/usr/bin/env python3
"""Retort against PyTorch on this machine's processor, in turn, in the same run, on the same cores.

    tests/bench/compare_cpu.py                          everything, five rounds
    tests/bench/compare_cpu.py --what step --cases resnet20:128 --rounds 3
    tests/bench/compare_cpu.py --peers debian=/usr/bin/python3,newest=/path/to/venv/bin/python

step     a training step (f32): images a second and resident memory, against both memory layouts of every PyTorch
augment  padded crop + flip, and all augmentations of configs/teacher.cfg, on one core, against torchvision
start    process start to the end of the first and the second training step on CIFAR-100 (resnet8x4, batch 32)

PyTorch gets the threads by hand, OPENBLAS_NUM_THREADS=1, tcmalloc where it is installed, its fused optimizer where it
has one; the best of its modes counts. Nothing else should run on the machine meanwhile.
"""
import argparse
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import compare_common as common

STEPS = {"resnet18": (3, 1), "resnet8x4": (6, 2), "resnet20": (12, 3)}  # (measured, warm-up): about 10 s a run


def step_sides(args, peers, arch, batch):
    steps, warmup = STEPS.get(arch, (4, 2))
    steps = max(steps, steps * 128 // batch // 2)
    shape = ["--arch", arch, "--batch", batch, "--steps", steps, "--warmup", warmup, "--classes", 100, "--device", "cpu",
             "--precision", "f32", "--stem", "cifar"]
    env, _ = common.peer_environment(args.threads)
    sides = {}
    if not args.peers_only:
        sides["Retort"] = lambda: common.run_json([args.build / "tests/bench/step_bench", *shape, "--json"],
                                                  common.our_environment(args.threads))
    for name, peer in peers.items():
        modes = [("contiguous", "none"), ("channels_last", "none")]
        if args.compile and not peer["version"].startswith("1."):
            modes.append(("channels_last", "default"))
        for layout, compiled in modes:
            command = [peer["python"], common.HERE / "peer_step.py", *shape, "--layout", layout, "--compile", compiled,
                       "--threads", args.threads]
            label = f"PyTorch {peer['version']} {layout}" + (" compiled" if compiled != "none" else "")
            sides[label] = lambda command=command: common.run_json(command, env)
    return sides


def augment_sides(args, peers, recipe):
    env, _ = common.peer_environment(1)
    sides = {}
    if not args.peers_only:
        sides["Retort"] = lambda: common.run_json(
            [args.build / "tests/bench/step_bench", "--augment", recipe, "--json"], common.our_environment(1))
    for name, peer in peers.items():
        if subprocess.run([peer["python"], "-c", "import torchvision"], capture_output=True).returncode != 0:
            continue
        for form in ("pil", "tensor"):
            command = [peer["python"], common.HERE / "peer_augment.py", "--recipe", recipe, "--form", form]
            sides[f"torchvision with PyTorch {peer['version']}, {form}"] = lambda command=command: common.run_json(command, env)
    return sides


def time_our_start(args):
    """Runs the real ./train on CIFAR-100 and watches metrics.jsonl for the first two steps."""
    with tempfile.TemporaryDirectory() as root:
        config = pathlib.Path(root) / "start.cfg"
        config.write_text(START_CONFIG.format(root=root))
        begin = time.perf_counter()
        train = subprocess.Popen([args.build / "train", config], env=common.our_environment(args.threads), cwd=common.ROOT,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        seen = []
        while len(seen) < 2 and train.poll() is None:
            time.sleep(0.001)
            for metrics in pathlib.Path(root).glob("start/v*/metrics.jsonl"):
                finished = metrics.read_text().replace(" ", "").count('"kind":"step"')
                seen += [time.perf_counter() - begin] * (finished - len(seen))
        train.send_signal(signal.SIGINT)
        output, _ = train.communicate(timeout=300)
        if len(seen) < 2:
            sys.exit(f"train ended before its second step:\n{output[-2000:]}")
        return {"first_step_seconds": seen[0], "second_step_seconds": seen[1]}


START_CONFIG = """name = "start"
device = "cpu"
[data]
dataset = "cifar100"
batch_size = 32
validation = 0
[model]
arch = "resnet8x4"
[train]
max_steps = 100
evaluate_test = false
[output]
root = "{root}"
"""


def start_sides(args, peers):
    env, _ = common.peer_environment(args.threads)
    sides = {} if args.peers_only else {"Retort": lambda: time_our_start(args)}

    def peer_start(python):
        begin = time.perf_counter()
        command = [python, str(common.HERE / "peer_start.py"), str(datasets()), "--threads", str(args.threads)]
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
        seen = []
        for line in process.stdout:
            if line.startswith("step"):
                seen.append(time.perf_counter() - begin)
        if process.wait() != 0 or len(seen) < 2:
            sys.exit(f"{' '.join(command)} failed")
        return {"first_step_seconds": seen[0], "second_step_seconds": seen[1]}

    for name, peer in peers.items():
        sides[f"PyTorch {peer['version']}"] = lambda peer=peer: peer_start(peer["python"])
    return sides


def datasets():
    return pathlib.Path(os.environ.get("RETORT_DATASETS") or common.ROOT / "datasets")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", default="step,augment,start", help="which of step, augment, start")
    parser.add_argument("--cases", default="resnet18:128,resnet8x4:128,resnet20:128", help="arch:batch,...")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers", default="", help="name=python,...")
    parser.add_argument("--peers-only", action="store_true", help="measure PyTorch alone")
    parser.add_argument("--compile", action="store_true", help="torch.compile as one more mode of the newer PyTorch")
    parser.add_argument("--build", type=pathlib.Path, default=common.ROOT / "build")
    parser.add_argument("--output", help="where the JSON goes (default: tests/bench/results/cpu.json)")
    args = parser.parse_args()
    peers = common.find_peers(args.peers)
    comparisons = []

    def measure(title, sides, key, higher_is_better=True, digits=1):
        results = common.measure_in_turn(sides, args.rounds, key)
        comparisons.append(common.compare(title, results, "Retort", key, higher_is_better))
        common.print_comparison(comparisons[-1], digits)
        return results

    for what in args.what.split(","):
        if what == "step":
            for case in args.cases.split(","):
                arch, _, batch = case.partition(":")
                measure(f"training step, {arch}, batch {batch or 128}, f32, {args.threads} threads",
                        step_sides(args, peers, arch, int(batch or 128)), "images_per_second")
        elif what == "augment":
            for recipe in ("crop_flip", "all"):
                measure(f"augmentation '{recipe}', 32 px, one core", augment_sides(args, peers, recipe), "images_per_second", digits=0)
        elif what == "start":
            results = measure("start to the end of the first training step, resnet8x4, batch 32", start_sides(args, peers),
                              "first_step_seconds", False, 3)
            comparisons.append(common.compare("start to the end of the second training step, resnet8x4, batch 32", results,
                                              "Retort", "second_step_seconds", False))
            common.print_comparison(comparisons[-1], 3)
        else:
            parser.error(f"--what: step, augment or start, not {what}")
    _, preload = common.peer_environment(args.threads)
    versions = {name: peer["version"] for name, peer in peers.items()} | {"allocator of the peer": preload or "glibc"}
    common.write_results("cpu-peers" if args.peers_only else "cpu", common.device_description(), versions, comparisons, args.output)


if __name__ == "__main__":
    main()
