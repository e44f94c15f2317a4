"""`ConversionReport`: what a conversion read, kept, skipped and wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rm_gallery.core.data.converters import BadRow
from rm_gallery.core.data.samples import Pair, Sample
from rm_gallery.core.errors import DataError

_EXAMPLES = 3


@dataclass
class SplitReport:
    """One exported split."""

    source_rows: int = 0
    rows: int = 0
    prompts: int = 0
    labels: dict[str, Counter[Any]] = field(default_factory=dict)
    """The histogram of each label column; None counts the rows without it."""


@dataclass
class ConversionReport:
    """The figures of one conversion. `read == kept + duplicates + all filtered + all skipped`."""

    name: str
    source: str
    label_names: tuple[str, ...] = ()
    """The label columns of pointwise rows."""
    read: int = 0
    kept: int = 0
    duplicates: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    filtered: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    """For each reason of a skip, the first few rows as `file:line: what`."""
    splits: dict[str, SplitReport] = field(default_factory=dict)
    shared_prompts: int = 0
    files: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def skip(self, bad: BadRow, file: str, line: int) -> None:
        """Count a row that cannot be used."""
        self.skipped[bad.reason] += 1
        shown = self.examples.setdefault(bad.reason, [])
        if len(shown) < _EXAMPLES:
            shown.append(f"{file}:{line}: {bad}")

    def keep(self, split: str, source_rows: int, samples: Sequence[Sample | Pair], prompts: int) -> None:
        """Count rows that are written to a split."""
        self.kept += source_rows
        part = self.splits.setdefault(split, SplitReport())
        part.source_rows += source_rows
        part.rows += len(samples)
        part.prompts += prompts
        for name, values in self._labels(samples):
            part.labels.setdefault(name, Counter()).update(values)

    def _labels(self, samples: Sequence[Sample | Pair]) -> Iterator[tuple[str, list[Any]]]:
        pairs = [sample for sample in samples if isinstance(sample, Pair)]
        if pairs:
            yield "preferred", [pair.preferred for pair in pairs]
            yield "preference_strength", [pair.strength for pair in pairs]
        for name in self.label_names:
            yield name, [sample.labels.get(name) for sample in samples if isinstance(sample, Sample)]

    def splits_rows(self) -> dict[str, int]:
        """The exported rows by split."""
        return {name: part.rows for name, part in self.splits.items()}

    def check(self, max_invalid_fraction: float, path: str) -> None:
        """Raise `DataError` where there is nothing to export, or too many rows are bad."""
        if not self.read:
            raise DataError(f"{path} holds no row")
        bad = self.skipped.total()
        if bad > max_invalid_fraction * self.read:
            raise DataError(
                f"{bad} of {self.read} rows ({bad / self.read:.1%}) of {path} cannot be used, more than "
                f"max_invalid_fraction {max_invalid_fraction:g} allows; nothing was written. Correct them or "
                f"raise configs.max_invalid_fraction:\n{self.skips()}"
            )
        if not self.kept:
            raise DataError(f"{path}: no row is left after the filters ({dict(self.filtered)})")

    def skips(self) -> str:
        """The reasons and examples of skipped rows, as indented lines."""
        return "\n".join(
            f"  {count} × {reason}" + "".join(f"\n      {example}" for example in self.examples[reason])
            for reason, count in self.skipped.most_common()
        )

    def to_dict(self) -> dict[str, Any]:
        """The figures for `--json`."""
        return {
            "name": self.name,
            "source": self.source,
            "read": self.read,
            "kept": self.kept,
            "duplicates": self.duplicates,
            "skipped": dict(self.skipped),
            "skipped_examples": self.examples,
            "filtered": dict(self.filtered),
            "splits": {
                name: {
                    "rows": part.rows,
                    "source_rows": part.source_rows,
                    "prompts": part.prompts,
                    "labels": {label: histogram(counts) for label, counts in part.labels.items()},
                }
                for name, part in self.splits.items()
            },
            "shared_prompts": self.shared_prompts,
            "files": self.files,
            "notices": self.notices,
        }


def histogram(counts: Counter[Any]) -> dict[str, int]:
    """Counts by label in the order of the scale, with keys that JSON can hold; "missing" for None."""
    known = sorted(key for key in counts if key is not None)
    ordered = {str(key): counts[key] for key in known}
    return {**ordered, "missing": counts[None]} if counts[None] else ordered
