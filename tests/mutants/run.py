#!/usr/bin/env python3
"""Plants faults one at a time, builds, runs tests and says which faults no test has found.

A list has one fault a line: file, old text, new text and class, between tabs; the old text stands exactly once in the
file, and \\n in either text is a line's end. Empty lines and lines that begin with # are skipped.

    tests/mutants/run.py tests/mutants/kernels.tsv --preset build --target retort_simt_tests --filter batch_norm

A file is put back whatever happens. Each working tree has one run at a time (a lock in the build folder). A fault that
does not compile counts as neither found nor missed. The exit status is 0 where every fault that was built was found.
"""
import argparse
import fcntl
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What runs where no command is given; the first that fails has found the fault.
COMMANDS = {
    "retort_simt_tests": ["{build}/tests/simt/retort_simt_tests --gtest_brief=1 --gtest_fail_fast"]
    + [
        "{build}/tests/simt/retort_simt_tests --gtest_brief=1 --gtest_fail_fast --gtest_filter='Table/*' --lanes=" + order
        for order in ("greedy_reversed", "greedy_forward", "shuffled")
    ],
    "retort_tests": ["{build}/tests/retort_tests --gtest_brief=1 --gtest_fail_fast"],
}


def read(path):
    faults = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = line.split("\t")
        if len(parts) != 4:
            sys.exit(f"{path}:{number}: {len(parts)} columns; expected file, old text, new text and class between tabs")
        name, old, new, kind = (parts[0], *(p.replace("\\n", "\n") for p in parts[1:3]), parts[3])
        found = (ROOT / name).read_text().count(old)
        if found != 1 or old == new:
            sys.exit(f"{path}:{number}: the old text stands {found} times in {name}; expected once, and another new text")
        faults.append((number, name, old, new, kind))
    return faults


def run(command, limit):
    """The exit status; one that takes too long has failed, for a fault can make a loop endless."""
    child = subprocess.Popen(command, shell=True, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             text=True, errors="replace", start_new_session=True)
    try:
        return subprocess.CompletedProcess(command, stdout=child.communicate(timeout=limit)[0],
                                           returncode=child.returncode)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, f"took more than {limit} s")
    finally:  # and all that it has started
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=pathlib.Path)
    parser.add_argument("--preset", default="build", metavar="DIR", help="build folder, configured (build)")
    parser.add_argument("--target", action="append", help="to build, may be repeated (retort_simt_tests)")
    parser.add_argument("--filter", default="", metavar="REGEX", help="only faults whose line it is found in")
    parser.add_argument("--command", action="append", help="to run in place of the target's; {build} is the folder")
    parser.add_argument("--limit", type=float, default=600, metavar="S", help="seconds a command may take (600)")
    parser.add_argument("--check", action="store_true", help="only whether the list fits the sources")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of what puts the file back
    targets = arguments.target or ["retort_simt_tests"]
    commands = arguments.command or [c for t in targets for c in COMMANDS.get(t, [])]
    faults = [f for f in read(arguments.list) if re.search(arguments.filter, "\t".join(map(str, f[1:])))]
    if arguments.check:
        print(f"{len(faults)} faults, each with its place")
        return 0
    build = (ROOT / arguments.preset).resolve()
    build_command = f"cmake --build '{build}' --target {' '.join(targets)}"
    counts = {"killed": 0, "survived": 0, "not built": 0}
    with open(build / "mutants.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for number, name, old, new, kind in faults:
            path, start = ROOT / name, time.time()
            whole = path.read_text()
            try:
                path.write_text(whole.replace(old, new))
                verdict, reason = "not built", ""
                if run(build_command, arguments.limit * 3).returncode == 0:
                    verdict = "survived"
                    for command in commands:
                        done = run(command.format(build=build), arguments.limit)
                        if done.returncode != 0:
                            verdict = "killed"
                            failed = re.findall(r"\[  FAILED  \] (\S+?),? ", done.stdout)
                            reason = failed[0] if failed else (done.stdout.splitlines() or [str(done.returncode)])[-1]
                            break
            finally:
                path.write_text(whole)
            counts[verdict] += 1
            print(f"{verdict}\t{number}\t{name}\t{kind}\t{old!r} -> {new!r}\t{reason}\t{time.time() - start:.0f} s",
                  flush=True)
        run(build_command, arguments.limit * 3)
    built = counts["killed"] + counts["survived"]
    print(f"{counts['killed']} of {built} found; {counts['not built']} did not compile")
    return 0 if counts["survived"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
