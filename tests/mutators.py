"""Seeded damage to files: blind, and such as keeps their checksums and lengths true."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import numpy as np

Rng = np.random.Generator
Damage = Callable[[bytes, Rng], bytes]
NUMBERS = (0, 1, 127, 255, 256, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
WORDS = ("0", "-1", "3", "70000", str(2**31), str(2**63), "9" * 30, "9" * 5000, "1e400", "nan")
WORDS += ("-inf", "", "true", "null", "[]", "{}", '"x"', "\x00", "é", "[" * 3000, "a\nb", "0.png")
VALUES: tuple[Any, ...] = (None, True, -1, 0, 10**6, 2**40, 10**400, 0.5, 1e308, "", "x", "../x")
VALUES += (float("nan"), float("inf"), "\ud800", "a\nb" * 9, [], [[]], {}, [1] * 999, {"a": None})
VALUES += ([None], [1, "x"], {"__tensor__": []}, {"list": 3}, {"dict": [[1]]})
DTYPES = ("<f4", ">u2", "|b1", "<f8", "<f2", "<c8", "|O", "|S0", "<U9", "<M8[s]", "V0", "<f16", "")
DESCRIPTIONS = (*map(repr, (*DTYPES, "|V9999999999", "\x00")), "('<f4', (4,))", "3", "None", "[]")
DESCRIPTIONS += ("('<f4', -1)", "[('a', '<f4')]", "[('a', '|O')]")
SHAPES = ("(2, 1, 8, 6)", "(2, 8, 6)", "(96,)", "()", "(0, 1, 8, 6)", "(-1, 1, 8, 6)", "(-2, -48)")
SHAPES += ("(4294967296, 4294967296)", "(2, 1, 8, 6, 1)", "(1, 2, 8, 6)", "(2, 1, 8, 7)", "96", "x")
SHAPES += ("(2, 1, 8, True)", "(2.0, 1, 8, 6)", "[2, 1, 8, 6]", f"({', '.join('1' * 70)})")


def pick(rng: Rng, choices: Any) -> Any:
    """Return one of the choices."""
    return choices[int(rng.integers(len(choices)))]


def number_bytes(rng: Rng) -> bytes:
    """Return one of NUMBERS, of some width and byte order."""
    number, width = pick(rng, NUMBERS), pick(rng, (1, 2, 4, 8))
    return (number % 256**width).to_bytes(width, pick(rng, ("little", "big")))


def blind(data: bytes, rng: Rng) -> bytes:
    """Replace one to three spans, wherever they lie; the first and last bytes most often."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(out) + 1))
        at = pick(rng, (at, min(at, 360), max(0, len(out) - 1 - at % 120)))
        size, other = int(rng.integers(1, 40)), int(rng.integers(len(out) + 1))
        digits = [m.span() for m in re.finditer(rb"\d+", bytes(out[:4096]))] or [(at, at)]
        number, bit = number_bytes(rng), 1 << int(rng.integers(8))
        start, stop, new = pick(
            rng,
            [
                (at, len(out), b""),
                (at, at + size, b""),
                (at, at, out[at : at + size] * 2),
                (at, at + size, out[other : other + size]),
                (at, at + len(number), number),
                (at, at + size, bytes([pick(rng, (0, 32, 48, 57, 255))]) * size),
                (at, at + 1, bytes(byte ^ bit for byte in out[at : at + 1])),
                (*pick(rng, digits), pick(rng, WORDS).encode()),
            ],
        )
        out[start:stop] = new
    return bytes(out)


def npy(data: bytes, rng: Rng) -> bytes:
    """Write another header, of true or false length."""
    size = int.from_bytes(data[8:10], "little")
    text = data[10 : 10 + size].decode("latin1")
    for name, values in (("descr", DESCRIPTIONS), ("shape", SHAPES)):
        if rng.integers(2):
            new = f"'{name}': {pick(rng, values)}"
            text = re.sub(rf"'{name}': ('[^']*'|\([^)]*\))", lambda _, new=new: new, text)
    if not rng.integers(6):
        text = pick(rng, (text.replace("False", "True"), text * 2, "{" * 999, "", "1", text[1:]))
    version = pick(rng, ((1, 0), (1, 0), (2, 0), (3, 0), (9, 9)))
    length, width = pick(rng, (len(text),) * 6 + NUMBERS), 2 if version[0] == 1 else 4
    prefix = b"\x93NUMPY" + bytes(version) + (length % 256**width).to_bytes(width, "little")
    return prefix + text.encode("latin1") + data[10 + size :]


def npz(data: bytes, rng: Rng) -> bytes:
    """Write a whole archive of members that are not, or a false directory."""
    out = io.BytesIO()
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            content = pick(rng, (npy, blind, lambda same, _: same))(old.read(info), rng)
            name = pick(rng, (info.filename,) * 6 + ("x", "a/", "../a.npy", "images.npy", "é.npy"))
            new.writestr(name, content, pick(rng, methods))
    whole = bytearray(out.getvalue())
    if rng.integers(2):
        directory = whole.find(b"PK\1\2")
        at, number = directory + int(rng.integers(4, len(whole) - directory)), number_bytes(rng)
        whole[at : at + len(number)] = number
    return bytes(whole)


def gz(inner: Damage) -> Damage:
    """Return `inner` for packed files; sometimes in two pieces, or with a tail."""

    def damage(data: bytes, rng: Rng) -> bytes:
        whole = inner(gzip.decompress(data), rng)
        half = len(whole) // 2 if rng.integers(2) else 0
        parts = (gzip.compress(part, 1) for part in (whole[:half], whole[half:]))
        return b"".join(parts) + pick(rng, (b"", b"", bytes(9)))

    return damage


NIFTI = {40 + 2 * k: "h" for k in range(8)} | {76 + 4 * k: "f" for k in range(8)}  # dim, pixdim
NIFTI |= {0: "i", 70: "h", 72: "h", 108: "f", 112: "f", 116: "f", 252: "h", 254: "h", 344: "i"}
NIFTI |= {at: "f" for at in range(256, 328, 4)}  # quaternions, offsets, affine
CODES = (0, 1, 2, 4, 8, 16, 64, 256, 512, 768, 1024, 1536, 1792, 2304, -1, 3, 5, 32767, -32768)
FLOATS = (0, -1, 1e-40, 1e30, 352, 540, np.nan, np.inf, -np.inf, 2.5, 3.4e38, 1e-20)


def nifti(data: bytes, rng: Rng) -> bytes:
    """Write other values into one to three fields of the header."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at = pick(rng, (70, 108, 112, 116, *NIFTI))
        value = pick(rng, FLOATS if NIFTI[at] == "f" else CODES)
        with contextlib.suppress(OverflowError):
            struct.pack_into("<" + NIFTI[at], out, at, value)
    return bytes(out)


def chunks_of(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return kind and content of the chunks of a PNG."""
    chunks, at = [], 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += size + 12
    return chunks


def png_of(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG of chunks, with the checksums that they should have."""
    out = b"\x89PNG\r\n\x1a\n"
    for kind, content in chunks:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        out += struct.pack(">I", len(content)) + kind + content + checksum
    return out


def png(data: bytes, rng: Rng) -> bytes:
    """Add, double, remove or change a chunk, with true checksums."""
    chunks = chunks_of(data)
    at = int(rng.integers(len(chunks)))
    kind, content = chunks[at]
    pixels = zlib.decompress(content) if kind == b"IDAT" else b""
    names = (b"tRNS", b"acTL", b"fcTL", b"iCCP", b"PLTE", b"zTXt", b"gAMA")
    chunks[at : at + 1] = pick(
        rng,
        [
            [(pick(rng, names), rng.bytes(8)), chunks[at]],
            [chunks[at]] * int(rng.integers(2, 4)),
            [],
            [(kind, zlib.compress(blind(pixels, rng), 1) if pixels else content[1:])],
            [(kind, blind(content or b"x", rng))],
        ],
    )
    return png_of(*chunks)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = value if isinstance(value, dict) else range(len(value) if isinstance(value, list) else 0)
    for key in keys:
        yield value, key
        yield from _places(value[key])


def json_value(value: Any, rng: Rng) -> Any:
    """Replace, leave out, rename or copy one to three parts of a value."""
    for _ in range(rng.integers(1, 4)):
        places = list(_places(value))
        if not places or not rng.integers(25):
            return deepcopy(pick(rng, VALUES))
        parent, key = pick(rng, places)
        how = rng.integers(6)
        if how == 0:
            parent.pop(key)
        elif how == 1 and isinstance(parent, dict):
            parent[pick(rng, ("", "x", "_class_name", "json", "__metadata__"))] = parent.pop(key)
        elif how == 2:
            other, name = pick(rng, places)
            parent[key] = json.loads(json.dumps(other[name]))  # a copy: no cycles
        else:
            parent[key] = deepcopy(pick(rng, VALUES))
    return value


def json_file(data: bytes, rng: Rng) -> bytes:
    """Write other values, of whatever type, at some places."""
    return json.dumps(json_value(json.loads(data), rng)).encode("utf-8", "surrogatepass")


def safetensors(data: bytes, rng: Rng) -> bytes:
    """Write another header, of true length; in its metadata JSON lies within a string."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    meta = header.get("__metadata__", {})
    if "json" in meta and rng.integers(2):
        inner = pick(rng, (json_file, blind))(meta["json"].encode(), rng)
        meta["json"] = inner.decode("utf-8", "replace")
    else:
        header = json_value(header, rng)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


DAMAGE: dict[str, Damage] = {
    ".npy": npy,
    ".npz": npz,
    ".nii": nifti,
    ".gz": gz(nifti),
    ".png": png,
    ".json": json_file,
    ".ipynb": json_file,
    ".safetensors": safetensors,
}


def damaged(suffix: str, data: bytes, rng: Rng) -> bytes:
    """Return `data` of a file with this ending, damaged with or without regard to its kind."""
    inside = gz(blind) if suffix == ".gz" else DAMAGE.get(suffix, blind)
    return pick(rng, (blind, inside, DAMAGE.get(suffix, blind)))(data, rng)
