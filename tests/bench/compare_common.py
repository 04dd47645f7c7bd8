"""What the comparisons with PyTorch share: running both sides in turn, statistics, the device, tables and the JSON file.

Standard library only: PyTorch runs in processes of its own, with whichever Python has it.
"""
import datetime
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TCMALLOC = ["/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4", "/usr/lib/libtcmalloc_minimal.so.4"]


def peer_environment(threads):
    """An honest peer: threads set by hand, OpenBLAS not fighting them, tcmalloc where it is installed."""
    env = dict(os.environ, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads), OPENBLAS_NUM_THREADS="1")
    preload = next((p for p in TCMALLOC if os.path.exists(p)), None)
    if preload:
        env["LD_PRELOAD"] = preload
    return env, preload


def our_environment(threads):
    return dict(os.environ, OMP_NUM_THREADS=str(threads))


def run_json(command, env=None):
    """Runs a program and returns the last JSON object that it printed."""
    done = subprocess.run([str(c) for c in command], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit status {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    sys.exit(f"{' '.join(map(str, command))}: printed no JSON object")


def find_peers(argument):
    """name=python,...; by default Debian's and the one on PATH (or $RETORT_PEER_PYTHON), those that have PyTorch."""
    named = [p.partition("=")[::2] for p in argument.split(",")] if argument else [
        ("debian", "/usr/bin/python3"), ("newest", os.environ.get("RETORT_PEER_PYTHON") or shutil.which("python3") or "")]
    peers, seen = {}, set()
    for name, python in named:
        probe = subprocess.run([python, "-c", "import torch; print(torch.__version__)"], capture_output=True,
                               text=True) if python and os.path.exists(python) else None
        if probe is None or probe.returncode != 0:
            if argument:
                sys.exit(f"{name}: {python or 'no Python'} has no PyTorch")
            continue
        version = probe.stdout.strip()
        if version not in seen:
            seen.add(version)
            peers[name] = {"python": python, "version": version}
    if not peers:
        sys.exit("no Python with PyTorch found: name one with --peers newest=/path/to/python")
    return peers


def device_description():
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as f:
            model = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), model)
    except OSError:
        pass
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "system": platform.platform()}


def commit():
    def git(*arguments):
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""
    return git("rev-parse", "--short=12", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")


def spread(values):
    """Half the range in percent of the median."""
    return 50.0 * (max(values) - min(values)) / statistics.median(values)


def summary(runs, key):
    values = [r[key] for r in runs]
    return {"median": statistics.median(values), "spread_percent": round(spread(values), 2), "runs": values}


def measure_in_turn(sides, rounds, key):
    """sides: name -> function that runs once and returns a dict. Every round runs each side once, in turn."""
    results = {name: [] for name in sides}
    for turn in range(rounds):
        for name, run in sides.items():
            results[name].append(run())
            progress(f"round {turn + 1}/{rounds}  {name}: {results[name][-1][key]:.4g}")
    progress("")
    return results


def paired_ratio(ours, theirs, key, higher_is_better=True):
    """Median over the rounds of the ratio of the two runs of one round."""
    ratios = [a[key] / b[key] if higher_is_better else b[key] / a[key] for a, b in zip(ours, theirs)]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def compare(title, results, ours, key, higher_is_better=True):
    """Statistics of every side, the best peer and the paired ratio to it."""
    out = {"case": title, "unit": key, "sides": {name: summary(runs, key) for name, runs in results.items()}}
    peers = [name for name in results if name != ours]
    for name, runs in results.items():
        memory = [r["rss_bytes"] for r in runs if r.get("rss_bytes")]
        if memory:
            out["sides"][name]["rss_bytes"] = statistics.median(memory)
    if ours in results and peers:
        pick = max if higher_is_better else min
        best = pick(peers, key=lambda name: out["sides"][name]["median"])
        out["ours"], out["best_peer"] = ours, best
        out["ratio_to_best_peer"] = paired_ratio(results[ours], results[best], key, higher_is_better)
    return out


def print_comparison(out, digits=1):
    print(f"\n{out['case']}  ({out['unit']})")
    width = max(34, *map(len, out["sides"]))
    for name, side in out["sides"].items():
        memory = f"   {side['rss_bytes'] / 2**20:7.0f} MiB" if "rss_bytes" in side else ""
        print(f"  {name:<{width}}{side['median']:>12.{digits}f}  ±{side['spread_percent']:5.1f} %{memory}")
    if "ratio_to_best_peer" in out:
        r = out["ratio_to_best_peer"]
        best = out["best_peer"] if len(out["sides"]) == 2 else f"best peer ({out['best_peer']})"
        print(f"  {out['ours']} / {best}: {r['median']:.2f}  ({r['min']:.2f} to {r['max']:.2f} over the rounds)",
              flush=True)


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def write_results(name, device, versions, comparisons, output):
    path = pathlib.Path(output) if output else HERE / "results" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"date": datetime.date.today().isoformat(), "commit": commit(), "device": device, "versions": versions,
                "comparisons": comparisons}
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(document, indent=1) + "\n")
    partial.replace(path)
    return path
