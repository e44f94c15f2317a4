"""`convert_dataset`: load → process → split → export, a batch of rows at a time.

What stays in memory is a batch, a row group per split, and 8 bytes a row for finding duplicates and
another 8 a prompt (24 while two sorted runs merge), however large the files are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from rm_gallery.core.data.columns import Columns
from rm_gallery.core.data.config import DatasetConfig
from rm_gallery.core.data.converters import BadRow, Converter, Judgment, expand, get_converter, marked
from rm_gallery.core.data.export import Exporter
from rm_gallery.core.data.filters import Filter, build_filters
from rm_gallery.core.data.hashing import Fingerprint, HashSet
from rm_gallery.core.data.report import ConversionReport
from rm_gallery.core.data.samples import Sample
from rm_gallery.core.data.sources import FileSource, Source, find_files
from rm_gallery.core.data.splits import SplitPlan
from rm_gallery.core.errors import ConfigError, DataError, RMGalleryError

Progress = Callable[[int, int, int], None]
"""(position, size, rows read), in bytes for files; size is 0 where it is not known."""

_BATCH_ROWS = 2048
_BATCH_BYTES = 8 << 20


class _Kept(NamedTuple):
    judgment: Judgment
    mark: Fingerprint
    own_split: str | None
    split: str
    folder: str


def convert_dataset(config: DatasetConfig, progress: Progress | None = None) -> ConversionReport:
    """Convert one dataset and write its files.

    Args:
        config: see `load_config`.
        progress: called every few thousand rows.

    Raises:
        ConfigError: a setting cannot be used.
        DataError: the source cannot be read, too many rows of it are bad, or a split got no row. Nothing is
            written then, and the files of an earlier run stay.
    """
    converter = get_converter(config.configs.source, config.configs.columns, config.name)
    filters = build_filters(config.process)
    sources, notices = _find(config)
    plan = SplitPlan(sources, config.export)
    report = ConversionReport(
        config.name, config.configs.source, converter.label_names, notices=[*notices, *plan.notices]
    )
    columns = Columns(converter.kind, converter.label_names, converter.metadata_names)
    output_dir = Path(config.export.output_dir).expanduser()
    with Exporter(output_dir, config.name, config.export.formats, columns) as exporter:
        run = _Run(converter, filters, plan, exporter, report, config)
        _refuse_overwriting(sources, plan, exporter, run)
        total, before = sum(source.size for source in sources), 0
        for source in sources:
            tick = None if progress is None else _tick(progress, before, total, report)
            run.read(source, tick)
            before += source.size
        run.flush()
        run.check()
        rank = {f"{config.name}_{split}": place for place, split in enumerate(plan.names)}
        written = sorted(exporter.commit(), key=lambda path: (path.parent, rank[path.stem], path.suffix))
        report.files = [str(path) for path in written]
        report.splits = {name: report.splits[name] for name in plan.names}
    return report


class _Run:
    """The state of one conversion."""

    def __init__(
        self,
        converter: Converter,
        filters: dict[str, Filter],
        plan: SplitPlan,
        exporter: Exporter,
        report: ConversionReport,
        config: DatasetConfig,
    ) -> None:
        self.converter, self.filters, self.plan = converter, filters, plan
        self.exporter, self.report, self.config = exporter, report, config
        self.keep_structure = config.export.preserve_structure
        self._labels = frozenset(converter.label_names)
        self._metadata = frozenset(converter.metadata_names)
        self._seen = HashSet()
        self._prompts: dict[str, HashSet] = {}
        self._batch: list[_Kept] = []
        self._batch_size = 0

    def read(self, source: Source, tick: Callable[[Source], None] | None) -> None:
        """Read a source to its end."""
        parse, own, assign, report = self.converter.parse, self.plan.own, self.plan.assign, self.report
        folder, check = self.folder(source), self._check_names
        if (first := source.first_row()) is not None:
            self.converter.check_columns(first, source.name)
        for line, row in source:
            report.read += 1
            if isinstance(row, BadRow):
                report.skip(row, source.name, line)
                continue
            try:
                judgment = parse(row)
                mark = marked(judgment)
                own_split = own(row, source)
            except BadRow as bad:
                report.skip(bad, source.name, line)
                continue
            except Exception as error:  # a converter of one's own may raise anything
                raise DataError(f"{report.source} failed at {source.name}:{line}: {_told(error)}") from error
            check(judgment, source.name, line)
            if self.filters and not self._wanted(judgment, source.name, line):
                continue
            self._batch.append(_Kept(judgment, mark, own_split, assign(mark.prompt, own_split), folder))
            self._batch_size += mark.size
            if len(self._batch) >= _BATCH_ROWS or self._batch_size >= _BATCH_BYTES:
                self.flush()
                if tick is not None:
                    tick(source)

    def folder(self, source: Source) -> str:
        """The subfolder that a source's rows are written to."""
        return source.folder if self.keep_structure else ""

    def flush(self) -> None:
        """Drop duplicates from the batch, and hand the rest to the exporter."""
        batch, self._batch, self._batch_size = self._batch, [], 0
        if not batch:
            return
        groups: dict[tuple[str, str], list[_Kept]] = {}
        for kept, new in zip(batch, self._seen.add([kept.mark.row for kept in batch]), strict=True):
            if new:
                groups.setdefault((kept.folder, kept.split), []).append(kept)
            else:
                self.report.duplicates += 1
        for (folder, split), rows in groups.items():
            samples = [s for kept in rows for s in expand(kept.judgment, kept.mark, kept.own_split)]
            fresh = sum(self._prompts.setdefault(split, HashSet()).add([kept.mark.prompt for kept in rows]))
            self.report.keep(split, len(rows), samples, fresh)
            self.exporter.add(folder, split, samples, sum(kept.mark.size for kept in rows))

    def check(self) -> None:
        """Raise `DataError` where the outcome must not be written; note prompts on both sides."""
        self.report.check(self.config.configs.max_invalid_fraction, self.config.configs.path)
        self.plan.check(self.report.splits_rows())
        names = list(self._prompts)
        for index, first in enumerate(names):
            for second in names[index + 1 :]:
                shared = self._prompts[first].shared(self._prompts[second])
                self.report.shared_prompts += shared
                if shared:
                    self.report.notices.append(
                        f"{shared} prompts of the source's own split are in both {first} and {second}: "
                        f"set export.split to ratio to keep each on one side"
                    )

    def _check_names(self, judgment: Judgment, name: str, line: int) -> None:
        """A converter must announce what it fills: the columns are fixed before the first row is read."""
        said = ""
        if isinstance(judgment, Sample) != (self.converter.kind == "pointwise"):
            said = f"gave a {type(judgment).__name__}, its kind is {self.converter.kind}"
        elif isinstance(judgment, Sample) and not judgment.labels.keys() <= self._labels:
            said = f"gave labels {sorted(judgment.labels)}, its label_names are {sorted(self._labels)}"
        elif judgment.metadata and not judgment.metadata.keys() <= self._metadata:
            said = (
                f"gave metadata {sorted(judgment.metadata)}, its metadata_names are {sorted(self._metadata)}"
            )
        elif wrong := [value for value in _labels(judgment) if value is not None and value % 1]:
            said = f"gave the label {wrong[0]!r}; exported labels are whole numbers"
        if said:
            raise DataError(f"{self.report.source} {said} ({name}:{line})")

    def _wanted(self, judgment: Judgment, name: str, line: int) -> bool:
        for reason, wanted in self.filters.items():
            try:
                keep = wanted(judgment)
            except Exception as error:  # one's own function may raise anything
                raise DataError(f"the filter {reason} failed at {name}:{line}: {_told(error)}") from error
            if not keep:
                self.report.filtered[reason] += 1
                return False
        return True


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, RMGalleryError) else f"{type(error).__name__}: {error}"


def _find(config: DatasetConfig) -> tuple[Sequence[Source], list[str]]:
    if config.configs.type == "huggingface":
        from rm_gallery.core.data.huggingface import find_datasets

        return find_datasets(config.configs.path), []
    return find_files(config.configs.path)


def _refuse_overwriting(sources: Sequence[Source], plan: SplitPlan, exporter: Exporter, run: _Run) -> None:
    """The source must survive: an export over it would be read as a source the next time."""
    inputs = {source.path.resolve() for source in sources if isinstance(source, FileSource)}
    for folder in {run.folder(source) for source in sources}:
        for split in plan.names:
            for path in exporter.paths(folder, split):
                if path.resolve() in inputs:
                    raise ConfigError(f"{path} is read and would be overwritten: change export.output_dir")


def _tick(progress: Progress, before: int, total: int, report: ConversionReport) -> Callable[[Source], None]:
    return lambda source: progress(before + source.position, total, report.read)


def _labels(judgment: Judgment) -> Iterable[float | None]:
    return judgment.labels.values() if isinstance(judgment, Sample) else (judgment.strength,)
