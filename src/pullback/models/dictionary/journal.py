"""How far a long fit is: the last states of its loops, in one file from which it goes on with the same bits.

A fit is loops within loops: attempts, rounds, sweeps. Each keeps its last state under its own place; what the
loops inside it have kept is then out of date and forgotten. A fit that goes on runs the same program again,
and every loop begins where it was.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from pullback.io import FormatError, load_tensors, save_tensors
from pullback.models.dictionary.packing import Packer, unpack

logger = logging.getLogger(__name__)

KIND = "dictionary checkpoint"
VERSION = 2
SPACING = 20.0
"""Time between checkpoints, in units of the time that the last one took."""

PATIENCE = 60.0
"""Seconds until a disk that refused a checkpoint is asked again."""

State = TypeVar("State")


@dataclass(frozen=True, eq=False)
class _Kept:
    """State of a loop, and of the random stream at that time."""

    state: Any
    draws: Tensor | None


class Store:
    """States of one fit by place, in memory and now and then in a file.

    Args:
        path: the file; its folder must exist.
        run: what the fit is of, plain values; kept with it.
        known: classes that states are made of.
        device: of the rows.
    """

    def __init__(
        self,
        path: Path,
        run: Mapping[str, Any],
        known: Mapping[str, type],
        device: torch.device | None = None,
    ):
        self.path, self.run, self.known, self.device = path, dict(run), known, device
        self.kept: dict[tuple[str, ...], _Kept] = {}
        self.began, self.due, self.fresh = time.monotonic(), 0.0, False

    def clock(self) -> float:
        """Seconds since the fit began, those of its earlier parts included."""
        return time.monotonic() - self.began

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *error: object) -> None:
        if self.fresh:
            self._try_to_write()

    def keep(self, place: tuple[str, ...], kept: _Kept) -> None:
        """A new state; it makes all states further in forgotten."""
        self.kept = {at: old for at, old in self.kept.items() if at[: len(place)] != place}
        self.kept[place] = kept
        self.fresh = True
        if time.monotonic() >= self.due:
            self._try_to_write()

    def _try_to_write(self) -> None:
        """A disk that is full costs the checkpoint, not the fit."""
        try:
            self.write()
        except OSError as error:
            self.due = time.monotonic() + PATIENCE
            logger.warning("%s: no checkpoint written, the fit goes on (%s)", self.path, error)

    def write(self) -> None:
        """The file, atomically."""
        began = time.monotonic()
        packer = Packer(self.known)
        states = [
            {"place": list(at), "state": packer.pack(kept.state), "draws": packer.pack(kept.draws)}
            for at, kept in self.kept.items()
        ]
        facts = {"kind": KIND, "version": VERSION, "run": self.run, "clock": self.clock(), "states": states}
        save_tensors(self.path, packer.tensors, facts)
        now = time.monotonic()
        self.fresh, self.due = False, now + SPACING * (now - began)

    def read(self) -> None:
        """States of the file.

        Raises:
            FormatError: no checkpoint of a dictionary, or damaged.
        """
        tensors, facts = load_tensors(self.path)
        if facts.get("kind") != KIND or facts.get("version") != VERSION:
            raise FormatError(f"{self.path}: not a checkpoint of a dictionary, version {VERSION}")
        for entry in facts["states"]:
            state = unpack(entry["state"], tensors, self.known, self.device)
            self.kept[tuple(entry["place"])] = _Kept(state, unpack(entry["draws"], tensors, {}))
        self.began = time.monotonic() - facts["clock"]


@dataclass(frozen=True, eq=False)
class Journal:
    """The place of one loop in a `Store`; without a store nothing is kept.

    Attributes:
        store: of the fit.
        place: names of the loops around this one, and its own.
        generator: whose state is kept with every state of a loop.
    """

    store: Store | None = None
    place: tuple[str, ...] = ()
    generator: torch.Generator | None = None

    def at(self, name: str) -> "Journal":
        """The place of a loop inside this one."""
        return replace(self, place=(*self.place, name))

    def drawing(self, generator: torch.Generator) -> "Journal":
        """The same place for a loop that draws from a generator."""
        return replace(self, generator=generator)

    def last(self) -> Any:
        """What this loop kept last, with the generator put back to that time; None if nothing."""
        kept = None if self.store is None else self.store.kept.get(self.place)
        if kept is None:
            return None
        if self.generator is not None and kept.draws is not None:
            self.generator.set_state(kept.draws)
        return kept.state

    def keep(self, state: State) -> State:
        """Keep the state of this loop, from which it could go on; returns it."""
        if self.store is not None:
            draws = None if self.generator is None else self.generator.get_state()
            self.store.keep(self.place, _Kept(state, draws))
        return state

    def once(self, make: Callable[[], State]) -> State:
        """What ``make`` gave when it was first called here."""
        known = self.last()
        return self.keep(make()) if known is None else known

    def clock(self) -> float:
        """A clock that stands still while the fit does not run."""
        return time.monotonic() if self.store is None else self.store.clock()


UNKEPT = Journal()
"""The journal of a fit without a checkpoint."""
