"""What the tests with real verl share: its environment, a tiny model that vLLM takes, real rows."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

LETTERS = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    share = sum(character.isalpha() for character in solution_str) / 16
    return {"score": share, "parsed": 1, "accuracy": 0, "acc": 0}
"""
"""At most 1: all of the 16 tokens are letters. A random model earns a fifth of it."""


def rmg(*words: str) -> list[str]:
    return [sys.executable, "-m", "rm_gallery", *words]


@pytest.fixture(scope="session")
def verl_cpu() -> None:
    """Skip where verl, Ray and vLLM are not installed."""
    missing = [name for name in ("verl", "ray", "vllm") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: make verl-cpu sets up an environment that has them")


@pytest.fixture(scope="session")
def tiny_verl_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny import build_model

    return build_model(tmp_path_factory.mktemp("models") / "tiny", heads=2, head_size=32)


@pytest.fixture(scope="session")
def helpsteer2(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recipes' Parquet files, made by the recipes' own configuration."""
    out = tmp_path_factory.mktemp("helpsteer2")
    for kind, source in (("pointwise", ""), ("pairwise", "preference/preference.jsonl.gz")):
        config = ROOT / "examples" / "train" / kind / "data_config.yaml"
        settings = [f"configs.path={shared_data / 'helpsteer2' / source}", f"export.output_dir={out}"]
        words = [word for setting in settings for word in ("--set", setting)]
        subprocess.run(
            rmg("data", "convert", "--config", str(config), *words), check=True, capture_output=True
        )
    return out


@pytest.fixture(scope="session")
def plan_for(helpsteer2: Path, tiny_verl_model: Path, tmp_path_factory: pytest.TempPathFactory):
    """(kind, settings) → that recipe as it would be started on a CPU, with its card written."""
    from rm_gallery.core.train import load_config
    from rm_gallery.core.train.verl.launch import plan_verl, write_plan

    def make(kind: str, settings: list[str]):
        config = load_config(
            ROOT / "examples" / "train" / kind / "train.yaml",
            [
                "engine=verl",
                f"model.path={tiny_verl_model}",
                f"data.train={helpsteer2}/helpsteer2_{kind}_train.parquet",
                f"data.val={helpsteer2}/helpsteer2_{kind}_test.parquet",
                "data.max_prompt_length=1500",
                "data.limit=60",
                "rollout.max_response_length=16",
                "train.batch_size=4",
                "train.mini_batch_size=2",
                "train.max_steps=3",
                "verl.trainer.device=cpu",
                *settings,
            ],
        )
        made = plan_verl(config, tmp_path_factory.mktemp("runs") / kind)
        write_plan(made)
        return made

    return make
