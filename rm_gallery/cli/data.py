"""`rmg data`: convert a source to training files, and describe files."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import orjson
import typer

if TYPE_CHECKING:
    from rm_gallery.core.data import ConversionReport

app = typer.Typer(no_args_is_help=True, help="Convert and describe data.")


@app.command(epilog="Example:  rmg data convert --config examples/train/pointwise/data_config.yaml")
def convert(
    config: str = typer.Option(..., "--config", "-c", help="The YAML of the dataset."),
    overrides: list[str] = typer.Option(
        [], "--set", help="Change a key of the YAML: dataset.configs.path=FOLDER. May be repeated."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the figures as JSON."),
) -> None:
    """Load, filter, split and export a dataset as its YAML says."""
    from rm_gallery.core.data import convert_dataset, load_config

    settings = load_config(config, overrides)
    with _ProgressBar(settings.name) as bar:
        report = convert_dataset(settings, bar.update)
    if as_json:
        _print_json(report.to_dict())
        return
    for notice in report.notices:
        typer.echo(f"note: {notice}", err=True)
    _print_report(report)
    readable = [file for file in report.files if not file.endswith(".json")] or report.files
    kind = readable[0].rpartition(".")[2]
    files = " ".join(shlex.quote(file) for file in readable if file.endswith(kind))
    typer.echo(f"next: rmg data describe {files}")


@app.command(
    epilog="Example:  rmg data describe helpsteer2_pointwise_train.parquet helpsteer2_pointwise_test.parquet"
)
def describe(
    files: list[str] = typer.Argument(..., metavar="FILE…", help="Files that `rmg data convert` wrote."),
    as_json: bool = typer.Option(False, "--json", help="Print the figures as JSON."),
) -> None:
    """Counts, labels, lengths, trivial baselines, and prompts that files share."""
    from rm_gallery.core.data import describe_files

    found = describe_files(files)
    if as_json:
        _print_json(found)
        return
    for description in found["files"]:
        _print_description(description)
    shared = [pair for pair in found["shared_prompts"] if pair["prompts"]]
    for pair in shared:
        first, second = pair["files"]
        typer.echo(f"{pair['prompts']:,} prompts are in both {first} and {second}")
    if len(found["files"]) > 1 and not shared:
        typer.echo("no prompt is in two of the files")


class _ProgressBar:
    """A bar on stderr, and nothing where that is no terminal."""

    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn(name),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rows]:,} rows"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(name, total=None, rows=0)

    def update(self, position: int, size: int, rows: int) -> None:
        self._bar.update(self._task, completed=position, total=size or None, rows=rows)

    def __enter__(self) -> _ProgressBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _print_report(report: ConversionReport) -> None:
    from rm_gallery.core.data.report import histogram

    typer.echo(f"{report.name}: {report.read:,} rows read by {report.source}")
    rows: list[tuple[str, str]] = [("kept", f"{report.kept:,}"), ("duplicates", f"{report.duplicates:,}")]
    rows += [(f"filtered: {reason}", f"{count:,}") for reason, count in report.filtered.most_common()]
    rows += [("skipped", f"{report.skipped.total():,}")]
    _print_table(rows)
    if report.skipped:
        typer.echo(report.skips())
    for name, part in report.splits.items():
        note = f" (from {part.source_rows:,}, in both orders)" if part.rows != part.source_rows else ""
        typer.echo(f"{name}: {part.rows:,} rows{note}, {part.prompts:,} prompts")
        _print_table([(label, _histogram(histogram(counts))) for label, counts in part.labels.items()])
    for file in report.files:
        typer.echo(f"wrote {file}")


def _print_description(description: dict[str, Any]) -> None:
    typer.echo(
        f"{description['file']}: {description['rows']:,} {description['kind']} rows, "
        f"{description['prompts']:,} prompts"
    )
    rows = [("data_source", _histogram(description["data_source"]))]
    rows += [(name, _histogram(counts)) for name, counts in description["labels"].items()]
    for name, words in description["words"].items():
        rows.append(
            (
                f"words in a {name}",
                f"{words['min']:,} to {words['max']:,}, mean {words['mean']:,.0f}, "
                f"median {words['median']:,}, 95% up to {words['p95']:,}",
            )
        )
    rows += _baselines(description["baselines"])
    _print_table(rows)


def _baselines(baselines: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    if majority := baselines.get("majority"):
        rows.append(("always the majority", f"{majority['label']}: accuracy {majority['accuracy']:.4f}"))
    if constant := baselines.get("best_constant_reward"):
        rows.append(("best constant", f"{constant['label']}: mean reward {constant['reward']:.4f}"))
    longer = baselines.get("longer_is_better")
    if longer and longer["untied_pairs"]:
        rows.append(
            (
                "the longer is better",
                f"pairwise accuracy {longer['accuracy']:.4f} on {longer['untied_pairs']:,} untied pairs",
            )
        )
    return rows


def _histogram(counts: dict[str, int]) -> str:
    total = sum(counts.values())
    return "   ".join(f"{label}: {count:,} ({count / total:.1%})" for label, count in counts.items())


def _print_table(rows: list[tuple[str, str]]) -> None:
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        typer.echo(f"  {name:<{width}}  {value}")


def _print_json(figures: dict[str, Any]) -> None:
    typer.echo(orjson.dumps(figures, option=orjson.OPT_INDENT_2).decode())
