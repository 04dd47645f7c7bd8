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
from PIL import Image
from safetensors.torch import save_file
from torchvision import transforms

import parity_common as common

LIMIT = 1e-3
PREPARE = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(),
                              transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])


def calibrated(name, inputs):
    """Statistics of the photographs; logits that spread as a trained network's do."""
    torch.manual_seed(1)
    model = getattr(torchvision.models, name)(weights=None)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches
            torch.nn.init.uniform_(module.weight, 0.3, 0.9)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
    with torch.no_grad():
        for batch in inputs[:64].split(16):
            model(batch)
        model.eval()
        model.fc.weight *= 4 / model(inputs[:16]).std()
    return model


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
    photographs = sorted((common.datasets() / "imagenet_samples_240").glob("*.JPEG"))[:arguments.count]
    if not photographs:
        sys.exit(f"{common.datasets() / 'imagenet_samples_240'}: no photographs there")
    inputs = torch.stack([PREPARE(Image.open(path).convert("RGB")) for path in photographs])
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for name in ("resnet18", "resnet50"):
            model = calibrated(name, inputs)
            with torch.no_grad():
                expected = torch.cat([model(batch) for batch in inputs.split(32)]).numpy()
            for kind, file in saved(model, folder, name).items():
                out = folder / "logits.safetensors"
                common.run_program(arguments.build, "predict", file, *photographs, "--arch", name, "--stem", "imagenet",
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
