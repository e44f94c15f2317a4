"""Which split a row goes to: the source's own where it carries one, else a draw by prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rm_gallery.core.data.config import ExportConfig
from rm_gallery.core.data.converters import BadRow
from rm_gallery.core.data.hashing import RatioSplit
from rm_gallery.core.data.sources import Source, split_of
from rm_gallery.core.errors import ConfigError, DataError

Assign = Callable[[bytes, "str | None"], str]
"""(prompt digest, the source's split of this row) → the name to export it under."""


class SplitPlan:
    """Decides splits for one conversion.

    The source carries its own split where its rows have a `split` field, or where its files are named
    after both a training and a held-out part (`train*`, `validation*`, `val*`, `test*`, `dev*`). A field
    goes before a file name. Otherwise each prompt is drawn (`RatioSplit`).

    Raises:
        ConfigError: `split_ratio` has no name for a part of the source's split.
        DataError: only some of the files belong to a split.
    """

    def __init__(self, sources: Sequence[Source], config: ExportConfig) -> None:
        self.names = list(config.split_ratio)
        self._by_source = config.split == "source"
        self._ratio = RatioSplit(config.split_ratio, config.seed)
        self._known: dict[str, str] = {}
        self.notices: list[str] = []
        by_name = {source.split == "train" for source in sources if source.split} == {True, False}
        by_field = {
            source.name: split_of(_field(row))
            for source in sources
            if config.split == "source" and (row := source.first_row()) and _field(row)
        }
        self.from_source = config.split == "source" and (by_name or bool(by_field))
        if config.split == "ratio" and by_name:
            self.notices.append("the source's own split is not used: export.split is ratio")
        if not self.from_source:
            return
        lost = [s.name for s in sources if s.name not in by_field and not (by_name and s.split)]
        if lost:
            raise DataError(
                f"{lost[0]} belongs to no split, while other files of the source do: name it train… or "
                f"validation…, move it away, or set export.split to ratio"
            )
        seen = sorted({s.split for s in sources if by_name and s.split} | {s for s in by_field.values() if s})
        for split in seen:
            self._exported(split)
        shares = ", ".join(f"{name}: {share:g}" for name, share in config.split_ratio.items())
        how = "a `split` field" if by_field else f"files for {' and '.join(seen)}"
        self.notices.append(
            f"the source carries its own split ({how}): it is kept, and split_ratio {{{shares}}} gives only "
            f"the names; set export.split to ratio to draw by prompt instead"
        )

    def own(self, row: Mapping[str, Any], source: Source) -> str | None:
        """The split that the source gives this row, in our words. Raises `BadRow` where it should and does not."""
        word = _field(row)
        if word is None:
            if self.from_source and source.split is None:
                raise BadRow("split is missing")
            return source.split
        split = split_of(word)
        if split is None and self.from_source:
            raise BadRow("split is none of train, validation and test", word)
        if split is not None and self._by_source and not self.from_source:
            raise BadRow(
                "split is given, and the first row of the source has none; export.split: ratio draws instead"
            )
        return split

    def assign(self, prompt: bytes, own: str | None) -> str:
        """The name under which a row is exported. `own` is what `own()` gave."""
        if self.from_source and own is not None:
            return self._known.get(own) or self._exported(own)
        return self._ratio(prompt)

    def check(self, rows: Mapping[str, int]) -> None:
        """Raise `DataError` where a split got no row."""
        empty = [name for name in self.names if not rows.get(name)]
        if not empty:
            return
        if self.from_source:
            raise DataError(
                f"the split {empty[0]!r} got no row: the source's own split has only {_listed(rows)}; set "
                f"export.split to ratio to draw by prompt, or take {empty[0]!r} out of split_ratio"
            )
        raise DataError(
            f"the split {empty[0]!r} got no row: {sum(rows.values())} rows are too few for its share; change "
            f"split_ratio, export.seed, or give more data"
        )

    def _exported(self, split: str) -> str:
        """A part goes to its namesake in split_ratio; else training to the first name, held-out to the only other."""
        trains = next((name for name in self.names if split_of(name) == "train"), self.names[0])
        held_out = [name for name in self.names if name != trains]
        namesake = [name for name in held_out if split_of(name) == split]
        if split == "train":
            name = trains
        elif namesake:
            name = namesake[0]
        elif len(held_out) == 1:
            name = held_out[0]
        else:
            raise ConfigError(
                f"the source's {split} part has no name in split_ratio ({', '.join(self.names)}): name one "
                f"{split!r}, or set export.split to ratio"
            )
        self._known[split] = name
        return name


def _field(row: Mapping[str, Any]) -> str | None:
    value = row.get("split")
    return value if isinstance(value, str) and value else None


def _listed(rows: Mapping[str, int]) -> str:
    return " and ".join(repr(name) for name, count in rows.items() if count)
