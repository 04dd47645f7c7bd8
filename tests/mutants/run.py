#!/usr/bin/env python3
"""Plants faults one at a time, builds, runs tests and says which faults no test has found.

A list has one fault a line: file, old text, new text and class, between tabs; the old text stands exactly once in the
file, and \\n in either text is a line's end. Empty lines and lines that begin with # are skipped; a comment
"# equivalent: REASON" above a fault says why nothing can find it, and keeps it out of the figures.

    tests/mutants/run.py tests/mutants/kernels.tsv --preset build --target retort_simt_tests --filter batch_norm
    tests/mutants/run.py tests/mutants/host.tsv --preset build-standin --target retort_device_tests --sample 40

The build must be up to date (Ninja). Nothing in the tree is changed: the faulty file lies in a folder of its own, what
includes it is compiled from there, lightly optimised, and linked before the rest of the program, so a fault costs one
compilation and one link; programs that the tests start are not faulty. With --whole the fault is planted in the tree and
all of the target built: for faults that only programs show. The file is put back whatever happens.

The tests nearest to the faulty file run first, the others only where these pass. --sample takes faults from as many
files and classes as it can. A fault that does not compile counts as neither found nor missed. The exit status is 0 where
every fault that was built was found.
"""
import argparse
import collections
import fcntl
import json
import os
import pathlib
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIMT = "{program} --gtest_brief=1 --gtest_fail_fast"
DEVICE = "{program} --gtest_brief=1 --gtest_fail_fast"
# What runs where no command is given, {near} being the tests of the file's family; the first that fails has found the
# fault. The stand-in's tests of itself come last: of our faults they see those in launch.h alone.
COMMANDS = {
    "retort_simt_tests": [
        SIMT + " --gtest_filter='{near}'",
        SIMT + " --gtest_filter='{near}' --lanes=greedy_reversed",
        SIMT,
        *(SIMT + f" --gtest_filter='Table/*' --lanes={order}" for order in ("greedy_reversed", "greedy_forward",
                                                                            "shuffled")),
    ],
    "retort_device_tests": [
        DEVICE + " --gtest_filter='{near}'",
        DEVICE + " --gtest_filter='Cuda*:Libraries*:Matmul*:*Descriptors*:EngineRules*:FailingCalls*:HostCopies*:WhileOneRecords*'",
        *(f"RETORT_STANDIN_ORDER={order} {DEVICE} --gtest_filter='Cuda*'" for order in ("others_first", "seed:1")),
        DEVICE,
    ],
    "retort_tests": ["{program} --gtest_brief=1 --gtest_fail_fast"],
}
# The tests of a file's family, the first name that its path contains.
NEAR = {
    "batch_norm": "*BatchNorm*:*batch_norm*",
    "pool.cu": "*Pool*:*pool*",
    "elementwise": "*Elementwise*:*Conversion*:*Dropout*:*ctivation*:*BiasResidual*:*relu*:*dropout*",
    "reduce": "*Reduc*:*SumRows*:*Nonfinite*:*SumAnd*:*Norms*:*mean*:*sum*",
    "shape.cu": "*Shape*:*Cop*:*Gather*:*concat*:*split*",
    "softmax": "*oftmax*:*L2*:*l2*",
    "logit_losses": "*ogit*:*soft_targets*:*decoupled*:*dkd*",
    "feature_losses": "*eature*:*Pointwise*:*ChannelEnergy*:*TransposeInner*:*Variational*",
    "relation_losses": "*elation*:*istance*:*Transfer*",
    "neuron_selectivity": "*euron*",
    "angle_loss": "*ngle*",
    "correlation": "*orrelation*:*earson*:*ConstantRows*",
    "loss.cu": "*CrossEntropy*:*cross_entropy*:*Metrics*:*Label*:*Losses*",
    "optimizer.cu": "*Optimizer*",
    "augment.cu": "*ugment*",
    "direct_convolution": "*Convolution*:*conv*",
    "frozen": "*rozen*:*Strided*",
    "cudnn_graph": "*Descriptors*:EngineRules*:Libraries*:CudaBackend*",
    "conv_key": "*Descriptors*:*Key*:Libraries*:CudaBackend*",
    "convolution.cpp": "Libraries*:CudaBackend*:CudaRecording*:*Convolution*",
    "matmul": "Matmul*:Libraries*",
    "gemm_layout": "Matmul*:Libraries*",
    "kernels/cuda/launch": "DeviceOrder*:DeviceErrors*:CudaBackend*",
    "kernels/cuda": "Cuda*:HostCopies*:WhileOneRecords*:FailingCalls*",
    "distill/": "TrainingOrders*",
    "engine/": "TrainingOrders*",
    "data/": "TrainingOrders*",
}


def read(path):
    """Faults as (line, file, old, new, class, why it is equivalent or "")."""
    faults, reason = [], ""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            reason = line.removeprefix("# equivalent:").strip() if line.startswith("# equivalent:") else ""
            continue
        parts = line.split("\t")
        if len(parts) != 4:
            sys.exit(f"{path}:{number}: {len(parts)} columns; expected file, old text, new text and class between tabs")
        name, old, new, kind = (parts[0], *(p.replace("\\n", "\n") for p in parts[1:3]), parts[3])
        found = (ROOT / name).read_text().count(old)
        if found != 1 or old == new:
            sys.exit(f"{path}:{number}: the old text stands {found} times in {name}; expected once, and another new text")
        faults.append((number, name, old, new, kind, reason))
        reason = ""
    return faults


def sample(faults, count, seed):
    """`count` of them, drawn in turn from each pair of file and class, in the order of the list."""
    shuffled = random.Random(seed).sample(faults, len(faults))
    taken, drawn = [], collections.Counter()
    for fault in shuffled:
        drawn[fault[1], fault[4]] += 1
        taken.append((drawn[fault[1], fault[4]], len(taken), fault))
    return sorted(fault for *_, fault in sorted(taken)[:count])


def run(command, limit, cwd=ROOT):
    """The exit status; one that takes too long has failed, for a fault can make a loop endless."""
    child = subprocess.Popen(command, shell=isinstance(command, str), cwd=cwd, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True)
    try:
        return subprocess.CompletedProcess(command, stdout=child.communicate(timeout=limit)[0],
                                           returncode=child.returncode)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, f"took more than {limit} s")
    finally:  # and all that it has started
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


class Overlay:
    """Builds a target's program with one file replaced, in a folder beside it."""

    def __init__(self, build, target):
        self.build, self.folder = build, build / "mutants" / str(os.getpid())
        outputs = self.ninja("query", target).splitlines()
        self.name = next(line.strip() for line in outputs if line.strip().endswith("/" + target))
        commands = self.ninja("commands", self.name).splitlines()
        self.link = next(part for c in commands for part in c.split(" && ") if f" -o {self.name} " in part)
        self.compilations = {}  # output: words
        for command in commands:
            words = shlex.split(command) if " -c " in command else []
            if "-c" in words and "-o" in words:
                if words[0].endswith("ccache"):
                    words.pop(0)
                self.compilations[words[words.index("-o") + 1]] = words
        self.includes = collections.defaultdict(set)  # of a file: the outputs that need it
        output = ""
        for line in self.ninja("deps").splitlines():
            if line.startswith(" "):
                self.includes[os.path.normpath(build / line.strip())].add(output)
            else:
                output = line.split(":")[0]

    def ninja(self, *tool):
        return subprocess.run(["ninja", "-C", self.build, "-t", *tool], check=True, capture_output=True, text=True).stdout

    def plant(self, name, text, limit):
        """The program, or None where it does not compile."""
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / name).parent.mkdir(parents=True)
        (self.folder / name).write_text(text)
        objects = []
        needed = [o for o in self.compilations if o in self.includes[str(ROOT / name)]]
        for number, output in enumerate(needed):
            words = [w for w in self.compilations[output] if not w.startswith("-MD") and w not in ("-O3", "-O2")]
            for option in ("-MT", "-MF"):
                if option in words:
                    at = words.index(option)
                    del words[at:at + 2]
            own = f"{self.folder}/{number}.o"
            words[words.index("-o") + 1] = own
            source = words.index("-c") + 1
            if pathlib.Path(words[source]) == ROOT / name:
                words[source] = str(self.folder / name)
            words[1:1] = ["-O1", "-w", f"-I{self.folder}"]
            if run(words, limit, self.build).returncode != 0:
                return None
            objects.append((output, own))
        program = self.folder / pathlib.Path(self.name).name
        link, extra = self.link, []
        for output, own in objects:
            if f" {output} " in link:
                link = link.replace(f" {output} ", f" {own} ")
            else:
                extra.append(own)
        link = link.replace(f" -o {self.name} ", f" {' '.join(extra)} -o {program} ", 1)
        return program if objects and run(link, limit, self.build).returncode == 0 else None


class Whole:
    """Builds the target in the tree itself."""

    def __init__(self, build, target, jobs):
        self.command = f"cmake --build '{build}' --target {target}" + (f" --parallel {jobs}" if jobs else "")
        self.build, self.target, self.planted = build, target, None
        self.lock = open(build / "mutants.lock", "w")
        fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def plant(self, name, text, limit):
        self.planted = (ROOT / name, (ROOT / name).read_text())
        (ROOT / name).write_text(text)
        built = run(self.command, 3 * limit).returncode == 0
        return next(self.build.glob("**/" + self.target)) if built else None

    def put_back(self):
        if self.planted:
            self.planted[0].write_text(self.planted[1])


def near(name):
    return next((tests for part, tests in NEAR.items() if part in name), "*")


def what_finds(commands, program, name, limit):
    """What found the fault that is planted and built, "" where nothing did."""
    for command in commands:
        done = run(command.format(program=program, near=near(name)), limit)
        if done.returncode != 0:
            failed = re.findall(r"\[  FAILED  \] (\S+?),? ", done.stdout)
            lines = done.stdout.strip().splitlines()
            return failed[0] if failed else lines[-1] if lines else f"ended with {done.returncode}"
    return ""


def chosen(arguments):
    faults = [f for f in read(arguments.list) if re.search(arguments.filter, "\t".join(f[1:5]))]
    if not arguments.lines:
        return faults
    wanted = set()
    for part in arguments.lines.split(","):
        first, _, last = part.partition("-")
        wanted.update(range(int(first), int(last or first) + 1))
    return [f for f in faults if f[0] in wanted]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=pathlib.Path)
    parser.add_argument("--preset", default="build", metavar="DIR", help="build folder (build)")
    parser.add_argument("--target", default="retort_simt_tests", help="the test program (retort_simt_tests)")
    parser.add_argument("--filter", default="", metavar="REGEX", help="only faults whose line it is found in")
    parser.add_argument("--lines", default="", metavar="N,N-N", help="only the faults of these lines of the list")
    parser.add_argument("--sample", type=int, metavar="N", help="only N, drawn from all files and classes")
    parser.add_argument("--seed", type=int, default=1, help="of the sample (1)")
    parser.add_argument("--command", action="append",
                        help="to run in place of the target's; {program} is the test program, {near} the family's filter")
    parser.add_argument("--limit", type=float, default=600, metavar="S", help="seconds a command may take (600)")
    parser.add_argument("--whole", action="store_true", help="plant in the tree and build all of the target")
    parser.add_argument("--jobs", type=int, default=0, metavar="N", help="to build with, where --whole")
    parser.add_argument("--check", action="store_true", help="only whether the list fits the sources")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of what puts the file back
    faults = chosen(arguments)
    equivalent = sum(bool(f[5]) for f in faults)
    if arguments.check:
        print(f"{len(faults)} faults, each with its place; {equivalent} of them equivalent")
        return 0
    faults = [f for f in faults if not f[5]]
    if arguments.sample:
        faults = sample(faults, arguments.sample, arguments.seed)
    build = (ROOT / arguments.preset).resolve()
    tree = Whole(build, arguments.target, arguments.jobs) if arguments.whole else Overlay(build, arguments.target)
    commands = arguments.command or COMMANDS[arguments.target]
    counts = collections.Counter()
    for number, name, old, new, kind, _ in faults:
        start = time.time()
        try:
            program = tree.plant(name, (ROOT / name).read_text().replace(old, new), arguments.limit)
            built = time.time()
            reason = what_finds(commands, program, name, arguments.limit) if program else ""
        finally:
            if arguments.whole:
                tree.put_back()
        verdict = "not built" if not program else "killed" if reason else "survived"
        counts[verdict] += 1
        print(f"{verdict}\t{number}\t{name}\t{kind}\t{old!r} -> {new!r}\t{reason}\t{built - start:.0f} + "
              f"{time.time() - built:.0f} s", flush=True)
    if arguments.whole:
        run(tree.command, 3 * arguments.limit)
    built = counts["killed"] + counts["survived"]
    print(f"{counts['killed']} of {built} found; {counts['not built']} did not compile; {equivalent} are equivalent")
    return 0 if counts["survived"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
