"""The files that engines load by path, the names the guides import, and the training YAMLs."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from rm_gallery.core.data import get_converter
from rm_gallery.core.errors import ConfigError, DataError, InvalidVerdict
from rm_gallery.core.train import TrainConfig, load_config
from rm_gallery.core.train.config import check_config
from rm_gallery.core.train.local.exact_objective import check_exact
from tests.conftest import ROOT

COOKBOOK = ROOT / "tutorials/cookbooks/training_reward_model"
RECIPES = [ROOT / "examples/train/pointwise", ROOT / "examples/train/pairwise"]
SCALAR = [ROOT / "examples/train/bradley_terry", ROOT / "examples/train/regression"]
FOLDERS = [*RECIPES, COOKBOOK / "generative/pointwise"]
FILES = [folder / name for folder in FOLDERS for name in ("dataset.py", "reward_fn.py", "template.py")]


def load(path: Path) -> ModuleType:
    """As verl loads a file: by path, under a name of its own."""
    spec = importlib.util.spec_from_file_location("custom_module", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_loads_by_path_and_as_a_module(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # without the repository's root, as in a job that runs elsewhere
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT])
    by_path = load(path)
    monkeypatch.undo()
    dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    imported = importlib.import_module(dotted)
    assert set(dir(by_path)) >= {name for name in dir(imported) if not name.startswith("_")}


def test_the_root_is_enough_to_import_them() -> None:
    code = "import examples.train.pointwise.reward_fn, examples.train.pairwise.reward_fn, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_recipes_folder_is_enough_to_import_its_template() -> None:
    code = "from template import PointwiseTrainTemplate; print(PointwiseTrainTemplate.parse('<score>3</score>').score)"
    for folder in (RECIPES[0], FOLDERS[2]):
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True)
        assert done.stdout == b"3\n"


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("examples.train.pairwise.dataset", "HelpfulnessPairwiseTrainDataset"),
        ("examples.train.pointwise.dataset", "HelpfulnessPointwiseTrainDataset PointwiseTrainDataset"),
        ("examples.train.pairwise.reward_fn", "compute_score extract_preference_from_response"),
        (
            "examples.train.pointwise.reward_fn",
            "compute_score pointwise_reward calculate_helpfulness_reward",
        ),
        ("examples.train.pairwise.template", "PairwiseComparisonTemplate extract_preference_from_response"),
        ("examples.train.pointwise.template", "PointwiseTrainTemplate MultiDimensionTrainTemplate"),
        ("tutorials.cookbooks.training_reward_model.base", "BaseTrainDataset"),
        ("rm_gallery.core.train", "BaseTrainDataset"),
        (
            "rm_gallery.gallery.rm.alignment.base",
            "BaseListWisePrincipleReward BaseHelpfulnessPairWiseReward BaseHelpfulnessPointWiseReward",
        ),
    ],
)
def test_the_names_of_the_guides(module: str, names: str) -> None:
    found = importlib.import_module(module)
    for name in names.split():
        assert getattr(found, name)


@pytest.mark.parametrize("path", [RECIPES[0], FOLDERS[2]], ids=["examples", "tutorials"])
def test_the_pointwise_reward_of_the_guides(path: Path) -> None:
    reward_fn: Any = load(path / "reward_fn.py")
    for reward in (reward_fn.pointwise_reward, reward_fn.calculate_helpfulness_reward):
        assert reward(3, 3) == 1.0
        assert reward(0, 4) == pytest.approx(0.1353353)
        assert reward(2, None) == 0.0
    with pytest.raises(DataError, match="helpfulness"):
        reward_fn.compute_score("t", "<score>3</score>", None)
    assert reward_fn.compute_score("t", "<score>2</score>", {"helpfulness": 3}, num_turns=1)["abs_error"] == 1


def test_the_pairwise_reward_of_the_guides() -> None:
    reward_fn: Any = load(RECIPES[1] / "reward_fn.py")
    assert reward_fn.extract_preference_from_response("<think>B</think><preference>A</preference>") == "A"
    with pytest.raises(InvalidVerdict):
        reward_fn.extract_preference_from_response("A")
    info = {"metadata": {"preferred": "A", "preference_strength": -1}}
    assert reward_fn.compute_score("t", "<preference>A</preference>", None, info)["score"] == 1.0
    with pytest.raises(DataError):
        reward_fn.compute_score("t", "<preference>A</preference>", None)


# -- the training YAMLs


@pytest.mark.parametrize("folder", RECIPES, ids=lambda folder: folder.name)
def test_the_recipes_yaml_holds_the_clusters_values(folder: Path) -> None:
    config = load_config(folder / "train.yaml")
    assert (config.task, config.method, config.engine) == (folder.name, "grpo", "local")
    assert (config.train.batch_size, config.train.mini_batch_size, config.train.learning_rate) == (
        96,
        24,
        1e-6,
    )
    assert (config.data.max_prompt_length, config.rollout.max_response_length) == (4096, 2048)
    assert (config.rollout.n, config.loss.kl_coef) == (4, 0.001)
    assert (config.train.eval_every, config.train.save_every) == (10, 20)
    assert config.data.train.as_posix() == f"examples/data/exports/helpsteer2_{folder.name}_train.parquet"
    exported = yaml.safe_load((folder / "data_config.yaml").read_text())["dataset"]
    assert config.data.train.parent == Path(exported["export"]["output_dir"])
    assert config.data.val is not None
    assert config.data.val.name == f"{exported['name']}_test.parquet"
    assert config.build_task().name == folder.name


@pytest.mark.parametrize("folder", RECIPES, ids=lambda folder: folder.name)
def test_the_laptops_lines_fit_the_local_engine(folder: Path) -> None:
    """A supervised start, and GRPO from where it ends."""
    lines = (folder / "train.yaml").read_text().splitlines()
    configs, outs = [], []
    for line in [line for line in lines if "--set model.path" in line]:
        words = shlex.split(line.removeprefix("#"))
        assert words[:3] == ["rmg", "train", f"examples/train/{folder.name}/train.yaml"]
        settings = [word for before, word in pairwise(words) if before == "--set"]
        configs.append(load_config(folder / "train.yaml", ["engine=local", *settings]))
        outs += [word for before, word in pairwise(words) if before == "--out"]
    start, config = configs
    assert (start.method, start.model.path) == ("sft", "models/smollm2-135m-instruct")
    assert (config.method, config.model.path) == ("grpo", f"{outs[0]}/actor_latest")
    assert (config.train.batch_size, config.mini_batch_size, config.rollout.n) == (4, 4, 8)
    assert (config.data.max_prompt_length, config.rollout.max_response_length) == (1024, 16)
    assert config.train.max_steps == 10


@pytest.mark.parametrize("kind", ["pointwise", "pairwise", "multi_dimension"])
def test_the_line_for_one_gpu_trains_adapters(kind: str) -> None:
    recipe = ROOT / "examples" / "train" / kind / "train.yaml"
    [line] = [line for line in recipe.read_text().splitlines() if "--set model.lora" in line]
    words = shlex.split(line.removeprefix("#"))
    assert words[:3] == ["rmg", "train", f"examples/train/{kind}/train.yaml"]
    config = load_config(recipe, [word for before, word in pairwise(words) if before == "--set"])
    assert (config.method, config.engine, config.model.gradient_checkpointing) == ("grpo", "local", True)
    assert config.model.lora is not None
    longest = config.data.max_prompt_length + config.rollout.n * config.rollout.max_response_length
    assert config.train.micro_batch_tokens is not None
    assert longest <= config.train.micro_batch_tokens, "or no pass would have room for the longest prompt"


@pytest.mark.parametrize("folder", SCALAR, ids=lambda folder: folder.name)
def test_the_recipes_of_scalar_models(folder: Path) -> None:
    config = load_config(folder / "train.yaml")
    assert (config.method, config.engine) == (folder.name, "local")
    exported = yaml.safe_load((folder / "data_config.yaml").read_text())["dataset"]
    assert config.data.train.parent == Path(exported["export"]["output_dir"])
    assert config.data.train.name == f"{exported['name']}_train.parquet"
    assert config.data.val is not None
    assert config.data.val.name == f"{exported['name']}_test.parquet"
    [line] = [line for line in (folder / "train.yaml").read_text().splitlines() if "--set model.path" in line]
    words = shlex.split(line.removeprefix("#"))
    assert words[:3] == ["rmg", "train", f"examples/train/{folder.name}/train.yaml"]
    small = load_config(
        folder / "train.yaml", [word for before, word in pairwise(words) if before == "--set"]
    )
    assert (small.model.path, small.train.batch_size) == ("models/all-minilm-l6-v2", 16)


def test_the_recipe_of_the_exact_objective() -> None:
    """It trains on the pointwise recipe's rows and in its batches; the laptop's line fits it."""
    recipe, other = ROOT / "examples/train/exact/train.yaml", load_config(RECIPES[0] / "train.yaml")
    config = load_config(recipe)
    assert (config.method, config.engine, config.reward.name) == ("exact", "local", "rps")
    assert (config.data, config.loss.kl_coef) == (other.data, other.loss.kl_coef)
    assert (config.train.batch_size, config.mini_batch_size, config.train.learning_rate) == (96, 24, 1e-6)
    check_exact(config, config.build_task())
    [line] = [line for line in recipe.read_text().splitlines() if "--set model.path=models/" in line]
    words = shlex.split(line.removeprefix("#"))
    assert words[:3] == ["rmg", "train", "examples/train/exact/train.yaml"]
    small = load_config(recipe, [word for before, word in pairwise(words) if before == "--set"])
    assert (small.model.path, small.train.batch_size) == ("models/smollm2-135m-instruct", 8)
    check_exact(small, small.build_task())


def test_regressions_attributes_are_the_datasets() -> None:
    attributes = load_config(SCALAR[1] / "train.yaml").regression.attributes
    assert list(attributes) == list(get_converter("helpsteer2_pointwise").label_names)


@pytest.mark.parametrize("gpus", [None, "2"])
def test_the_scalar_recipes_script_starts_what_it_says(tmp_path: Path, gpus: str | None) -> None:
    """With commands that print their arguments in place of `rmg` and `accelerate`."""
    for name in ("rmg", "accelerate"):
        command = tmp_path / "bin" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text(f'#!/bin/sh\necho {name} "$@"\n')
        command.chmod(0o755)
    environment = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "TIMESTAMP": "now", "MODEL_PATH": "models/m"}
    if gpus:
        environment["N_GPUS_PER_NODE"] = gpus
    script = [str(SCALAR[0] / "run_bradley_terry.sh"), "--dry-run"]
    refused = subprocess.run(
        script,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**environment, "TRAIN_FILE": "none.parquet"},
    )
    assert refused.returncode == 1
    assert "there is no file none.parquet: make it with" in refused.stderr
    file = tmp_path / "pairs.parquet"
    file.touch()
    files = {"TRAIN_FILE": str(file), "VAL_FILE": str(file)}
    done = subprocess.run(
        script, cwd=tmp_path, capture_output=True, text=True, env={**environment, **files}, check=True
    )
    head, _, tail = done.stdout.partition(" train ")
    assert head == ("accelerate launch --num_processes 2 -m rm_gallery" if gpus else "rmg")
    config, *options = shlex.split(tail)
    assert Path(config) == SCALAR[0] / "train.yaml"
    assert options[:2] == ["--out", "checkpoints/now"]
    assert options[-1] == "--dry-run"
    sets = [word for before, word in pairwise(options) if before == "--set"]
    assert sets == [f"data.train={file}", f"data.val={file}", "model.path=models/m"]


def test_overrides_change_values_and_are_checked() -> None:
    path = RECIPES[0] / "train.yaml"
    config = load_config(path, ["train.seed=7", "model.lora.rank=8", "data.val=null", "reward.name=linear"])
    assert (config.train.seed, config.data.val, config.reward.name) == (7, None, "linear")
    assert config.model.lora is not None
    assert config.model.lora.rank == 8
    for override, said in (
        ("train.seeds=7", r"train\.seeds is not a known key\. Did you mean 'seed'"),
        ("trian.seed=7", r"trian is not a known key\. Did you mean 'train'"),
        ("reward.kk=1", r"reward\.kk is not a known key\. Did you mean 'k'"),
        ("model.lora.ranks=1", r"model\.lora\.ranks is not a known key\. Did you mean 'rank'"),
        ("train.seed", "expected key=value"),
        ("train.seed.x=1", "seed is a single value, nothing can be set in it"),
        ("train.seed=[", "the value is not valid YAML"),
        ("train.batch_size=0", r"train\.batch_size is 0: .*greater than or equal to 1"),
        ("train.batch_size=100", r"batch_size \(100\) must be a multiple of train\.mini_batch_size \(24\)"),
        ("train.micro_batch_size=7", r"mini_batch_size \(24\) must be a multiple"),
        ("rollout.n=1", "GRPO compares the samples"),
        ("reward.k=.inf", r"reward\.k is inf: .*finite"),
        ("engine=slurm", "engine is 'slurm', expected 'local' or 'verl'"),
    ):
        with pytest.raises(ConfigError, match=said):
            load_config(path, [override])


def test_a_reward_of_the_other_task_is_refused() -> None:
    config = load_config(RECIPES[0] / "train.yaml", ["task=pairwise"])
    with pytest.raises(ConfigError, match="'exp_decay', which cannot score"):
        config.build_task()


def test_a_file_that_is_no_configuration(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    for text, said in (
        ("a: [", "not valid YAML"),
        ("- a", "expected keys such as task"),
        ("task: pointwise", "model is missing"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=said):
            load_config(path)
    with pytest.raises(ConfigError, match="there is no configuration file"):
        load_config(tmp_path / "absent.yaml")


def test_reasoning_models_are_not_asked_to_reason() -> None:
    base = {"model": {"path": "m"}, "data": {"train": "t.parquet"}, "prompt": {"think": True}}
    asked: TrainConfig = check_config(base)
    assert asked.build_task().think
    silent = check_config({**base, "model": {"path": "m", "reasoning_model": True}})
    assert not silent.build_task().think


def test_no_recipe_holds_a_key_or_a_machines_path() -> None:
    for folder in [*FOLDERS, *SCALAR]:
        for path in folder.iterdir():
            if path.is_file():
                assert not re.search(r"/root|/work/|API_KEY\s*[:=]\s*['\"]?\w", path.read_text()), path
