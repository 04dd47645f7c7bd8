#!/usr/bin/env python3
"""Exported networks must compute in onnxruntime and in PyTorch what they compute in Retort.

    tests/parity/export_parity.py [--build build] [--images 500] [--part cifar|photographs]

Part 1, CIFAR-10's test images: resnet20 and resnet56 with published weights, resnet18 with random ones.
Each is exported with its batch normalisation kept and folded, in f32 and in f16; onnx.checker examines the file, and
onnxruntime's logits are compared with those of `train --evaluate-only --logits`: within 1e-4 in f32; in f16 the figure
is printed and the chosen class must be the same for 99 of 100 images.

Part 2, photographs: torchvision's ResNet18 and ResNet50 (ImageNet stem; random weights, statistics of photographs)
go from PyTorch to Retort and back: the exported safetensors load into PyTorch with strict=True, every tensor of the
same bytes. The logits, of Retort's predict and of the exports in onnxruntime, must lie within 1e-4 of PyTorch's in f64
and of one another; those of f16 exports within twice what PyTorch's half precision is off.

Needs torch, torchvision, onnx, onnxruntime, safetensors and Pillow.
"""
import argparse
import copy
import itertools
import pathlib
import subprocess
import sys
import tempfile

import numpy
import onnx
import onnxruntime
import safetensors.torch
import torch
import torchvision

import parity_common as common
import photographs
from photographs import IMAGENET_MEAN, IMAGENET_STD

VARIANTS = list(itertools.product((False, True), ("f32", "f16")))
failed = []


def verdict(what, found, ok):
    print(f"{what}: {found}: {'ok' if ok else 'FAILED'}", flush=True)
    if not ok:
        failed.append(what)


def largest_difference(found, expected):
    return float(numpy.abs(found - expected).max())


def export(build, source, *arguments):
    command = [str(build / "export"), str(source), *map(str, arguments)]
    done = subprocess.run(command, cwd=common.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}")


def onnx_logits(path, images, batch=50):
    """Checks the file and runs it; images [N, 3, H, W]. The last batch is a smaller one."""
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    parts = (images[i:i + batch] for i in range(0, len(images) - 1, batch))
    logits = [session.run(["logits"], {"image": part})[0] for part in (*parts, images[-1:])]
    return numpy.concatenate(logits)[:len(images)]


def compare_variants(name, build, source, arguments, images, references, folder, allowed_f16=None):
    """references: name -> logits. allowed_f16: the largest difference; without it, first choices are counted: those of
    a random network hang on less than half precision keeps."""
    for fold, precision in VARIANTS:
        path = folder / f"{name}.onnx"
        flags = ["--onnx", path, "--precision", precision] + (["--fold"] if fold else [])
        export(build, source, *arguments, *flags)
        logits = onnx_logits(path, images)
        for against, expected in references.items():
            difference = largest_difference(logits, expected)
            agree = float((logits.argmax(1) == expected.argmax(1)).mean())
            if precision == "f32":
                ok = difference <= 1e-4 and agree == 1
            else:
                ok = agree >= 0.99 if allowed_f16 is None else difference <= allowed_f16
            verdict(f"{name} {'folded' if fold else 'kept'} {precision} in onnxruntime, {len(images)} images against {against}",
                    f"logits differ by at most {difference:.1e} (largest {numpy.abs(expected).max():.1f}), "
                    f"top-1 the same for {100 * agree:.1f} %", ok)
        if precision == "f32" and not fold:  # the same, normalised inside
            export(build, source, *arguments, *flags, "--normalize-input")
            std, mean = (numpy.array(v, numpy.float32).reshape(1, 3, 1, 1) for v in (IMAGENET_STD, IMAGENET_MEAN))
            again = onnx_logits(path, images * std + mean)
            difference = largest_difference(again, logits)
            verdict(f"{name} with --normalize-input", f"logits differ by at most {difference:.1e}", difference <= 1e-4)


def cifar_networks(build, count, folder):
    pretrained = common.datasets() / "pretrained_resnet_cifar10"
    pixels, _ = common.cifar_records(common.datasets() / "cifar-10-batches-bin" / "test_batch.bin", 1)
    images = common.normalise(pixels[:count], numpy.float32, IMAGENET_MEAN, IMAGENET_STD)
    torch.manual_seed(3)
    small = torchvision.models.resnet18(num_classes=10)
    small.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    small.maxpool = torch.nn.Identity()
    photographs.calibrate(small, images)
    resnet18 = folder / "resnet18.safetensors"
    common.write_safetensors(resnet18, common.numpy_state(small))
    for arch, weights, shortcut in (("resnet20", pretrained / "resnet20-12fca82f.safetensors", "pad"),
                                    ("resnet56", pretrained / "resnet56-4bfd9763.th", "pad"),
                                    ("resnet18", resnet18, "projection")):
        logits_file = folder / "logits.safetensors"
        common.run_train(build, common.ROOT / "configs" / "cifar10_pretrained.cfg", "--evaluate-only", "--logits", logits_file,
                         "--set", f"model.arch={arch}", "--set", f"model.init={weights}",
                         "--set", f"model.shortcut={shortcut}", "--set", f"output.root={folder}/runs")
        logits = common.read_safetensors(logits_file)["logits"][:count]
        arguments = ["--arch", arch, "--shortcut", shortcut, "--input-size", "32", "--normalize", "imagenet"]
        compare_variants(arch, build, weights, arguments, images, {"Retort": logits}, folder)


def written_photographs(folder, count):
    """Their middles as files, and as the network's input in the order of the files."""
    written = common.fresh_folder(folder / "photographs")
    pictures = {file.stem: photographs.middle(file) for file in photographs.files(count)}
    for name, picture in pictures.items():
        picture.save(written / f"{name}.png")
    return written, photographs.network_input([pictures[file.stem] for file in sorted(written.iterdir())])


def torchvision_networks(build, folder, count):
    pngs, images = written_photographs(folder, count)
    for arch in ("resnet18", "resnet50"):
        torch.manual_seed(5)
        model = photographs.calibrate(getattr(torchvision.models, arch)(), images)
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        expected = photographs.logits(copy.deepcopy(model).double(), images.astype(numpy.float64))
        in_f32 = photographs.logits(model, images)
        in_half = photographs.logits(copy.deepcopy(model).half(), images.astype(numpy.float16))
        off, off_half = (largest_difference(logits, expected) for logits in (in_f32, in_half))
        print(f"{arch}: PyTorch's logits, up to {numpy.abs(expected).max():.1f} in f64, are off by at most {off:.1e} in f32 "
              f"and {off_half:.1e} in half precision", flush=True)
        weights = folder / f"{arch}.pth"
        torch.save(model.state_dict(), weights)
        arguments = ["--arch", arch, "--stem", "imagenet", "--input-size", "224", "--normalize", "imagenet"]

        back = folder / f"{arch}.safetensors"
        export(build, weights, *arguments, "--safetensors", back)
        loaded = safetensors.torch.load_file(back)
        same = all(loaded[n].shape == t.shape and loaded[n].dtype == t.dtype and
                   loaded[n].numpy().tobytes() == t.numpy().tobytes() for n, t in state.items())
        verdict(f"{arch}: PyTorch -> Retort -> safetensors", f"{len(loaded)} tensors, "
                f"{'all of the same bytes' if same else 'not all the same'}", same and len(loaded) == len(state))
        again = getattr(torchvision.models, arch)().eval()
        again.load_state_dict(loaded, strict=True)
        difference = largest_difference(photographs.logits(again, images), in_f32)
        verdict(f"{arch}: back in PyTorch, strict=True", f"logits differ by at most {difference:.1e}", difference == 0)

        references = {"PyTorch in f64": expected}
        if (build / "predict").exists():
            logits_file = folder / "predicted.safetensors"
            common.run_program(build, "predict", back, pngs, "--resize", "224x224", "--logits", logits_file)
            predicted = common.read_safetensors(logits_file)["logits"]
            difference = largest_difference(predicted, expected)
            verdict(f"{arch}: Retort's predict against PyTorch in f64", f"logits differ by at most {difference:.1e}",
                    difference <= 1e-4)
            references["Retort"] = predicted
        compare_variants(arch + " on photographs", build, weights, arguments, images, references, folder, 2 * off_half)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=common.ROOT / "build")
    parser.add_argument("--images", type=int, default=500, help="of CIFAR-10's test images")
    parser.add_argument("--photographs", type=int, default=48)
    parser.add_argument("--part", choices=("cifar", "photographs"))
    arguments = parser.parse_args()
    build = arguments.build.resolve()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.part != "photographs":
            cifar_networks(build, arguments.images, pathlib.Path(folder))
        if arguments.part != "cifar":
            torchvision_networks(build, pathlib.Path(folder), arguments.photographs)
    sys.exit(f"{len(failed)} comparisons failed" if failed else 0)


if __name__ == "__main__":
    main()
