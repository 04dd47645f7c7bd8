"""torchvision's augmentation rate on one core: images a second, one image at a time as its data loader does it.

    peer_augment.py --recipe crop_flip|all --form pil|tensor

crop_flip is padded crop, flip and normalisation; all is flip, padded crop, colour jitter, rotation, resized crop and
normalisation, as in configs/teacher.cfg. Starts from decoded 8-bit images, as CIFAR files give them.
"""
import argparse
import json
import statistics
import time

import numpy
import torch
from PIL import Image
from torchvision import transforms as T


def make_recipe(name, form):
    steps = [T.RandomHorizontalFlip(), T.RandomCrop(32, padding=4)]
    if name == "all":
        steps += [T.ColorJitter(0.2, 0.2, 0.2, 0.1), T.RandomRotation(10),
                  T.RandomResizedCrop(32, scale=(0.8, 1.0), ratio=(0.9, 1.1))]
    steps.append(T.ToTensor() if form == "pil" else T.ConvertImageDtype(torch.float32))
    steps.append(T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return T.Compose(steps)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--recipe", choices=["crop_flip", "all"], default="crop_flip")
    parser.add_argument("--form", choices=["pil", "tensor"], default="pil")
    parser.add_argument("--images", type=int, default=1000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pixels = numpy.random.default_rng(0).integers(0, 256, (args.images, 32, 32, 3), dtype=numpy.uint8)
    if args.form == "pil":
        images = [Image.fromarray(p) for p in pixels]
    else:
        images = [torch.from_numpy(p).permute(2, 0, 1).contiguous() for p in pixels]
    recipe = make_recipe(args.recipe, args.form)
    times = []
    for repeat in range(4):
        start = time.perf_counter()
        for image in images:
            recipe(image)
        times.append(time.perf_counter() - start)
    print(json.dumps({"images_per_second": args.images / statistics.median(times[1:]), "recipe": args.recipe, "form": args.form}))


if __name__ == "__main__":
    main()
