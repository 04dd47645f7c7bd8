"""What the parity scripts share: safetensors files by hand, CIFAR records, and running Retort's train on a config."""
import json
import math
import os
import pathlib
import shutil
import struct
import subprocess
import sys

import numpy

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "bench"))

TYPES = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "U8": "u1"}
CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)


def write_safetensors(path, tensors, metadata=None):
    """tensors: name -> numpy array. Eight bytes of header length, a JSON header, then the data."""
    header, blobs, offset = {}, [], 0
    if metadata:
        header["__metadata__"] = metadata
    for name, array in tensors.items():
        array = numpy.asarray(array, order="C")  # not ascontiguousarray, which makes a scalar [1]
        kind = next(t for t, d in TYPES.items() if numpy.dtype(d) == array.dtype)
        blob = array.astype(TYPES[kind], copy=False).tobytes()
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def read_safetensors(path):
    data = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + length + o for o in entry["data_offsets"])
        tensors[name] = numpy.frombuffer(data[begin:end], TYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def datasets():
    return pathlib.Path(os.environ.get("RETORT_DATASETS") or ROOT / "datasets")


def cifar_records(path, label_bytes):
    """Images [N, 3, 32, 32] as bytes and the last label byte (CIFAR-100: the fine one)."""
    if not path.exists():
        sys.exit(f"{path} is missing: fetch it with `dataset {path.parent.name}`, or point RETORT_DATASETS at it")
    records = numpy.fromfile(path, numpy.uint8).reshape(-1, label_bytes + 3072)
    return records[:, label_bytes:].reshape(-1, 3, 32, 32), records[:, label_bytes - 1].astype(numpy.int64)


def cifar100(file):
    return cifar_records(datasets() / "cifar-100-binary" / file, 2)


def write_cifar100(root, images, labels):
    """A CIFAR-100 of these images and then of black ones of class 0, up to the set's size.

    The black images take no room on the disk. A validation split of one image takes it from the largest class, so it
    is a black one: training begins with the given images in their order, and evaluating costs nothing.
    """
    assert 0 not in labels
    folder = fresh_folder(pathlib.Path(root) / "cifar-100-binary")
    records = numpy.zeros((len(images), 2 + 3072), numpy.uint8)
    records[:, 1], records[:, 2:] = labels, images.reshape(len(images), 3072)
    for file, count, content in (("train.bin", 50000, records.tobytes()), ("test.bin", 10000, b"")):
        with open(folder / file, "wb") as f:
            f.write(content)
            f.truncate(count * 3074)


def numpy_state(model):
    return {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}


def normalise(images, dtype, mean=CIFAR100_MEAN, std=CIFAR100_STD):
    mean = numpy.array(mean, dtype).reshape(1, 3, 1, 1)
    std = numpy.array(std, dtype).reshape(1, 3, 1, 1)
    return (images.astype(dtype) / dtype(255) - mean) / std


def run_program(build, program, config, *arguments, **options):
    """Runs `train config` or `distill config`; returns its output, or ends with it where the program failed."""
    command = [str(pathlib.Path(build) / program), str(config), *map(str, arguments)]
    env = dict(os.environ, RETORT_DATASETS=str(datasets()))
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout[-3000:]}")
    return done.stdout


def run_train(build, config, *arguments, **options):
    return run_program(build, "train", config, *arguments, **options)


def fresh_folder(path):
    path = pathlib.Path(path)
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def version_folder(root, name):
    """The newest version of a run: root/name/vN."""
    versions = list((pathlib.Path(root) / name).glob("v*"))
    if not versions:
        sys.exit(f"{root}/{name}: no run was written")
    return max(versions, key=lambda p: int(p.name[1:]))


def metrics(folder, kind):
    lines = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == kind]


def relative(found, expected):
    """Largest difference, relative to the largest expected value: tensors hold values of any size, zero among them."""
    found, expected = numpy.asarray(found, numpy.float64), numpy.asarray(expected, numpy.float64)
    if found.shape != expected.shape:
        return math.inf
    difference = numpy.abs(found - expected).max(initial=0.0)
    scale = numpy.abs(expected).max(initial=0.0)
    return float(difference / scale) if scale > 0 else float(difference)
