"""Long work in whole batches, shared by the processes of a command and continued after any end.

Beside the output lies a folder of unfinished work: `manifest.json`, the settings; the arrays, which
process 0 allocates; and a `done-K.json` of each process K, the batches whose bytes are on the disk.
The batches are the same however many processes there are, so the result has the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path

import numpy as np

from nogaps.runtime import processes
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import atomic, flush_to_disk, load_json, load_npy, save_json, writing
from nogaps.runtime.processes import LOCK, folder_lock
from nogaps.runtime.progress import progress

MANIFEST = "manifest.json"
OTHER_OUTPUT = "the same settings: use another folder or remove it"
RECORD = 2.0  # seconds between two records of the batches that are done
BLOCK = 1 << 20  # bytes


@dataclass(frozen=True)
class StoredArray:
    """An array of `count` items in a file: `header`, then the items in C order."""

    path: Path
    count: int
    shape: tuple[int, ...]  # of one item
    dtype: np.dtype
    header: bytes = b""

    @property
    def item_bytes(self) -> int:
        """Bytes of one item."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return len(self.header) + self.count * self.item_bytes

    def allocate(self) -> None:
        """Write the header and zeros, so that a full disk is an error now and not hours later."""
        with atomic(self.path) as temporary, open(temporary, "wb") as file:
            file.write(self.header)
            for start in range(len(self.header), self.size, BLOCK):
                file.write(bytes(min(BLOCK, self.size - start)))

    def write(self, start: int, items: np.ndarray) -> None:
        """Write items `start` and following, (n, *shape)."""
        with writing(self.path), open(self.path, "r+b") as file:
            file.seek(len(self.header) + start * self.item_bytes)
            file.write(np.ascontiguousarray(items, self.dtype).data)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return items `start` to `stop` - 1, (n, *shape)."""
        with open(self.path, "rb") as file:
            file.seek(len(self.header) + start * self.item_bytes)
            values = np.fromfile(file, self.dtype, (stop - start) * prod(self.shape))
        return values.reshape(stop - start, *self.shape)


def npy_header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """Return the header of a .npy file of that shape and type, in C order."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    file = BytesIO()
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


@contextmanager
def unfinished(folder: Path, settings: Callable[[], dict | None]) -> Iterator[dict | None]:
    """Hold the folder of unfinished work; every process of the command must enter together.

    Args:
        folder: Where the unfinished work lies; it is removed when the block ends without an error.
        settings: Called in process 0 once the folder is locked. Returns what the arrays depend on,
            as JSON has it, or None if there is nothing left to do.

    Yields:
        The settings that process 0 has returned.

    Raises:
        BadInput: `folder` holds work of other settings, or another run works in it.
    """
    try:
        with folder_lock(folder) if processes.is_main() else nullcontext():
            with processes.main_process_first():
                if processes.is_main():
                    _begin(folder, settings())
            known = (folder / MANIFEST).exists()  # else nothing is left to do
            yield load_json(folder / MANIFEST) if known else None
            processes.wait_for_everyone()
            if processes.is_main():
                for path in folder.iterdir():
                    if path.name != LOCK:  # which is still held
                        path.unlink()
    finally:
        with suppress(OSError):  # it is not empty, so it is kept
            folder.rmdir()


def _begin(folder: Path, settings: dict | None) -> None:
    """Leave the manifest of these settings, or none; BadInput where interrupted work has others."""
    manifest = folder / MANIFEST
    if settings is None:
        manifest.unlink(missing_ok=True)
    elif manifest.exists():
        require_same(manifest, settings)
    else:
        _forget(folder)  # what a run that was killed while it cleaned up has left
        save_json(manifest, settings)


def _forget(folder: Path) -> None:
    """Remove the records of what is done."""
    for record in folder.glob("done-*.json"):
        record.unlink()


def require_same(manifest: Path, settings: Mapping) -> None:
    """Raise BadInput unless the JSON object in `manifest` has every entry of `settings`."""
    try:
        there = load_json(manifest)
    except BadInput as error:
        raise BadInput(error.problem, OTHER_OUTPUT, path=manifest) from error
    different = [
        f"{key} {there.get(key)!r}, not {value!r}"
        for key, value in settings.items()
        if there.get(key) != value
    ]
    if different:
        raise BadInput(f"was made with {'; '.join(different)}", OTHER_OUTPUT, path=manifest)


def make_batches(
    folder: Path,
    arrays: Sequence[StoredArray],
    batch_size: int,
    make: Callable[[int, int], Sequence[np.ndarray]],
    description: str,
    show: bool = True,
) -> None:
    """Make the batches that are not done yet; return when those of every process are.

    Args:
        folder: The folder that `unfinished` holds, in which `arrays` lie.
        arrays: The arrays that are made, with the same number of items each.
        batch_size: Items of a batch; the last batch may have fewer.
        make: `make(start, stop)` returns items `start` to `stop` - 1 of each array.
        description: Heads the progress bar.
        show: Whether process 0 shows its progress.

    Raises:
        BadInput: The arrays cannot be written, or `folder` holds damaged files.
    """
    with processes.main_process_first():
        if processes.is_main():
            _allocate(folder, arrays)
    done = _done(folder.glob("done-*.json"))
    processes.wait_for_everyone()  # nobody writes before everyone has read what is done
    count = arrays[0].count
    own = processes.share([k for k in range(0, count, batch_size) if k not in done])
    total = sum(min(batch_size, count - start) for start in own)
    with (
        _record(folder, arrays) as note,
        progress(desc=description, total=total, disable=not (show and processes.is_main())) as bar,
    ):
        for start in own:
            stop = min(start + batch_size, count)
            for array, items in zip(arrays, make(start, stop), strict=True):
                array.write(start, items)
            note(start)
            bar.update(stop - start)
    processes.wait_for_everyone()


def make_npy(
    path: Path,
    shape: tuple[int, ...],
    batch_size: int,
    make: Callable[[int, int], np.ndarray],
    description: str,
    settings: dict | None = None,
) -> None:
    """Make a .npy of float32 batch by batch, unless it is there.

    The same call continues an interrupted one, to the same bits. Several processes that all call
    this share the batches.

    Args:
        path: The .npy.
        shape: Of the array.
        batch_size: See `make_batches`.
        make: `make(start, stop)` returns items `start` to `stop` - 1.
        description: Heads the progress bar.
        settings: What the values depend on, written to `manifest.json` beside the array; None
            where the name of the array tells it.

    Raises:
        BadInput: There is an array of other settings, of unknown ones or of another shape; it
            cannot be written, or another run makes it.
    """
    dtype, folder = np.dtype("<f4"), path.with_name(f".{path.name}.partial")
    array = StoredArray(folder / path.name, shape[0], shape[1:], dtype, npy_header(shape, dtype))
    wanted = settings or {"shape": list(shape)}
    with processes.main_process_first():
        if is_made(path, shape, settings) and not folder.exists():
            return  # without a lock, which needs a folder that can be written
    with unfinished(folder, lambda: None if is_made(path, shape, settings) else wanted) as known:
        if known is None:
            return
        require_same(folder / MANIFEST, wanted)  # in every process
        make_batches(folder, [array], batch_size, lambda *ends: [make(*ends)], description)
        if processes.is_main():
            if settings:  # before the array, which without them would be of unknown settings
                save_json(path.with_name(MANIFEST), settings)
            array.path.replace(path)


def is_made(path: Path, shape: tuple[int, ...], settings: dict | None = None) -> bool:
    """Return whether `make_npy` has made an array.

    Raises:
        BadInput: There is one of other settings, of unknown ones or of another shape.
    """
    manifest = path.with_name(MANIFEST)
    if settings and manifest.exists():
        require_same(manifest, settings)
    elif settings and path.exists():
        raise BadInput(f"no {MANIFEST} tells its settings", OTHER_OUTPUT, path=path)
    if path.exists() and (there := load_npy(path, mmap=True).shape) != shape:
        raise BadInput(f"has shape {there}, not {shape}", OTHER_OUTPUT, path=path)
    return path.exists()


def _allocate(folder: Path, arrays: Sequence[StoredArray]) -> None:
    """Make the arrays that are missing. Raises BadInput for one of another size."""
    for array in arrays:
        if not array.path.exists():
            _forget(folder)  # nothing is done without the array
            array.allocate()
        elif (size := array.path.stat().st_size) != array.size:
            raise BadInput(f"has {size} bytes", f"{array.size}: remove {folder}", path=array.path)


def _done(records: Iterable[Path]) -> set[int]:
    """The batches that these files record, each by its first item."""
    return {start for record in records for start in load_json(record)["batches"]}


@contextmanager
def _record(folder: Path, arrays: Sequence[StoredArray]) -> Iterator[Callable[[int], None]]:
    """Yield `note(start)`, to be called when a batch is written.

    This process's record is written with the first batch, then every few seconds, and at any end;
    it never names a batch whose bytes are not on the disk.
    """
    path = folder / f"done-{processes.number()}.json"
    batches = sorted(_done([path] if path.exists() else []))
    recorded, last = len(batches), -RECORD  # how many batches the file names, when it was written

    def save() -> None:
        nonlocal recorded, last
        if len(batches) > recorded:
            for array in arrays:
                flush_to_disk(array.path)
            save_json(path, {"batches": batches})
        recorded, last = len(batches), time.monotonic()

    def note(start: int) -> None:
        batches.append(start)
        if time.monotonic() - last > RECORD:
            save()

    try:
        yield note
    finally:
        save()
