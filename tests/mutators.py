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
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np

Rng = np.random.Generator
Damage = Callable[[bytes, Rng], bytes]
NUMBERS = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1)
NUMBERS += (2**63 - 1, 2**63, 2**64 - 1)
WORDS = ("0", "-1", "1", "3", "70000", str(2**31), str(2**63), "9" * 30, "9" * 5000, "1e400")
WORDS += ("nan", "-inf", "", "true", "null", "[]", "{}", '"x"', "\x00", "é", "[" * 3000)
VALUES: tuple[Any, ...] = (None, True, -1, 0, 3, 10**6, 2**40, 10**30, 10**400, 0.5, 1e308)
VALUES += (
    float("nan"),
    float("inf"),
    "",
    "x",
    "../x",
    "\ud800",
    "a\nb" * 9,
    [],
    [[]],
    {},
    [1] * 999,
)
VALUES += ({"a": None}, [None], [1, "x"], {"__tensor__": []}, {"list": 3}, {"dict": [[1]]})
DESCRIPTIONS = ("'<f4'", "'>u2'", "'|b1'", "'|i1'", "'<f8'", "'<f2'", "'<c8'", "'|O'", "'|S0'")
DESCRIPTIONS += ("'<U9'", "'<M8[s]'", "'V0'", "'|V9999999999'", "('<f4', (4,))", "('<f4', -1)")
DESCRIPTIONS += ("[('a', '<f4')]", "[('a', '|O')]", "3", "None", "''", "'\\x00'", "[]", "'<f16'")
SHAPES = ("(2, 1, 8, 6)", "(2, 8, 6)", "(96,)", "()", "(0, 1, 8, 6)", "(-1, 1, 8, 6)", "(-2, -48)")
SHAPES += ("(4294967296, 4294967296)", "(2, 1, 8, 6, 1)", "(1, 2, 8, 6)", "(2, 1, 8, 7)", "(96, 1)")
SHAPES += ("(2, 1, 8, True)", "(2.0, 1, 8, 6)", "[2, 1, 8, 6]", "(99999999999, 1, 8, 6)", "96", "x")
SHAPES += ("(1,) * 9", f"({', '.join('1' * 70)})", "(3037000500, 3037000500)", "(2, 1, 8, None)")


def pick(rng: Rng, things: Any) -> Any:
    return things[int(rng.integers(len(things)))]


def blind(data: bytes, rng: Rng) -> bytes:
    """One to three blows to bytes, wherever they lie; the first and last ones most often."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(out) + 1))
        at = pick(rng, (at, min(at, 360), max(0, len(out) - 1 - at % 120)))
        size = int(rng.integers(1, 40))
        how = rng.integers(9)
        if how == 0:
            del out[at:]
        elif how == 1:
            del out[at : at + size]
        elif how == 2:
            out[at:at] = rng.bytes(size)
        elif how == 3:
            out[at:at] = out[at : at + size] * int(rng.integers(1, 4))
        elif how == 4:
            other = int(rng.integers(len(out) + 1))
            out[at : at + size] = out[other : other + size]
        elif how == 5:
            number, width = pick(rng, NUMBERS), pick(rng, (1, 2, 4, 8))
            order = pick(rng, ("little", "big"))
            out[at : at + width] = (number % 256**width).to_bytes(width, order)
        elif how == 6:
            out[at : at + size] = bytes([pick(rng, (0, 32, 48, 57, 255))]) * size
        elif out and how == 7:
            out[at % len(out)] ^= 1 << int(rng.integers(8))
        else:
            spans = [m.span() for m in re.finditer(rb"\d+", bytes(out[:4096]))]
            start, stop = pick(rng, spans) if spans else (at, at)
            out[start:stop] = pick(rng, WORDS).encode()
    return bytes(out)


def npy(data: bytes, rng: Rng) -> bytes:
    """Another header, of true or false length."""
    size = int.from_bytes(data[8:10], "little")
    text = data[10 : 10 + size].decode("latin1")
    for name, values in (("descr", DESCRIPTIONS), ("shape", SHAPES)):
        if rng.integers(2):
            value = pick(rng, values)
            text = re.sub(
                rf"'{name}': ('[^']*'|\([^)]*\))", lambda _, v=value, n=name: f"'{n}': {v}", text
            )
    if not rng.integers(6):
        text = pick(rng, (text.replace("False", "True"), text * 2, "{" * 999, "", "1", text[1:]))
    header = text.encode("latin1")
    version = pick(rng, ((1, 0), (1, 0), (2, 0), (3, 0), (9, 9)))
    length = pick(rng, (len(header),) * 6 + NUMBERS)
    width = 2 if version[0] == 1 else 4
    prefix = b"\x93NUMPY" + bytes(version) + (length % 256**width).to_bytes(width, "little")
    return prefix + header + data[10 + size :]


def npz(data: bytes, rng: Rng) -> bytes:
    """An archive that is whole, of members that are not; or with lies in its directory."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            if rng.integers(2):
                content = (npy if rng.integers(2) else blind)(content, rng)
            name = pick(rng, (info.filename,) * 6 + ("x", "a/", "../a.npy", "images.npy", "é.npy"))
            methods = (
                zipfile.ZIP_STORED,
                zipfile.ZIP_DEFLATED,
                zipfile.ZIP_BZIP2,
                zipfile.ZIP_LZMA,
            )
            new.writestr(name, content, pick(rng, methods))
    whole = bytearray(out.getvalue())
    if rng.integers(2):
        directory = whole.find(b"PK\1\2")
        at = directory + int(rng.integers(4, len(whole) - directory))
        number, width = pick(rng, NUMBERS), pick(rng, (1, 2, 4))
        whole[at : at + width] = (number % 256**width).to_bytes(width, "little")
    return bytes(whole)


def gz(inner: Damage) -> Damage:
    """`inner`, packed again; sometimes in two pieces, or with a tail."""

    def damage(data: bytes, rng: Rng) -> bytes:
        whole = inner(gzip.decompress(data), rng)
        half = len(whole) // 2
        parts = pick(rng, ([whole], [whole], [whole[:half], whole[half:]], [whole, b""]))
        tail = pick(rng, (b"", b"", bytes(9), b"tail"))
        return b"".join(gzip.compress(part, 1) for part in parts) + tail

    return damage


NIFTI = {40 + 2 * k: "h" for k in range(8)} | {76 + 4 * k: "f" for k in range(8)}  # dim, pixdim
NIFTI |= {0: "i", 70: "h", 72: "h", 108: "f", 112: "f", 116: "f", 252: "h", 254: "h", 344: "i"}
NIFTI |= {at: "f" for at in range(256, 328, 4)}  # quaternions, offsets, affine
CODES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 1792, 2304)


def nifti(data: bytes, rng: Rng) -> bytes:
    """Other values of one to three fields of the header."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at = pick(rng, (70, 108, 112, 116, *NIFTI))
        if NIFTI[at] == "f":
            floats = (0, -1, 1e-40, 1e30, 352, 540, np.nan, np.inf, -np.inf, 2.5, 3.4e38, 1e-20)
            value: float = pick(rng, floats)
        else:
            value = pick(rng, (*CODES, -1, 3, 5, 6, 32767, -32768))
        with contextlib.suppress(struct.error, OverflowError):
            struct.pack_into("<" + NIFTI[at], out, at, value)
    return bytes(out)


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += size + 12
    return found


def png(data: bytes, rng: Rng) -> bytes:
    """Other chunks, with the checksums that they should have."""
    chunks = _chunks(data)
    at = int(rng.integers(len(chunks)))
    kind, content = chunks[at]
    how = rng.integers(6)
    if how == 0:
        chunks.insert(
            at,
            (
                pick(rng, (b"tRNS", b"acTL", b"fcTL", b"iCCP", b"PLTE", b"zTXt", b"gAMA")),
                rng.bytes(8),
            ),
        )
    elif how == 1:
        chunks[at:at] = [chunks[at]] * int(rng.integers(1, 3))
    elif how == 2:
        del chunks[at]
    elif how == 3 and kind == b"IDAT":
        pixels = zlib.decompress(content)
        cut = int(rng.integers(len(pixels)))
        pixels = pick(rng, (pixels[:cut], pixels + pixels[:cut], b"", blind(pixels, rng)))
        chunks[at] = kind, zlib.compress(pixels, 1)
    else:
        place = pick(rng, [k for k, (name, _) in enumerate(chunks) if name != b"IEND"])
        kind, content = chunks[place]
        chunks[place] = kind, blind(content, rng)
    parts = (
        struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks
    )
    return data[:8] + b"".join(parts)


def _places(value: Any) -> list[tuple[Any, Any]]:
    found = []
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            found += [(value, key), *_places(value[key])]
    return found


def json_value(value: Any, rng: Rng) -> Any:
    """`value` with one to three of its parts replaced, left out or put elsewhere."""
    for _ in range(rng.integers(1, 4)):
        places = _places(value)
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
            with contextlib.suppress(KeyError, IndexError):
                parent[key] = json.loads(json.dumps(other[name]))  # a copy: no cycles
        else:
            parent[key] = deepcopy(pick(rng, VALUES))
    return value


def json_file(data: bytes, rng: Rng) -> bytes:
    """Another value, of whatever type, at some places."""
    return json.dumps(json_value(json.loads(data), rng)).encode("utf-8", "surrogatepass")


def safetensors(data: bytes, rng: Rng) -> bytes:
    """Another header, of true length; in its metadata JSON lies within a string."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    meta = header.get("__metadata__", {})
    if "json" in meta and rng.integers(2):
        inner = meta["json"].encode()
        meta["json"] = (json_file if rng.integers(2) else blind)(inner, rng).decode(
            "utf-8", "replace"
        )
    else:
        header = json_value(header, rng)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def csv_file(data: bytes, rng: Rng) -> bytes:
    """Cells, rows or columns that are other ones, doubled or gone."""
    rows = [line.split(",") for line in data.decode().splitlines()]
    for _ in range(rng.integers(1, 4)):
        row = pick(rng, rows)
        at = int(rng.integers(len(row) + 1))
        how = rng.integers(4)
        if how == 0:
            del row[at:]
        elif how == 1:
            row.insert(at, pick(rng, WORDS))
        elif how == 2:
            rows.insert(int(rng.integers(len(rows) + 1)), list(pick(rng, rows)))
        elif row:
            row[at % len(row)] = pick(
                rng, (*WORDS, '"', "'", "a\nb", "\x00", "0.png", "1e300", "-5")
            )
    return "\n".join(map(",".join, rows)).encode()


DAMAGE: dict[str, Damage] = {
    "npy": npy,
    "npz": npz,
    "nii": nifti,
    "nii.gz": gz(nifti),
    "png": png,
    "jpg": blind,
    "txt": blind,
    "json": json_file,
    "safetensors": safetensors,
    "csv": csv_file,
}
BLIND_INSIDE = {"nii.gz": gz(blind)}


def damaged(kind: str, data: bytes, rng: Rng) -> bytes:
    """`data` of this kind, damaged with or without regard to what it is."""
    how = rng.integers(3)
    if how == 0:
        return blind(data, rng)
    if how == 1 and kind in BLIND_INSIDE:
        return BLIND_INSIDE[kind](data, rng)
    return DAMAGE[kind](data, rng)
