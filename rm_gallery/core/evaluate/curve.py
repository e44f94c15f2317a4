"""Figures against training steps: every checkpoint of a run, evaluated alike."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.evaluate.result import EvalResult
from rm_gallery.core.judge.scalar import is_scalar_model
from rm_gallery.core.tasks.saved import CARD

CURVE = "curve.json"
_STEP = re.compile(r"(checkpoint-|global_step_)(\d+)")
_DONE = "metrics.json"


def evaluate_checkpoints(
    run: Path,
    out: Path,
    evaluate: Callable[[str, Path], EvalResult],
    settings: Mapping[str, Any],
    *,
    say: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Evaluate each checkpoint that a run keeps, into `out/step-N`, and write the figures of all as `out/curve.json`.

    The starting weights are step 0 where the run's configuration names a model that is there. A checkpoint whose
    result lies in `out` is not evaluated again. Shards of verl are merged into a folder that is removed again.

    Args:
        run: of either engine.
        evaluate: given a model and a folder for its result.
        settings: all that the figures depend on beside the checkpoint; kept in `out`, where others are refused.
        say: is given a sentence on each checkpoint.

    Returns:
        By step: `{"step", "metrics": {name: {"value", "low", "high", "n"}}, "headline"}`, and of what.

    Raises:
        ConfigError: `run` is no run, keeps no checkpoint, or `out` holds figures that were made otherwise.
    """
    found = checkpoints(run)
    if not found:
        raise ConfigError(
            f"{run} keeps no checkpoint: give the folder of a run of rmg train that has saved one"
        )
    # folders were numbered by updates once: a figure of those is not to stand for another step
    settings = {**settings, "numbered_by": "steps"}
    _check_settings(out, json.loads(json.dumps(settings, default=str)))
    points = []
    for step, folder in found:
        target = out / f"step-{step}"
        if (target / _DONE).is_file():
            say(f"step {step}: evaluated before")
        else:
            say(f"step {step}: {folder.name if folder.parent.name != folder.name else folder}")
            with _whole(folder, target / "merged") as model:
                evaluate(str(model), target)
        details = json.loads((target / "summary.json").read_text("utf-8"))
        keys = ("benchmark", "mode", "n", "headline", "metrics")
        points.append({"step": step, **{key: details[key] for key in keys}})
    part = out / f".{CURVE}.tmp"
    part.write_text(json.dumps(points, indent=2, allow_nan=False) + "\n", "utf-8")
    part.replace(out / CURVE)
    return points


def _check_settings(out: Path, settings: Mapping[str, Any]) -> None:
    file = out / "settings.json"
    if file.is_file():
        before = json.loads(file.read_text("utf-8"))
        changed = sorted(k for k in before.keys() | settings.keys() if before.get(k) != settings.get(k))
        if changed:
            raise ConfigError(
                f"the figures in {out} were made with another {', '.join(changed)}: name another folder by --out"
            )
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings, indent=2) + "\n", "utf-8")


def checkpoints(run: Path) -> list[tuple[int, Path]]:
    """(step, folder) of what a run keeps, in order; step 0 is the model that it started from, where it is a folder."""
    found = {}
    for folder in run.iterdir() if run.is_dir() else ():
        if match := _STEP.fullmatch(folder.name):
            local = match[1] == "checkpoint-"
            whole = folder if local else folder / "actor"
            # written last: without it a checkpoint was cut off, or is removed already
            if (whole / CARD).is_file():
                found[int(match[2]) // (_updates(run) if local else 1)] = whole
    if found and (start := _start(run)) is not None:
        found.setdefault(0, start)
    return sorted(found.items())


def _config(run: Path) -> dict[str, Any]:
    import yaml

    file = run / "config.yaml"
    found = yaml.safe_load(file.read_text("utf-8")) if file.is_file() else None
    return found if isinstance(found, dict) else {}


def _updates(run: Path) -> int:
    """Of a step: the local engine names its folders by updates."""
    train = _config(run).get("train") or {}
    batch, mini = train.get("batch_size"), train.get("mini_batch_size")
    return max(1, int(batch) // int(mini)) if batch and mini else 1


def _start(run: Path) -> Path | None:
    config = _config(run)
    folder = Path(str(config.get("model", {}).get("path"))).expanduser()
    if not folder.is_dir():
        return None
    # the head that training drew is not in the folder that it started from
    scalar = config.get("method") in ("bradley_terry", "regression")
    return None if scalar and not is_scalar_model(folder) else folder


@contextmanager
def _whole(folder: Path, scratch: Path) -> Iterator[Path]:
    """A folder that holds one whole model, or adapters with their base: of shards `scratch`, which is removed at the end.

    An evaluation that is stopped leaves it, for its answers are known by the folder's name and date.
    """
    from rm_gallery.core.train.merge import SHARDS, merge_checkpoint

    if not (folder / SHARDS).is_file():
        yield folder
        return
    yield scratch if scratch.is_dir() else merge_checkpoint(folder, scratch)
    shutil.rmtree(scratch)
