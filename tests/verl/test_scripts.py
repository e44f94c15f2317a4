"""The recipes' scripts and runtime environments, with a stand-in for `rmg` that writes down what it is given."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from rm_gallery.core.data import load_config as load_data_config
from rm_gallery.core.train import load_config
from tests.conftest import ROOT

BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(BASH is None, reason="needs bash")
TUTORIAL = "tutorials/cookbooks/training_reward_model/generative/pointwise"


@dataclass(frozen=True)
class Recipe:
    """A script in a copy of the repository, so that the real one's data does not matter."""

    root: Path
    folder: str
    name: str
    dataset: str
    data: str

    @property
    def here(self) -> Path:
        return self.root / self.folder

    @property
    def script(self) -> Path:
        return self.here / self.name

    @property
    def kind(self) -> str:
        return self.name.removeprefix("run_").removesuffix(".sh")

    def default(self, split: str) -> Path:
        return self.root / self.data / f"helpsteer2_{self.kind}_{split}.parquet"


RECIPES = [
    (
        "examples/train/pointwise",
        "run_pointwise.sh",
        "HelpfulnessPointwiseTrainDataset",
        "examples/data/exports",
    ),
    (
        "examples/train/pairwise",
        "run_pairwise.sh",
        "HelpfulnessPairwiseTrainDataset",
        "examples/data/exports",
    ),
    (TUTORIAL, "run_pointwise.sh", "HelpfulnessPointwiseTrainDataset", f"{TUTORIAL}/data"),
]


@pytest.fixture(params=RECIPES, ids=lambda recipe: recipe[0].replace("/", "."))
def recipe(request: pytest.FixtureRequest, tmp_path: Path) -> Recipe:
    """Its files in a folder whose name has a space, with the exported data where the script looks for it."""
    root = tmp_path / "a checkout"
    for folder in {request.param[0], "examples/train/pointwise"}:
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__", "data"))
    found = Recipe(root, *request.param)
    for split in ("train", "test"):
        found.default(split).parent.mkdir(parents=True, exist_ok=True)
        found.default(split).touch()
    return found


@dataclass(frozen=True)
class Ran:
    """What the script did: its status and messages, and the words that `rmg` got (None: it was not called)."""

    status: int
    errors: str
    words: list[str] | None

    def settings(self) -> dict[str, str]:
        assert self.words is not None
        given = [after for before, after in pairwise(self.words) if before == "--set"]
        return dict(setting.split("=", 1) for setting in given)

    def option(self, name: str) -> str | None:
        assert self.words is not None
        return next((after for before, after in pairwise(self.words) if before == name), None)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A current folder that has nothing to do with the checkout."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def run(recipe: Recipe, folder: Path, *arguments: str, rmg: bool = True, **variables: str) -> Ran:
    """Run the script in `folder` with nothing else in the environment than a PATH, `variables` and perhaps `rmg`."""
    tools = folder.parent / "tools"
    tools.mkdir(exist_ok=True)
    record = folder.parent / "words"
    record.unlink(missing_ok=True)
    for tool in ("bash", "date", "dirname", "env"):
        if not (tools / tool).exists():
            (tools / tool).symlink_to(str(shutil.which(tool)))
    if rmg:
        fake = tools / "rmg"
        fake.write_text(f"#!{BASH}\nprintf '%s\\0' \"$@\" >'{record}'\n")
        fake.chmod(0o755)
    done = subprocess.run(
        [str(recipe.script), *arguments],
        cwd=folder,
        env={"PATH": str(tools), **variables},
        capture_output=True,
        text=True,
        timeout=30,
    )
    words = record.read_text().split("\0")[:-1] if record.is_file() else None
    return Ran(done.returncode, done.stderr, words)


def test_the_syntax_is_right(recipe: Recipe) -> None:
    subprocess.run([str(BASH), "-n", str(recipe.script)], check=True)


def test_a_script_can_be_executed(recipe: Recipe) -> None:
    assert os.access(ROOT / recipe.folder / recipe.name, os.X_OK)


def test_it_trains_with_the_files_of_its_folder_wherever_it_is_called(
    recipe: Recipe, elsewhere: Path
) -> None:
    ran = run(recipe, elsewhere)
    assert (ran.status, ran.errors) == (0, "")
    assert ran.words is not None
    assert ran.words[0] == "train"
    assert ran.option("--engine") == "verl"
    assert ran.option("--address") is None
    assert ran.settings() == {
        "data.train": str(recipe.default("train")),
        "data.val": str(recipe.default("test")),
        "verl.data.custom_cls.path": str(recipe.here / "dataset.py"),
        "verl.data.custom_cls.name": recipe.dataset,
        "verl.reward.custom_reward_function.path": str(recipe.here / "reward_fn.py"),
        "verl.reward.custom_reward_function.name": "compute_score",
    }


def test_the_configuration_and_the_settings_are_legal(recipe: Recipe, elsewhere: Path) -> None:
    ran = run(recipe, elsewhere, MODEL_PATH="some/model", N_NODES="8", N_GPUS_PER_NODE="4")
    assert ran.words is not None
    settings = [f"{key}={value}" for key, value in ran.settings().items()]
    config = load_config(ran.words[1], [*settings, "engine=verl"])
    assert config.task == recipe.kind
    assert config.data.train == recipe.default("train")
    assert config.model.path == "some/model"
    assert (config.verl["trainer.nnodes"], config.verl["trainer.n_gpus_per_node"]) == (8, 4)
    assert config.verl["data.custom_cls.name"] == recipe.dataset


def test_the_classes_and_functions_it_names_are_in_the_files(recipe: Recipe) -> None:
    assert f"class {recipe.dataset}(" in (recipe.here / "dataset.py").read_text()
    assert "\ncompute_score = " in (recipe.here / "reward_fn.py").read_text()


def test_the_run_goes_to_a_folder_named_by_the_time(recipe: Recipe, elsewhere: Path) -> None:
    out = run(recipe, elsewhere).option("--out")
    assert out is not None
    assert re.fullmatch(r"checkpoints/(0[1-9]|1[0-2])[0-3]\dT[0-2]\d[0-5]\d", out)
    assert run(recipe, elsewhere, TIMESTAMP="1120T0912").option("--out") == "checkpoints/1120T0912"


def test_the_environment_is_honoured(recipe: Recipe, elsewhere: Path) -> None:
    (elsewhere / "my train.parquet").touch()
    (elsewhere / "val.parquet").touch()
    ran = run(
        recipe,
        elsewhere,
        TRAIN_FILE="my train.parquet",
        VAL_FILE=str(elsewhere / "val.parquet"),
        MODEL_PATH="Qwen/Qwen3-8B",
        N_GPUS_PER_NODE="4",
        N_NODES="2",
        ADDRESS="http://127.0.0.1:8265",
    )
    assert ran.status == 0
    settings = ran.settings()
    assert settings["data.train"] == "my train.parquet"
    assert settings["data.val"] == str(elsewhere / "val.parquet")
    assert settings["model.path"] == "Qwen/Qwen3-8B"
    assert settings["verl.trainer.n_gpus_per_node"] == "4"
    assert settings["verl.trainer.nnodes"] == "2"
    assert ran.option("--address") == "http://127.0.0.1:8265"


def test_further_arguments_come_last_so_that_they_win(recipe: Recipe, elsewhere: Path) -> None:
    extra = [
        "--dry-run",
        "--set",
        "train.max_steps=10",
        "--set",
        "track=[console, wandb]",
        "--out",
        "runs/mine",
    ]
    words = run(recipe, elsewhere, *extra).words
    assert words is not None
    assert words[-len(extra) :] == extra


def test_a_missing_file_is_one_sentence_with_the_command_that_makes_it(
    recipe: Recipe, elsewhere: Path
) -> None:
    recipe.default("train").unlink()
    ran = run(recipe, elsewhere)
    assert (ran.status, ran.words) == (1, None)
    assert ran.errors.count("\n") == 1
    assert f"there is no file {recipe.default('train')}: make it with" in ran.errors
    assert "rmg data convert --config" in ran.errors


def test_the_command_of_that_sentence_writes_the_files_that_are_missing(
    recipe: Recipe, elsewhere: Path
) -> None:
    recipe.default("train").unlink()
    message = run(recipe, elsewhere).errors
    # spaces end a word for a shell; that of the tutorial names absolute paths, the others change the folder
    flat = message.replace(str(recipe.root), "ROOT")
    found = re.search(r"--config (\S+?)(?: --set (\S+?))?[,)]", flat)
    assert found is not None, message
    if recipe.folder != TUTORIAL:
        assert "(cd ROOT && rmg" in flat
    overrides = [found[2].replace("ROOT", str(recipe.root))] if found[2] else []
    config = load_data_config(recipe.root / found[1].removeprefix("ROOT/"), overrides)
    written = recipe.root / config.export.output_dir / f"{config.name}_train.parquet"
    assert written.resolve() == recipe.default("train").resolve()


def test_with_an_address_a_file_may_be_the_clusters(recipe: Recipe, elsewhere: Path) -> None:
    ran = run(recipe, elsewhere, TRAIN_FILE="/shared/train.parquet", ADDRESS="http://10.0.0.1:8265")
    assert ran.status == 0
    assert ran.errors.startswith("note: /shared/train.parquet is not on this machine")
    assert ran.settings()["data.train"] == "/shared/train.parquet"


def test_a_model_folder_that_is_not_there_is_one_sentence(recipe: Recipe, elsewhere: Path) -> None:
    ran = run(recipe, elsewhere, MODEL_PATH="./models/none")
    assert (ran.status, ran.words) == (1, None)
    assert ran.errors == "error: there is no folder ./models/none, which MODEL_PATH names\n"


def test_without_rmg_it_says_what_to_install(recipe: Recipe, elsewhere: Path) -> None:
    ran = run(recipe, elsewhere, rmg=False)
    assert ran.status == 1
    assert ran.errors.startswith("error: there is no command rmg")


def test_the_status_of_rmg_is_the_scripts(recipe: Recipe, elsewhere: Path) -> None:
    run(recipe, elsewhere)
    (elsewhere.parent / "tools/rmg").write_text(f"#!{BASH}\nexit 3\n")
    assert run(recipe, elsewhere, rmg=False).status == 3


def test_the_scripts_hold_no_hyper_parameter(recipe: Recipe) -> None:
    code = [line for line in recipe.script.read_text().splitlines() if not line.startswith("#")]
    keys = {match[1] for line in code for match in re.finditer(r'--set "?([\w.]+)=', line)}
    assert keys == {
        *("data.train", "data.val", "model.path", "verl.trainer.n_gpus_per_node", "verl.trainer.nnodes"),
        *("verl.data.custom_cls.path", "verl.data.custom_cls.name"),
        *("verl.reward.custom_reward_function.path", "verl.reward.custom_reward_function.name"),
    } | ({"export.output_dir"} if recipe.folder == TUTORIAL else set())


# -- runtime_env.yaml


def runtime_env(folder: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / folder / "runtime_env.yaml").read_text()))


FOLDERS = [recipe[0] for recipe in RECIPES]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_runtime_environment_is_what_ray_reads(folder: str) -> None:
    env = runtime_env(folder)
    assert set(env) <= {"working_dir", "py_modules", "excludes", "env_vars"}  # no pip, no conda
    assert all(isinstance(value, str) for value in env["env_vars"].values())  # Ray takes strings only
    # where its head comment has it submitted from
    start = ROOT / folder if folder == TUTORIAL else ROOT
    shipped = [start / env["working_dir"], *(start / module for module in env.get("py_modules", []))]
    packages = [
        path for path in shipped if (path / "rm_gallery/__init__.py").is_file() or path.name == "rm_gallery"
    ]
    assert packages
    assert all(path.is_dir() for path in shipped)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_runtime_environment_holds_no_secret(folder: str) -> None:
    names = " ".join(runtime_env(folder)["env_vars"])
    assert not re.search(r"KEY|TOKEN|SECRET|PASSWORD|BASE_URL", names)


@pytest.mark.parametrize("folder", FOLDERS[:2])
def test_a_job_that_runs_rmg_train_sets_no_variable_twice(folder: str) -> None:
    # Ray refuses a job whose driver names a variable of the job's own environment again
    theirs = {"HYDRA_FULL_ERROR", "TENSORBOARD_DIR", "VERL_FILE_LOGGER_PATH", "VERL_FULL_DETERMINISM"}
    assert not theirs & set(runtime_env(folder)["env_vars"])
