#!/usr/bin/env python3
"""./predict on photographs beside PyTorch: the same logits within 1e-3 from the same file of weights.

    tests/parity/predict_parity.py [--build build] [--count 240]

torchvision's ResNet18 and ResNet50 with random weights and batch statistics taken from the photographs, saved with
torch.save in both formats and as safetensors. ./predict --logits reads file and photographs on its own; PyTorch gets
Resize(256), CenterCrop(224), ToTensor, Normalize. The photographs are imagenet_samples_240/ in $RETORT_DATASETS or
datasets/. Needs torch, torchvision, safetensors, pillow.
"""
import argparse
import pathlib
import sys
import tempfile

import numpy
import torch
import torchvision
from safetensors.torch import save_file

import parity_common as common
import photographs

LIMIT = 1e-3


def saved(model, folder, name):
    state = model.state_dict()
    files = {kind: folder / f"{name}_{kind}.pth" for kind in ("zip", "old")}
    files["safetensors"] = folder / f"{name}.safetensors"
    torch.save(state, files["zip"])
    torch.save(state, files["old"], _use_new_zipfile_serialization=False)
    save_file(state, files["safetensors"])
    return files


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=common.ROOT / "build")
    parser.add_argument("--count", type=int, default=240)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    files = photographs.files(arguments.count)
    inputs = photographs.network_input([photographs.middle(file) for file in files])
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for name in ("resnet18", "resnet50"):
            torch.manual_seed(1)
            model = photographs.calibrate(getattr(torchvision.models, name)(), inputs)
            expected = photographs.logits(model, inputs)
            for kind, weights in saved(model, folder, name).items():
                out = folder / "logits.safetensors"
                common.run_program(arguments.build, "predict", weights, *files, "--arch", name, "--stem", "imagenet",
                                   "--normalize", "imagenet", "--device", arguments.device, "--logits", out)
                found = common.read_safetensors(out)["logits"]
                if found.shape != expected.shape:
                    sys.exit(f"{name} {kind}: logits are {found.shape}, expected {expected.shape}")
                difference = float(numpy.abs(found - expected).max())
                same = int((found.argmax(1) == expected.argmax(1)).sum())
                ok = difference <= LIMIT
                failed += [] if ok else [(name, kind)]
                print(f"{name} {kind}: {len(found)} photographs, logits of {expected.min():.1f} to {expected.max():.1f} "
                      f"differ by at most {difference:.1e}, same class for {same}: {'ok' if ok else 'FAILED'}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
