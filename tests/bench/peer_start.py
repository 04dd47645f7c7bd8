"""PyTorch from process start to its second training step on CIFAR-100: prints a line as each step ends.

    peer_start.py DATASETS [--arch resnet8x4] [--batch 32]
"""
import argparse
import pathlib

import numpy
import torch
from torch.nn import functional as F

import peer_models


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("datasets", type=pathlib.Path)
    parser.add_argument("--arch", default="resnet8x4")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    records = numpy.fromfile(args.datasets / "cifar-100-binary" / "train.bin", numpy.uint8).reshape(-1, 3074)
    model = peer_models.make(args.arch).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(peer_models.parameter_groups(model, 5e-4), lr=0.05, momentum=0.9)
    order = numpy.random.default_rng(0).permutation(len(records))
    for step in range(2):
        batch = records[order[step * args.batch:(step + 1) * args.batch]]
        images = torch.from_numpy(batch[:, 2:].reshape(-1, 3, 32, 32)).float().div_(255).sub_(0.5).div_(0.25)
        labels = torch.from_numpy(batch[:, 1].astype(numpy.int64))
        loss = F.cross_entropy(model(images.contiguous(memory_format=torch.channels_last)), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        print("step", step + 1, float(loss.detach()), flush=True)


if __name__ == "__main__":
    main()
