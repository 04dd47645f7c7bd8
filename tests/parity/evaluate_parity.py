#!/usr/bin/env python3
"""The four pretrained CIFAR-10 ResNets must score exactly as published, with the recorded logits within 1e-3.

    tests/parity/evaluate_parity.py [--build build]

Runs `train configs/cifar10_pretrained.cfg --evaluate-only --logits FILE` on the files of pretrained_resnet_cifar10/,
in safetensors and as PyTorch saved them (by akamaster, in $RETORT_DATASETS or datasets/). Needs numpy only.
"""
import argparse
import itertools
import pathlib
import sys
import tempfile

import numpy

import parity_common as common

PUBLISHED = {"resnet20-12fca82f": 91.73, "resnet32-d509ac18": 92.63, "resnet44-014dd654": 93.10, "resnet56-4bfd9763": 93.39}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=common.ROOT / "build")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    pretrained = common.datasets() / "pretrained_resnet_cifar10"
    _, labels = common.cifar_records(common.datasets() / "cifar-10-batches-bin" / "test_batch.bin", 1)
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for (name, published), suffix in itertools.product(PUBLISHED.items(), (".safetensors", ".th")):
            logits_file = pathlib.Path(folder) / f"{name}.safetensors"
            output = common.run_train(
                arguments.build, common.ROOT / "configs" / "cifar10_pretrained.cfg", "--evaluate-only", "--logits", logits_file,
                "--set", f"model.arch={name.partition('-')[0]}", "--set", f"model.init={pretrained / name}{suffix}",
                "--set", f"device={arguments.device}", "--set", f"output.root={folder}/runs")
            logits = common.read_safetensors(logits_file)["logits"]
            recorded = numpy.fromfile(pretrained / f"{name}.cifar10_test_logits.f32", "<f4").reshape(-1, 10)
            if logits.shape != recorded.shape or logits.dtype != numpy.float32:
                sys.exit(f"{name}: logits are {logits.dtype} {logits.shape}, expected float32 {recorded.shape}")
            right = int((logits.argmax(1) == labels).sum())
            difference = float(numpy.abs(logits - recorded).max())
            printed = f"{published:.2f}" in output
            ok = right == round(published * 100) and difference <= 1e-3 and printed
            failed += [] if ok else [name + suffix]
            print(f"{name}{suffix}: {right / 100:.2f} % (published {published:.2f} %), logits differ by at most {difference:.1e}"
                  f"{'' if printed else ', but train printed another accuracy: ' + output.strip().splitlines()[-1]}: "
                  f"{'ok' if ok else 'FAILED'}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
