"""Fill a long file in shards that are kept, so that many processes can do it, and go on with it.

Beside the output lies `.NAME.partial` until all is done: `manifest.json`, what is filled with
what; the masks that were found; and the shards, as .npy files. Shards hold whole batches, so the
network gets the same ones, and gives the same bits, however many processes there are.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
from tqdm.std import tqdm as Bar

from nogaps.filling.survey import FillReport, Surveyed
from nogaps.runtime import manifests, processes
from nogaps.runtime.files import load_json, load_npy, save_npy
from nogaps.runtime.locks import folder_lock
from nogaps.runtime.pieces import make_pieces
from nogaps.runtime.progress import progress as show

Filled = Iterator[tuple[int, list[np.ndarray]]]  # start, [filled images, half-widths if asked]
BATCHES, SHARDS = 8, 64  # of a shard, at most; of a file, unless its shards are that long


class Shards:
    """The shards of an output of `count` images in batches; parts: arrays that are filled."""

    def __init__(self, output: str | Path, count: int, batch: int, parts: int) -> None:
        path = Path(os.path.realpath(output))
        self.folder, self.count, self.parts = path.with_name(f".{path.name}.partial"), count, parts
        batches = -(-count // batch)
        self.size = batch * min(BATCHES, -(-batches // SHARDS))
        self.few = batches <= BATCHES and not os.path.exists(self.folder)  # not worth keeping
        self.tag = ""

    def fill(
        self,
        settings: dict,
        survey: Callable[[], Surveyed],
        fill: Callable[[Surveyed, int, int], Filled],
        join: Callable[[Filled], None],
        progress: bool,
    ) -> FillReport:
        """Fill and join all shards; what was found by `survey`, which the leader alone calls.

        settings: what the shards depend on, besides the images and masks. fill(found, start, stop)
        fills images start to stop-1; join writes the output. Raises BadInput if there are shards
        of other settings, images or masks, or if another run has them.
        """
        with ExitStack() as stack:
            processes.by_leader(lambda: self._begin(settings, survey, stack))
            found = self._found(settings)
            quiet = not (progress and processes.is_leader())
            with show(desc="filling", total=self.count, delay=1, disable=quiet) as bar:
                self._make(lambda start, stop: fill(found, start, stop), bar)
            if processes.is_leader():
                join(self._filled())
            processes.meet()
            if processes.is_leader():
                shutil.rmtree(self.folder, ignore_errors=True)
        return found.report

    def _begin(self, settings: dict, survey: Callable[[], Surveyed], stack: ExitStack) -> None:
        """Lock the folder until `stack` is closed, and leave there what all processes must know."""
        stack.callback(self._remove_if_empty)
        stack.enter_context(folder_lock(self.folder))
        found = survey()
        manifest = {**settings, "data": found.digest, **vars(found.report)}
        manifest["notes"] = [*found.report.notes]  # as it is read back
        manifests.open_partial(self.folder, manifest)
        if found.mask is not None:
            save_npy(self.folder / "mask.npy", found.mask)

    def _remove_if_empty(self) -> None:
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _found(self, settings: dict) -> Surveyed:
        """What the leader has left in the folder."""
        manifests.await_manifest(self.folder, settings)
        manifest = load_json(self.folder / manifests.MANIFEST)
        self.tag = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:8]
        report = FillReport(*(manifest[field.name] for field in fields(FillReport)))
        report = replace(report, notes=tuple(report.notes))
        path = self.folder / "mask.npy"
        return Surveyed(report, manifest["data"], load_npy(path) if path.exists() else None)

    def _files(self, path: Path) -> list[Path]:
        return [path.with_name(f"{path.name}-{part}.npy") for part in range(self.parts)]

    def _paths(self) -> list[Path]:
        """Shards by name, without the ending of their parts; of what they are stands first."""
        return [self.folder / f"{self.tag}-{k:09d}" for k in range(0, self.count, self.size)]

    def _make(self, fill: Callable[[int, int], Filled], bar: Bar) -> None:
        paths = self._paths()

        def make(k: int) -> None:
            parts: list[list[np.ndarray]] = [[] for _ in range(self.parts)]
            for _, results in fill(k * self.size, min((k + 1) * self.size, self.count)):
                for part, images in zip(parts, results, strict=True):
                    part.append(images)
                bar.update(len(results[0]))
            for path, part in zip(self._files(paths[k]), parts, strict=True):
                save_npy(path, np.concatenate(part))

        def finished(path: Path) -> bool:
            return all(map(manifests.has_batch, self._files(path)))

        make_pieces(
            paths, finished, make, lambda k: bar.update(min(self.size, self.count - k * self.size))
        )

    def _filled(self) -> Filled:
        for k, path in enumerate(self._paths()):
            yield k * self.size, [load_npy(file) for file in self._files(path)]
