#!/usr/bin/env python3
"""Distils the same students from the same teachers in PyTorch and in Retort and compares every step.

    tests/parity/distill_parity.py [--build build] [--settings f64,f32] [--methods kd,rkd] [--keep FOLDER]

PyTorch writes the weights of the teachers and of the student as safetensors. One `distill` run then trains a student
for each method on the same images of CIFAR-100, in file order and without augmentation; in PyTorch every student has a
loop of its own, with losses written from the papers' formulas (distill_losses.py).

f64   resnet14 (and for kd_two_teachers a second one) -> resnet8, batch 16, 20 steps: every term, every total and all
      final weights within 1e-9 relative
f32   resnet32x4 -> resnet8x4, batch 32, 5 steps: terms and totals within 1e-5 in the first step, 1e-4 in all

--against channels_last or f64 puts PyTorch itself, in its other memory layout or in f64, in Retort's place: how far
rounding alone brings two right answers apart. Losses with learned parts are missing: they start at random.
Needs numpy and PyTorch (1.13 or newer), CIFAR-100 and a built `distill`.
"""
import argparse
import copy
import json
import math
import pathlib
import sys
import tempfile
from typing import NamedTuple

import numpy
import torch

import distill_losses
import parity_common as common
import peer_models

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4


class Term(NamedTuple):
    weight: float
    type: str
    keys: dict = {}  # of the [[loss]] block, which are also the arguments of the function in distill_losses
    warmup: int = 0  # epochs; a run here stays in the first

    def factor(self):
        return self.weight / max(1, self.warmup)


def ce(weight, **keys):
    return Term(weight, "cross_entropy", keys)


METHODS = {
    "cross_entropy": [ce(1)],
    "label_smoothing": [ce(1, label_smoothing=0.1)],
    "kd": [ce(0.1), Term(0.9, "soft_targets")],
    "kd_standardized": [ce(0.1), Term(9, "soft_targets", {"temperature": 2.0, "standardize": True})],
    "kd_two_terms": [Term(0.5, "soft_targets", {"temperature": 2.0}), Term(0.5, "soft_targets", {"temperature": 6.0})],
    "soft_cross_entropy": [ce(0.5), Term(0.5, "soft_cross_entropy")],
    "logit_mse": [ce(0.5), Term(0.5, "logit_mse")],
    "dkd": [ce(1), Term(1, "dkd")],
    "dkd_standardized": [ce(1), Term(1, "dkd", {"temperature": 2.0, "standardize": True}, warmup=20)],
    "dist": [ce(1), Term(2, "dist")],
    "similarity_preserving": [ce(1), Term(3000, "similarity_preserving")],
    "attention_transfer": [ce(1), Term(1000, "attention_transfer")],
    "attention_two_sizes": [ce(1), Term(1000, "attention_transfer", {"taps": ["layer1", "layer3"],
                                                                     "teacher_taps": ["layer2", "layer2"], "p": 4.0})],
    "nst": [ce(1), Term(50, "nst")],
    "rkd": [ce(1), Term(1, "rkd")],
    "distance_metric": [ce(1), Term(1, "distance_metric")],
    "distance_metric_mse": [ce(1), Term(1, "distance_metric", {"criterion": "mse", "normalize": True})],
    "pkt": [ce(1), Term(30000, "pkt")],
    # Those below learn from both teachers, the others from the first.
    "kd_two_teachers": [ce(0.1), Term(0.9, "soft_targets")],
    "dist_two_teachers": [ce(1), Term(2, "dist")],
}


class Setting(NamedTuple):
    teachers: list
    student: str
    batch: int
    precision: str
    steps: int
    lr: float
    zero_gamma: bool  # the student's last BN of each block starts at 0
    first_step: float  # allowed, relative
    all_steps: float
    final_weights: float | None
    lr_factors: dict = {}  # of methods with a learning rate of their own

    def lr_of(self, method):
        return self.lr * self.lr_factors.get(method, 1)


# In f32 the student starts gently, as in train_parity.py and for its reason: rounding grows with every step. With
# --against channels_last every method stays below a quarter of what is allowed.
SETTINGS = {
    "f64": Setting(["resnet14", "resnet14"], "resnet8", 16, "f64", 20, 0.002, False, 1e-9, 1e-9, 1e-9),
    "f32": Setting(["resnet32x4"], "resnet8x4", 32, "f32", 5, 0.001, True, 1e-5, 1e-4, None,
                   {"dist": 0.2, "similarity_preserving": 0.1}),
}


class Result(NamedTuple):
    terms: list  # a dict a step: name -> unweighted value
    losses: list
    weights: dict


def term_names(terms):
    """As Retort calls them: the type, numbered from its second use on."""
    types = [term.type for term in terms]
    return [t if types[:i].count(t) == 0 else f"{t}_{types[:i].count(t) + 1}" for i, t in enumerate(types)]


# --- PyTorch

def run_with_taps(model, x):
    """Feature maps and logits, in f64 whatever the network computes in: the losses add no rounding of their own."""
    taps = {}
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    for i in range(1, model.stages + 1):
        x = taps[f"layer{i}"] = getattr(model, f"layer{i}")(x)
    taps["pooled"] = x.mean((2, 3))
    taps["logits"] = model.fc(taps["pooled"])
    return {name: tap.double() for name, tap in taps.items()}


def make_teacher(arch, x):
    """As different from a fresh network as a trained one: scales, shifts and statistics of BN, confident logits."""
    model = peer_models.make(arch, 100, zero_gamma=False).to(x.dtype)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.1)
            module.momentum = None  # the statistics become those of x
    with torch.no_grad():
        model(x)
        model.eval()
        model.fc.weight *= 4 / model(x).std()
    return model


class Problem:
    """Images, labels and the initial networks of a setting."""

    def __init__(self, setting):
        self.setting = setting
        images, labels = common.cifar100("train.bin")
        kept = numpy.flatnonzero(labels != 0)[:setting.batch * setting.steps]  # see write_cifar100
        self.images, self.labels = images[kept], labels[kept]
        torch.manual_seed(7)
        dtype = torch.float64 if setting.precision == "f64" else torch.float32
        self.teachers = [make_teacher(arch, self.batch(0, dtype)[0]) for arch in setting.teachers]
        self.student = peer_models.make(setting.student, 100, zero_gamma=setting.zero_gamma).to(dtype)

    def batch(self, step, dtype):
        part = slice(step * self.setting.batch, (step + 1) * self.setting.batch)
        x = common.normalise(self.images[part], numpy.float64 if dtype == torch.float64 else numpy.float32)
        return torch.from_numpy(x), torch.from_numpy(self.labels[part])


def distill_in_torch(problem, methods, dtype=None, memory_format=torch.contiguous_format):
    dtype = dtype or next(problem.student.parameters()).dtype
    teachers = [copy.deepcopy(t).to(dtype).to(memory_format=memory_format).eval() for t in problem.teachers]
    students = {m: copy.deepcopy(problem.student).to(dtype).to(memory_format=memory_format) for m in methods}
    optimizers = {m: torch.optim.SGD(peer_models.parameter_groups(s, WEIGHT_DECAY), lr=problem.setting.lr_of(m),
                                     momentum=MOMENTUM) for m, s in students.items()}
    results = {m: Result([], [], {}) for m in methods}
    for step in range(problem.setting.steps):
        x, labels = problem.batch(step, dtype)
        x = x.contiguous(memory_format=memory_format)
        with torch.no_grad():
            taught = [run_with_taps(t, x) for t in teachers]
        for m, student in students.items():
            seen = run_with_taps(student, x)
            known = taught if m.endswith("two_teachers") else taught[:1]
            values = [distill_losses.LOSSES[term.type](seen, known, labels, **term.keys) for term in METHODS[m]]
            loss = sum(term.factor() * value for term, value in zip(METHODS[m], values))
            optimizers[m].zero_grad()
            loss.backward()
            optimizers[m].step()
            results[m].terms.append(dict(zip(term_names(METHODS[m]), (v.item() for v in values))))
            results[m].losses.append(loss.item())
    for m, student in students.items():
        results[m].weights.update(common.numpy_state(student))
    return results


# --- Retort

CONFIG = """# Written by tests/parity/distill_parity.py
name = "{name}"
seed = 1
device = "{device}"
precision = "{precision}"
strict_math = {strict}
[data]
dataset = "cifar100"
root = "{data}"
validation = 1
shuffle = false
augment = []
normalize = {{ mean = {mean}, std = {std} }}
batch_size = {batch}
[model]
arch = "{arch}"
init = "{init}"
[optimizer]
type = "sgd"
lr = {lr}
momentum = {momentum}
weight_decay = {weight_decay}
decay = "weights"
[train]
max_steps = {steps}
evaluate_test = false
[output]
root = "{root}"
[distill]
combine = "mean_softmax"
baseline = "none"
"""


def toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {toml(v)}" for k, v in value.items()) + " }"
    return json.dumps(value)  # the same for strings, numbers, booleans and lists of them


def student_block(method, setting):
    lines = ["[[student]]", f'name = "{method}"', f"optimizer = {toml({'lr': setting.lr_of(method)})}"]
    for term in METHODS[method]:
        keys = {"type": term.type, "weight": term.weight, **term.keys}
        if term.warmup:
            keys["schedule"] = {"type": "warmup", "epochs": term.warmup}
        if len(setting.teachers) > 1 and term.type != "cross_entropy" and not method.endswith("two_teachers"):
            keys["teacher"] = 1
        lines += ["[[student.loss]]", *(f"{key} = {toml(value)}" for key, value in keys.items())]
    return "\n".join(lines) + "\n"


def write_config(name, problem, methods, folder, device):
    setting = problem.setting
    common.write_cifar100(folder / "data", problem.images, problem.labels)
    shape = {"classes": "100", "stem": "cifar", "shortcut": "projection", "dataset": "cifar100",
             "normalize_mean": " ".join(map(str, common.CIFAR100_MEAN)),
             "normalize_std": " ".join(map(str, common.CIFAR100_STD))}
    init = folder / "student.safetensors"
    common.write_safetensors(init, common.numpy_state(problem.student), dict(shape, arch=setting.student))
    text = CONFIG.format(name=name, device=device, precision=setting.precision, strict=toml(setting.precision == "f32"),
                         data=folder / "data", mean=list(common.CIFAR100_MEAN), std=list(common.CIFAR100_STD),
                         batch=setting.batch, arch=setting.student, init=init, lr=setting.lr, momentum=MOMENTUM,
                         weight_decay=WEIGHT_DECAY, steps=setting.steps, root=folder / "runs")
    for number, (arch, model) in enumerate(zip(setting.teachers, problem.teachers), 1):
        file = folder / f"teacher{number}.safetensors"
        # An accuracy that cannot be missed: a teacher without one must do better than chance.
        common.write_safetensors(file, common.numpy_state(model), dict(shape, arch=arch, validation_top1="0"))
        text += f'[[teacher]]\npath = "{file}"\n'
    text += "".join(student_block(m, setting) for m in methods)
    config = folder / f"{name}.cfg"
    config.write_text(text)
    return config


def distill_in_retort(name, problem, methods, folder, arguments):
    config = write_config(name, problem, methods, folder, arguments.device)
    common.run_program(arguments.build, "distill", config)
    run = common.version_folder(folder / "runs", name)
    results = {}
    for m in methods:
        steps = common.metrics(run / m, "step")
        results[m] = Result([s["terms"] for s in steps], [s["loss"] for s in steps],
                            common.read_safetensors(run / m / "last.safetensors"))
    return results


# --- comparison

def relative(found, expected):
    return abs(found - expected) / abs(expected) if expected else abs(found)


def worst(errors):
    """The largest; NaN where there is one."""
    errors = list(errors)
    return math.nan if any(map(math.isnan, errors)) else max(errors, default=math.inf)


def term_error(found, expected):
    return worst(relative(found[k], expected[k]) for k in expected) if found.keys() == expected.keys() else math.inf


def compare(method, found, expected, setting):
    """Prints a line of the table; whether everything is within what the setting allows."""
    if len(found.losses) != setting.steps:
        print(f"  {method:<22} FAILED: {len(found.losses)} steps in metrics.jsonl, expected {setting.steps}")
        return False
    terms = [term_error(a, b) for a, b in zip(found.terms, expected.terms)]
    totals = [relative(a, b) for a, b in zip(found.losses, expected.losses)]
    weights = worst(common.relative(found.weights[k], expected.weights[k]) for k in expected.weights) \
        if found.weights.keys() == expected.weights.keys() else math.inf
    ok = (worst([terms[0], totals[0]]) <= setting.first_step and worst(terms + totals) <= setting.all_steps and
          (setting.final_weights is None or weights <= setting.final_weights))  # False for NaN
    print(f"  {method:<22}{terms[0]:>11.1e}{worst(terms):>11.1e}{worst(totals):>11.1e}{weights:>11.1e}"
          f"{expected.losses[0]:>11.4f}{expected.losses[-1]:>11.4f}   {'ok' if ok else 'FAILED'}", flush=True)
    return ok


def run_setting(name, methods, folder, arguments):
    setting = SETTINGS[name]
    if len(setting.teachers) < 2:
        methods = [m for m in methods if not m.endswith("two_teachers")]
    problem = Problem(setting)
    expected = distill_in_torch(problem, methods)
    if arguments.against == "channels_last":
        found = distill_in_torch(problem, methods, memory_format=torch.channels_last)
    elif arguments.against == "f64":
        found = distill_in_torch(problem, methods, dtype=torch.float64)
    else:
        found = distill_in_retort(name, problem, methods, common.fresh_folder(folder / name), arguments)
    weights = "for information" if setting.final_weights is None else f"{setting.final_weights:.0e}"
    print(f"\n{name}: {setting.teachers[0]} -> {setting.student}, batch {setting.batch}, {setting.steps} steps, PyTorch "
          f"{torch.__version__} against {arguments.against}\nallowed: first step {setting.first_step:.0e}, all steps "
          f"{setting.all_steps:.0e}, final weights {weights}")
    titles = ("step 1", "all terms", "totals", "weights", "first loss", "last loss")
    print(f"  {'largest difference of':<22}" + "".join(f"{t:>11}" for t in titles))
    return [f"{name} {m}" for m in methods if not compare(m, found[m], expected[m], setting)]


def choice(parser, option, text, known):
    chosen = text.split(",")
    for name in chosen:
        if name not in known:
            parser.error(f"{option}: unknown {name}; there are {', '.join(known)}")
    return chosen


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=common.ROOT / "build")
    parser.add_argument("--settings", default=",".join(SETTINGS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--device", default="cpu", help="of Retort")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch")
    parser.add_argument("--against", default="retort", choices=["retort", "channels_last", "f64"])
    parser.add_argument("--keep", help="keep configs, weights and runs in this folder")
    arguments = parser.parse_args()
    settings = choice(parser, "--settings", arguments.settings, SETTINGS)
    methods = choice(parser, "--methods", arguments.methods, METHODS)
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = common.fresh_folder(arguments.keep).resolve() if arguments.keep else pathlib.Path(temporary)
        failed = [f for name in settings for f in run_setting(name, methods, folder, arguments)]
    print(f"\nfailed: {', '.join(failed)}" if failed else "\nevery method agrees with PyTorch")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
