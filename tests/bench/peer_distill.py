"""PyTorch's step of knowledge distillation (Hinton et al. 2015): a frozen teacher forward, the student forward, 0.1
cross-entropy + 0.9 KL at temperature 4, backward, SGD as in peer_step.py.

    peer_distill.py --teacher resnet32x4 --arch resnet8x4 --batch 64 --steps 5 --warmup 2 --layout channels_last
        [--teacher-mode no_grad|inference|fused] [--compile default] [--device cuda]

no_grad: the teacher as one usually has it, in eval(); inference: under torch.inference_mode; fused: that, with its BN
folded into its convolutions. Prints one JSON object like that of Retort's step_bench. The batch lies ready as normalised
floats. Works with PyTorch 1.13 and newer.
"""
import json

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

import peer_models
import peer_step

TEMPERATURE, CE, KL = 4.0, 0.1, 0.9


def fuse(model):
    """Every BN into the convolution before it; `model` is in eval()."""
    for module in list(model.modules()):
        for number in "123":
            if hasattr(module, "bn" + number):
                setattr(module, "conv" + number,
                        fuse_conv_bn_eval(getattr(module, "conv" + number), getattr(module, "bn" + number)))
                setattr(module, "bn" + number, nn.Identity())
        if isinstance(module, nn.Sequential) and len(module) == 2 and isinstance(module[1], nn.BatchNorm2d):
            module[0], module[1] = fuse_conv_bn_eval(module[0], module[1]), nn.Identity()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    return model


def make_teacher(args, device, memory_format):
    teacher = peer_models.make(args.teacher, args.classes, args.stem, zero_gamma=False).to(device).eval()
    teacher.requires_grad_(False)
    if args.teacher_mode == "fused":
        teacher = fuse(teacher)
    return teacher.to(memory_format=memory_format)


def make_step(args, device):
    memory_format = torch.channels_last if args.layout == "channels_last" else torch.contiguous_format
    torch.manual_seed(0)
    teacher = make_teacher(args, device, memory_format)
    model = peer_models.make(args.arch, args.classes, args.stem).to(device).to(memory_format=memory_format)
    optimizer, kind = peer_step.make_optimizer(model, device)
    size = 224 if args.stem == "imagenet" else 32
    images = torch.randn(args.batch, 3, size, size, device=device).contiguous(memory_format=memory_format)
    labels = torch.randint(args.classes, (args.batch,), device=device)
    frozen = torch.no_grad if args.teacher_mode == "no_grad" else torch.inference_mode

    def autocast():
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=args.precision == "bf16")

    def loss_of(x, y, taught):
        with autocast():
            logits = model(x)
        logits = logits.float()
        kl = F.kl_div(F.log_softmax(logits / TEMPERATURE, 1), F.softmax(taught.float() / TEMPERATURE, 1),
                      reduction="batchmean")
        return CE * F.cross_entropy(logits, y) + KL * TEMPERATURE ** 2 * kl

    if args.compile != "none":
        teacher, loss_of = (torch.compile(f, mode=args.compile) for f in (teacher, loss_of))

    def step():
        with frozen(), autocast():
            taught = teacher(images)
        # Out of inference_mode: its tensors cannot be part of a graph. A copy of a few kilobytes.
        taught = taught.clone()
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(images, labels, taught)
        loss.backward()
        optimizer.step()
        return loss

    return step, kind


def main():
    parser = peer_step.argument_parser("resnet8x4", 64)
    parser.add_argument("--teacher", default="resnet32x4")
    parser.add_argument("--teacher-mode", choices=["no_grad", "inference", "fused"], default="fused")
    args = parser.parse_args()
    result = peer_step.measure(args, make_step)
    print(json.dumps({"teacher": args.teacher, "teacher_mode": args.teacher_mode, **result}))


if __name__ == "__main__":
    main()
