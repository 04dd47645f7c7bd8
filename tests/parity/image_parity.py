#!/usr/bin/env python3
"""What PIL and torchvision make of images, as fixtures for tests/image_test.cpp: CRC-32 of pixels.

    tests/parity/image_parity.py            # checks tests/fixtures/ against the PIL and torchvision that are installed
    tests/parity/image_parity.py --write    # makes the images and the figures anew

tests/fixtures/images/ has small files of every kind, drawn here. tests/fixtures/images.txt has one line a file: its
name, width and height, and the CRC-32 of the u8 pixels [H, W, 3]
  - as Image.open(file).convert("RGB") gives them,
  - resized to 32x32 (Resize((32, 32))),
  - made an ImageNet network's input (Resize(256), CenterCrop(224)), for the photographs of imagenet_samples_240/ only,
  - resized to 224x224, for the same.
Bilinear with antialiasing, as Pillow 13 does it: it begins with the columns of images that lose more than twice as many
rows as columns. Older ones begin with the rows of all, and differ from the figures for those images. Needs pillow 13,
torchvision, numpy.
"""
import argparse
import io
import pathlib
import sys
import zlib

import numpy
import PIL
from PIL import Image
from torchvision import transforms

import parity_common as common

FIXTURES = common.ROOT / "tests" / "fixtures"
PHOTOGRAPHS = "imagenet_samples_240"


def drawing(height=37, width=53):
    """Smooth colours with an edge and some noise."""
    y, x = numpy.mgrid[0:height, 0:width]
    noise = numpy.random.default_rng(1).integers(0, 24, (height, width, 3))
    rgb = numpy.stack([4 * x + y, 255 - 5 * y, (x * y) % 256], 2) // 2 + noise
    rgb[8:20, 10:30] = (250, 30, 90)
    return Image.fromarray(rgb.clip(0, 255).astype(numpy.uint8))


def images():
    """Name -> bytes."""
    picture, out = drawing(), {}

    def keep(name, image, **options):
        stream = io.BytesIO()
        image.save(stream, **options)
        out[name] = stream.getvalue()

    alpha = numpy.tile(numpy.arange(53, dtype=numpy.uint8) * 4, (37, 1))
    rgba = Image.merge("RGBA", (*picture.split(), Image.fromarray(alpha)))
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    cmyk = Image.merge("CMYK", (*picture.split(), Image.fromarray(alpha)))
    for name, image, options in (
            ("420.jpg", picture, {"quality": 80}), ("422.jpg", picture, {"quality": 80, "subsampling": 1}),
            ("444.jpg", picture, {"quality": 95, "subsampling": 0}), ("progressive.jpg", picture, {"progressive": True}),
            ("grey.jpg", picture.convert("L"), {}), ("cmyk.jpg", cmyk, {}), ("turned.jpg", picture, {"exif": exif}),
            ("restart.jpg", picture, {"restart_marker_rows": 1})):
        keep(name, image, format="JPEG", **options)
    for name, image, options in (
            ("rgb.png", picture, {}), ("rgba.png", rgba, {}), ("grey.png", picture.convert("L"), {}),
            ("grey_alpha.png", rgba.convert("LA"), {}), ("bits.png", picture.convert("1"), {}),
            ("palette.png", picture.quantize(200), {}), ("palette4.png", picture.quantize(11), {"bits": 4}),
            ("palette_transparent.png", picture.quantize(7), {"transparency": 3})):
        keep(name, image, format="PNG", **options)
    out["rgb16.png"] = png16(picture, interlaced=False)
    out["interlaced.png"] = png16(picture, interlaced=True)
    return out


def png16(picture, interlaced):
    """16 bits a channel, which PIL does not write; interlaced after Adam."""
    import struct
    high = numpy.asarray(picture).astype(numpy.uint16)
    samples = ((high << 8) | (high.astype(numpy.uint32) * 37 % 256).astype(numpy.uint16)).astype(">u2")
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [samples[y::dy, x::dx] for y, x, dy, dx in passes] if interlaced else [samples]
    raw = b"".join(b"\0" + row.tobytes() for part in parts for row in part)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", picture.width, picture.height, 16, 2, 0, 0, int(interlaced))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")


def crc(image):
    return f"{zlib.crc32(numpy.asarray(image).tobytes()):08x}"


def inputs(image, photograph):
    out = [transforms.Resize((32, 32))(image)]
    if photograph:
        out += [transforms.CenterCrop(224)(transforms.Resize(256)(image)), transforms.Resize((224, 224))(image)]
    return out


def line(path, photograph):
    image = Image.open(path).convert("RGB")
    figures = [crc(image), *map(crc, inputs(image, photograph))]
    return " ".join([f"{PHOTOGRAPHS}/{path.name}" if photograph else path.name, *map(str, image.size), *figures])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    folder, text_file = FIXTURES / "images", FIXTURES / "images.txt"
    if arguments.write:
        common.fresh_folder(folder)
        for name, content in images().items():
            (folder / name).write_bytes(content)
    photographs = sorted((common.datasets() / PHOTOGRAPHS).glob("*.JPEG"))
    if not photographs:
        sys.exit(f"{common.datasets() / PHOTOGRAPHS}: no photographs there")
    lines = [line(path, False) for path in sorted(folder.iterdir())] + [line(path, True) for path in photographs]
    if arguments.write:
        text_file.write_text("\n".join(lines) + "\n")
        print(f"{len(lines)} lines in {text_file}")
        return
    recorded = text_file.read_text().splitlines()
    different = sorted(set(lines) ^ set(recorded))
    print(f"{len(lines)} images, Pillow {PIL.__version__}: " + ("all as recorded" if not different else "DIFFERENT"))
    print(*different[:10], sep="\n", end="\n" if different else "")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
