#!/usr/bin/env python3
"""Retort against PyTorch on this machine's processor, in turn, in the same run, on the same cores.

    tests/bench/compare_cpu.py                          everything, five rounds
    tests/bench/compare_cpu.py --what step --cases resnet20:128 --rounds 3
    tests/bench/compare_cpu.py --what distill --distill-cases resnet32x4:resnet8x4:64
    tests/bench/compare_cpu.py --peers debian=/usr/bin/python3,newest=/path/to/venv/bin/python

step      a training step (f32): images a second and resident memory, against both memory layouts of every PyTorch
distill   a step of knowledge distillation (teacher forward, student forward and backward, cross-entropy and KL, SGD)
students  several students that share one teacher, against as many runs of their own: Retort alone
augment   padded crop + flip, and all augmentations of configs/teacher.cfg, on one core, against torchvision
start     process start to the end of the first and the second training step on CIFAR-100 (resnet8x4, batch 32)

PyTorch gets the threads by hand, OPENBLAS_NUM_THREADS=1, tcmalloc where it is installed, its fused optimizer where it
has one, and a teacher under inference_mode with its BN fused; the best of its modes counts. Nothing else should run on
the machine meanwhile. The results so far are written after every case.
"""
import argparse
import itertools
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


def distill_shape(teacher, student, batch, steps):
    """About 10 s a run on two cores."""
    return ["--teacher", teacher, "--arch", student, "--batch", batch, "--steps", steps, "--warmup", 1, "--classes", 100,
            "--device", "cpu", "--precision", "f32", "--stem", "cifar"]


DISTILL_STEPS = {"resnet32x4": 6}  # by teacher


def our_step(args, shape):
    return common.run_json([args.build / "tests/bench/step_bench", *shape, "--json"], common.our_environment(args.threads))


def distill_sides(args, peers, teacher, student, batch):
    shape = distill_shape(teacher, student, batch, DISTILL_STEPS.get(teacher, 3))
    env, _ = common.peer_environment(args.threads)
    sides = {} if args.peers_only else {"Retort": lambda: our_step(args, shape)}
    for peer in peers.values():
        compiled = ["none", "default"] if args.compile and not peer["version"].startswith("1.") else ["none"]
        for layout, mode, compile_mode in itertools.product(("contiguous", "channels_last"), ("no_grad", "fused"), compiled):
            command = [peer["python"], common.HERE / "peer_distill.py", *shape, "--layout", layout, "--teacher-mode", mode,
                       "--compile", compile_mode, "--threads", args.threads]
            label = f"PyTorch {peer['version']} {layout}, teacher {mode}" + (" compiled" if compile_mode != "none" else "")
            sides[label] = lambda command=command: common.run_json(command, env)
    return sides


def student_sides(args, teacher, student, batch, count):
    shape = distill_shape(teacher, student, batch, 3)

    def separate():
        runs = [our_step(args, shape) for _ in range(count)]
        return {"step_of_all_ms": sum(r["median_ms"] for r in runs), "rss_bytes": max(r["rss_bytes"] for r in runs)}

    def shared():
        run = our_step(args, [*shape, "--students", count])
        return dict(run, step_of_all_ms=run["median_ms"])

    return {"one run for all": shared, f"{count} runs": separate}


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


class Comparisons:
    """Measures, prints and keeps one comparison after the other, and writes all of them down each time."""

    def __init__(self, args, peers):
        self.args, self.all = args, []
        _, preload = common.peer_environment(args.threads)
        self.versions = {name: peer["version"] for name, peer in peers.items()}
        self.versions["allocator of the peer"] = preload or "glibc"
        self.device = common.device_description()
        self.path = None

    def measure(self, title, sides, key, higher_is_better=True, digits=1, ours="Retort"):
        results = common.measure_in_turn(sides, self.args.rounds, key)
        self.add(title, results, key, higher_is_better, digits, ours)
        return results

    def add(self, title, results, key, higher_is_better=True, digits=1, ours="Retort"):
        self.all.append(common.compare(title, results, ours, key, higher_is_better))
        common.print_comparison(self.all[-1], digits)
        name = "cpu-peers" if self.args.peers_only else "cpu"
        self.path = common.write_results(name, self.device, self.versions, self.all, self.args.output)


def case_parts(text, defaults):
    """arch:batch,... as lists; what a case leaves out at its end is as in `defaults`."""
    for case in text.split(","):
        parts = case.split(":")
        yield parts + [str(d) for d in defaults[len(parts):]]


def compare_steps(args, peers, out):
    for arch, batch in case_parts(args.cases, ["resnet18", 128]):
        out.measure(f"training step, {arch}, batch {batch}, f32, {args.threads} threads",
                    step_sides(args, peers, arch, int(batch)), "images_per_second")


def compare_distillation(args, peers, out):
    for teacher, student, batch in case_parts(args.distill_cases, ["resnet32x4", "resnet8x4", 64]):
        out.measure(f"distillation step, {teacher} to {student}, batch {batch}, f32, {args.threads} threads",
                    distill_sides(args, peers, teacher, student, batch), "images_per_second")


def compare_students(args, peers, out):
    if args.peers_only:
        return
    for teacher, student, batch, count in case_parts(args.student_cases, ["resnet32x4", "resnet8x4", 64, 5]):
        out.measure(f"a step of {count} students, {teacher} to {student}, batch {batch}, f32, {args.threads} threads",
                    student_sides(args, teacher, student, batch, int(count)), "step_of_all_ms", False,
                    ours="one run for all")


def compare_augmentation(args, peers, out):
    for recipe in ("crop_flip", "all"):
        out.measure(f"augmentation '{recipe}', 32 px, one core", augment_sides(args, peers, recipe), "images_per_second",
                    digits=0)


def compare_start(args, peers, out):
    results = out.measure("start to the end of the first training step, resnet8x4, batch 32", start_sides(args, peers),
                          "first_step_seconds", False, 3)
    out.add("start to the end of the second training step, resnet8x4, batch 32", results, "second_step_seconds", False, 3)


WHAT = {"step": compare_steps, "distill": compare_distillation, "students": compare_students,
        "augment": compare_augmentation, "start": compare_start}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", default=",".join(WHAT), help=f"which of {', '.join(WHAT)}")
    parser.add_argument("--cases", default="resnet18:128,resnet8x4:128,resnet20:128", help="of step: arch:batch,...")
    parser.add_argument("--distill-cases", default="resnet32x4:resnet8x4:64,resnet50:resnet18:128",
                        help="teacher:student:batch,...")
    parser.add_argument("--student-cases", default="resnet32x4:resnet8x4:64:5", help="teacher:student:batch:students,...")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers", default="", help="name=python,...")
    parser.add_argument("--peers-only", action="store_true", help="measure PyTorch alone")
    parser.add_argument("--compile", action="store_true", help="torch.compile as one more mode of the newer PyTorch")
    parser.add_argument("--build", type=pathlib.Path, default=common.ROOT / "build")
    parser.add_argument("--output", help="where the JSON goes (default: tests/bench/results/cpu.json)")
    args = parser.parse_args()
    for what in args.what.split(","):
        if what not in WHAT:
            parser.error(f"--what: {', '.join(WHAT)}, not {what}")
    peers = common.find_peers(args.peers)
    out = Comparisons(args, peers)
    for what in args.what.split(","):
        WHAT[what](args, peers, out)
    if out.path:
        print(f"\nwritten: {out.path}")


if __name__ == "__main__":
    main()
