#!/usr/bin/env python3
"""Image classifiers exported by PyTorch must give the logits, and the feature maps, that onnxruntime gives.

    tests/parity/onnx_parity.py [--build build] [--models resnet50 ...] [--keep FOLDER]

Exports torchvision's networks (random weights from a fixed seed, statistics of real photographs) by both of PyTorch's
exporters, and by the older one with batch normalisation left as it is; runs them by tests/onnx_run and by onnxruntime
on photographs of imagenet_samples_240 ($RETORT_DATASETS or datasets/). Logits must agree within 1e-3 and each stage's
last feature map within 1e-4 of its largest value. Needs torch, torchvision, onnx, onnxscript, onnxruntime and pillow.
"""
import argparse
import logging
import pathlib
import subprocess
import sys
import tempfile
import warnings

import numpy
import onnx
import onnxruntime
import torch
import torchvision

import parity_common as common
import photographs

MODELS = ["resnet50", "vgg11_bn", "densenet121", "squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small",
          "efficientnet_b0", "shufflenet_v2_x1_0"]
EXPORTERS = {"torchscript": {"dynamo": False, "opset_version": 17},
             "unfolded": {"dynamo": False, "opset_version": 13, "do_constant_folding": False,
                          "training": torch.onnx.TrainingMode.PRESERVE},
             "dynamo": {"dynamo": True}}


def export(model, images, path, options):
    options = dict(options)
    if options["dynamo"]:
        options["dynamic_shapes"] = ({0: torch.export.Dim("batch", min=1, max=4096)},)
    else:
        options["dynamic_axes"] = {"images": {0: "batch"}, "logits": {0: "batch"}}
    torch.onnx.export(model, (images[:2],), str(path), input_names=["images"], output_names=["logits"], **options)


def onnxruntime_outputs(path, images, names):
    model = onnx.load(str(path))
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(["logits", *names], {"images": images})


def run(program, *arguments):
    done = subprocess.run([str(program), *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip()[-2000:])
    return done.stdout


def compare(program, path, images, folder):
    """Largest differences: of the logits, and of the feature maps relative to their largest value."""
    stages = [line.split("  (")[0] for line in run(program, path, "--list").splitlines() if line.endswith("(stage)")]
    common.write_safetensors(folder / "input.safetensors", {"input": images})
    run(program, path, folder / "input.safetensors", folder / "output.safetensors", *stages)
    found = common.read_safetensors(folder / "output.safetensors")
    logits, *maps = onnxruntime_outputs(path, images, stages)
    maps = [common.relative(found[name], value.transpose(0, 2, 3, 1)) for name, value in zip(stages, maps)]
    return float(numpy.abs(found["logits"] - logits).max()), max(maps), len(stages), logits


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=common.ROOT / "build")
    parser.add_argument("--program", type=pathlib.Path, help="instead of BUILD/tests/onnx_run")
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME")
    parser.add_argument("--exporters", nargs="+", default=list(EXPORTERS), choices=list(EXPORTERS))
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--keep", type=pathlib.Path, help="folder for the exported files")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    program = arguments.program or arguments.build / "tests" / "onnx_run"
    images = photographs.network_input([photographs.middle(file) for file in photographs.files(arguments.images)])
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        folder = arguments.keep or scratch
        folder.mkdir(parents=True, exist_ok=True)
        for name in arguments.models:
            torch.manual_seed(1)
            model = photographs.calibrate(getattr(torchvision.models, name)(), images)
            reference = photographs.logits(model, images)
            spread = reference.std(0).mean()
            for exporter in arguments.exporters:
                path = folder / f"{name}_{exporter}.onnx"
                try:
                    export(model, torch.from_numpy(images), path, EXPORTERS[exporter])
                    logits, maps, stages, theirs = compare(program, path, images, scratch)
                except Exception as error:  # one network's failure is that network's
                    print(f"{name} {exporter}: FAILED: {error}", flush=True)
                    failed += 1
                    continue
                ok = logits <= 1e-3 and maps <= 1e-4 and spread > 0.5
                failed += not ok
                print(f"{name} {exporter}: logits differ by {logits:.1e} from onnxruntime's (which differ by "
                      f"{numpy.abs(theirs - reference).max():.1e} from PyTorch's; their spread over the photographs is "
                      f"{spread:.2f}), {stages} feature maps by {maps:.1e}: {'ok' if ok else 'FAILED'}", flush=True)
                if not arguments.keep:
                    for file in folder.glob(f"{name}_{exporter}.onnx*"):
                        file.unlink()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
