"""From exported rows to preference pairs: what Bradley-Terry training compares, each judgment once."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from rm_gallery.core.data.rows import load_rows
from rm_gallery.core.data.samples import Message, Pair, Sample, metadata_of, response_count, row_name
from rm_gallery.core.errors import DataError, nearest
from rm_gallery.core.train.config import BradleyTerrySection
from rm_gallery.core.train.ratings import check_labels, label, spoken
from rm_gallery.core.train.rows import drawn


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two responses to one conversation.

    Attributes:
        chosen: the better one. Where the pair is tied neither is, and which one stands here means nothing.
        strength: how much better, above 0; 0 of a tie, and where the rows do not say.
        name: the row that it was made of, for messages.
    """

    input: tuple[Message, ...]
    chosen: str
    rejected: str
    tied: bool = False
    strength: float = 0.0
    name: str = ""

    def swap(self) -> PreferencePair:
        """The opposite judgment of the same two responses; of a tie, the same one."""
        return replace(self, chosen=self.rejected, rejected=self.chosen)

    @property
    def conversations(self) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
        """What is scored: the conversation with the chosen response, and with the rejected one."""
        return spoken(self.input, self.chosen), spoken(self.input, self.rejected)

    @property
    def judgment(self) -> Hashable:
        """Equal for rows that say the same of the same two responses, in whichever order."""
        texts: Hashable = (
            frozenset((self.chosen, self.rejected)) if self.tied else (self.chosen, self.rejected)
        )
        return self.input, texts, self.tied, self.strength


def read_pairs(
    path: Path, section: BradleyTerrySection, *, limit: int | None = None, seed: int = 0
) -> tuple[list[PreferencePair], list[str]]:
    """(the pairs of a file, sentences on what was left out of them).

    Of a file of pairs, the two orders of a judgment are one pair; of rated responses, every two to one prompt are, and
    the one with the higher label is chosen.

    Args:
        limit: at most so many pairs, drawn with `seed` from those that are used.

    Raises:
        DataError: a row has no preference or contradicts itself or its other order; the label stands in no row; or no
            pair is left that prefers one response.
    """
    rows = load_rows(path)
    paired = response_count(rows[0]) == 2
    pairs, notes = _of_pairs(rows, path) if paired else _of_ratings(rows, section.label, path)
    tied = sum(pair.tied for pair in pairs)
    if tied == len(pairs):
        raise DataError(
            f"{path} holds no preference: "
            + (f"all {tied} pairs of it are ties" if tied else "no two of its responses answer one prompt")
        )
    if section.ties == "drop" and tied:
        notes.append(f"{path}: {tied} of {len(pairs)} pairs are ties and left out (bradley_terry.ties: drop)")
        pairs = [pair for pair in pairs if not pair.tied]
    if section.margin == "strength":
        for pair in pairs:
            if not pair.tied and pair.strength == 0:
                raise DataError(
                    f"{path}, row {pair.name!r} has no preference_strength, of which "
                    "bradley_terry.margin: strength makes the margin; use margin: none"
                )
    return drawn(pairs, limit, seed), notes


def _of_pairs(rows: Sequence[dict[str, Any]], path: Path) -> tuple[list[PreferencePair], list[str]]:
    _check_column(rows[0], path)
    found: dict[Hashable, PreferencePair] = {}
    for row in rows:
        pair = Pair.from_row(row)
        made = _oriented(pair)
        group = pair.metadata.get("group")
        # judgments of two people may differ; the two orders of one may not
        key = made.judgment if group is None else str(group)
        known = found.setdefault(key, made)
        if known.judgment != made.judgment:
            raise DataError(
                f"{path}: the rows {known.name!r} and {made.name!r} have the same metadata.group and are not "
                "the two orders of one judgment"
            )
    return list(found.values()), []


def _oriented(pair: Pair) -> PreferencePair:
    sign = {"A": -1, "B": 1, "tie": 0}[pair.preferred]
    if pair.strength and pair.strength * sign <= 0:
        raise DataError(
            f"{pair.unique_id or 'row without unique_id'}: `preferred` is {pair.preferred!r} and "
            f"`preference_strength` is {pair.strength}; below 0 is A, above 0 is B, 0 is a tie"
        )
    chosen, rejected = pair.response_a, pair.response_b
    if pair.preferred == "B":
        chosen, rejected = rejected, chosen
    return PreferencePair(
        pair.input, chosen, rejected, pair.preferred == "tie", float(abs(pair.strength)), pair.unique_id
    )


def _of_ratings(
    rows: Sequence[dict[str, Any]], name: str, path: Path
) -> tuple[list[PreferencePair], list[str]]:
    samples = [Sample.from_row(row) for row in rows]
    check_labels(samples, [name], "bradley_terry.label", path)
    together: dict[tuple[Message, ...], list[tuple[Sample, float]]] = {}
    for sample in samples:
        value = label(sample, name)
        if value is not None:
            together.setdefault(sample.input, []).append((sample, value))
    labelled = sum(map(len, together.values()))
    alone = sum(len(rated) == 1 for rated in together.values())
    notes = []
    if unlabelled := len(samples) - labelled:
        notes.append(f"{path}: {unlabelled} of {len(samples)} rows have no label {name} and are left out")
    if alone:
        notes.append(f"{path}: {alone} of {len(together)} prompts have one response, which makes no pair")
    pairs = [_of_two(*two) for rated in together.values() for two in combinations(rated, 2)]
    return pairs, notes


def _of_two(first: tuple[Sample, float], second: tuple[Sample, float]) -> PreferencePair:
    (better, high), (worse, low) = (first, second) if first[1] >= second[1] else (second, first)
    return PreferencePair(
        better.input, better.response, worse.response, high == low, high - low, better.unique_id
    )


def _check_column(row: dict[str, Any], path: Path) -> None:
    if row.get("preferred") is None and "preferred" not in metadata_of(row):
        known = [name for name in row if name != "preferred"]
        raise DataError(
            f"{path}, {row_name(row)}: there is no `preferred` (A, B or tie); the columns are {', '.join(known)}."
            f"{nearest('preferred', known)}"
        )
