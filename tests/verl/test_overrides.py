"""From our YAML to verl's keys: what is derived, what goes before it, what is refused. Needs no verl."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.train import TrainConfig
from rm_gallery.core.train.config import check_config, load_config
from rm_gallery.core.train.run_folder import RunFolder
from rm_gallery.core.train.verl import cpu
from rm_gallery.core.train.verl.overrides import Machine, build_overrides, to_words
from rm_gallery.core.train.verl.sizing import Layout, ModelSize, layout, model_size
from rm_gallery.core.train.verl.submit import pack, packed
from tests.conftest import ROOT

BASE = {"engine": "verl", "model": {"path": "Qwen/Qwen2.5-7B-Instruct"}, "data": {"train": "a.parquet"}}


def config(**sections) -> TrainConfig:
    merged = {**BASE}
    for name, values in sections.items():
        merged[name] = {**merged.get(name, {}), **values} if isinstance(values, dict) else values
    return check_config(merged)


def overrides(made: TrainConfig, machine: Machine | None = None, size: ModelSize | None = None):
    return build_overrides(made, Path("/runs/one"), machine or Machine(), size or ModelSize(7.6e9))


def test_each_key_is_given_once():
    given = {"data.seed": 7, "+data.card": "/elsewhere", "+data.mine": 1, "actor_rollout_ref.rollout.n": 6}
    keys = [key.lstrip("+") for key in overrides(config(verl=given))]
    assert len(keys) == len(set(keys))


def test_the_verl_section_goes_before_what_is_derived():
    made = overrides(config(verl={"data": {"seed": 7}, "actor_rollout_ref.rollout.n": 6}))
    assert (made["data.seed"], made["actor_rollout_ref.rollout.n"]) == (7, 6)


def test_a_set_on_the_command_line_goes_before_the_files_dotted_key(tmp_path):
    file = tmp_path / "train.yaml"
    file.write_text(
        yaml.safe_dump({**BASE, "verl": {"trainer.nnodes": 1, "trainer": {"n_gpus_per_node": 8}}})
    )
    loaded = load_config(
        file, ["verl.trainer.nnodes=4", "verl.trainer.n_gpus_per_node=2", "verl.+data.mine=x"]
    )
    assert loaded.verl == {"trainer.nnodes": 4, "trainer.n_gpus_per_node": 2, "+data.mine": "x"}


@pytest.mark.parametrize(
    ("dtype", "device", "plain"),
    [("float32", "cuda", True), ("auto", "cpu", True), ("bfloat16", "cuda", False), ("auto", "cuda", False)],
)
def test_float32_is_float32_in_the_update_too(dtype, device, plain):
    """verl's FSDP engine reads no `dtype`: without `mixed_precision` it computes in bfloat16."""
    made = overrides(config(model={"dtype": dtype}), Machine(device=device, gpus_per_node=1))
    for part in ("actor", "ref"):
        found = made.get(f"+actor_rollout_ref.{part}.fsdp_config.mixed_precision")
        assert found == (
            dict.fromkeys(("param_dtype", "reduce_dtype", "buffer_dtype"), "fp32") if plain else None
        )
    assert (made["actor_rollout_ref.rollout.dtype"] == "float32") == plain


def test_the_home_folder_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    made = overrides(config(data={"train": "~/a.parquet", "val": "~/b.parquet"}))
    assert made["data.train_files"] == str(tmp_path / "a.parquet")
    assert made["data.val_files"] == str(tmp_path / "b.parquet")


def test_a_submitted_run_is_gone_on_with(tmp_path, monkeypatch):
    """The job writes absolute paths and its own copies of code into the run's folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rewards.py").write_text("def squared(predicted, true):\n    return 1.0\n")
    (tmp_path / "job").mkdir()
    made = config(reward={"name": "rewards.py:squared"})
    pack(made, tmp_path / "job")
    run = tmp_path / "run"
    run.mkdir()
    monkeypatch.chdir(tmp_path / "job")
    job = load_config(tmp_path / "job" / "config.yaml")
    (run / "config.yaml").write_text(yaml.safe_dump(job.model_dump(mode="json")))
    monkeypatch.chdir(tmp_path)
    assert RunFolder.find(made, run, written=packed(made)).path == run
    with pytest.raises(ConfigError, match=r"another train\.seed"):
        RunFolder.find(
            made, run, written=packed(config(reward={"name": "rewards.py:squared"}, train={"seed": 9}))
        )


def test_the_loss_is_the_local_engines():
    made = overrides(config(loss={"clip": 0.1, "kl_coef": 0.05, "advantage": "group_mean"}))
    actor = "actor_rollout_ref.actor"
    clips = [made[f"{actor}.{name}"] for name in ("clip_ratio", "clip_ratio_low", "clip_ratio_high")]
    assert clips == [0.1] * 3, "verl reads the low and the high one only"
    assert made[f"{actor}.clip_ratio_c"] > 1e5, "the second clip is off"
    assert made[f"{actor}.loss_agg_mode"] == "token-mean"
    assert (made[f"{actor}.kl_loss_coef"], made[f"{actor}.kl_loss_type"]) == (0.05, "low_var_kl")
    assert made["algorithm.norm_adv_by_std_in_grpo"] is False
    assert made["algorithm.use_kl_in_reward"] is False


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"method": "sft"}, "use grpo"),
        ({"train": {"scheduler": "linear"}}, "constant or cosine"),
        ({"model": {"lora": {"dropout": 0.1}}}, "lora.dropout"),
        ({"data": {"val": "./a.parquet"}}, "same file"),
    ],
)
def test_what_verl_cannot_honour_is_refused(sections, said):
    with pytest.raises(ConfigError, match=said):
        overrides(config(**sections))


@pytest.mark.parametrize(
    ("parameters", "gpus", "nodes", "expected"),
    [
        (0.135e9, 1, 1, Layout(1, False)),
        (7.6e9, 8, 1, Layout(1, False)),  # 14 GiB of weights leave vLLM's 40 GiB room enough
        (7.6e9, 1, 1, Layout(1, True)),  # 113 GiB of training state on one GPU
        (14.8e9, 8, 1, Layout(2, False)),
        (32.8e9, 8, 1, Layout(4, True)),
        (32.8e9, 8, 8, Layout(4, False)),
        (72.7e9, 8, 8, Layout(8, False)),
        (None, 8, 1, Layout(1, False)),
    ],
)
def test_sizes_follow_from_the_model_and_the_gpus(parameters, gpus, nodes, expected):
    assert layout(ModelSize(parameters), gpus, nodes) == expected


def test_tensor_parallelism_divides_heads_and_gpus():
    assert layout(ModelSize(72e9, heads=4), 8, 1).tensor_parallel == 4
    assert layout(ModelSize(72e9), 6, 1).tensor_parallel == 2


def test_the_size_of_a_hub_model_is_read_from_its_name():
    assert model_size("Qwen/Qwen2.5-7B-Instruct").parameters == 7e9
    assert model_size("HuggingFaceTB/SmolLM2-135M-Instruct").parameters == 135e6
    assert model_size("org/judge").parameters is None


def test_the_size_of_a_folder_is_that_of_its_weights(tiny_model):
    from transformers import AutoModelForCausalLM

    size = model_size(str(tiny_model))
    count = AutoModelForCausalLM.from_pretrained(tiny_model).num_parameters()
    assert size.parameters == pytest.approx(count, rel=0.1)
    assert (size.context, size.heads) == (2048, 2)


def test_words_are_read_back_by_hydra():
    pytest.importorskip("hydra")
    from hydra.core.override_parser.overrides_parser import OverridesParser

    values = [
        "a b",
        "it's",
        "1e-6",
        "null",
        "x=y,z",
        "[1]",
        "",
        "C:\\x",
        1,
        1e-6,
        True,
        None,
        [1, "a b"],
        "é",
        "${x}",
    ]
    parsed = OverridesParser.create().parse_overrides(to_words({f"k{i}": v for i, v in enumerate(values)}))
    assert [override.value() for override in parsed][:-1] == values[:-1]


def test_every_key_is_known_to_verl():
    """With flash-attn and without, on GPUs and on a CPU."""
    from importlib.util import find_spec

    if find_spec("verl") is None or find_spec("hydra") is None:
        pytest.skip("needs verl and hydra: make verl-cpu")
    from rm_gallery.core.train.verl.check import compose, problems

    for machine in (Machine(), Machine(flash_attention=False), Machine("cpu", 1, flash_attention=False)):
        words = to_words(overrides(config(), machine))
        assert problems(compose(words), words) == []


def test_a_job_carries_ones_own_code_and_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    here = ROOT / "examples" / "train" / "pointwise"
    made = config(
        verl={
            "data.custom_cls.path": str(here / "dataset.py"),
            "reward.custom_reward_function.path": "pkg://rm_gallery.core.train.verl.reward",
        }
    )
    environment = pack(made, tmp_path)
    shipped = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert shipped["verl"]["data.custom_cls.path"] == "code/pointwise/dataset.py"
    assert (tmp_path / "code" / "pointwise" / "template.py").is_file(), "what it may import lies beside it"
    assert shipped["verl"]["reward.custom_reward_function.path"].startswith("pkg://")
    assert shipped["model"]["path"] == "Qwen/Qwen2.5-7B-Instruct", "a hub id is no path"
    assert Path(shipped["data"]["train"]).is_absolute(), "the job runs in another folder"
    assert "pip" not in environment, "torch is the cluster's own"
    assert "secret" not in repr(environment)
    check_config(shipped)


def test_on_a_cpu_verls_processes_have_all_cores_unless_told_otherwise(monkeypatch):
    """Ray would give each of them one thread."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert cpu.environment()["OMP_NUM_THREADS"] == str(os.cpu_count())
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert cpu.environment()["OMP_NUM_THREADS"] == "1"
    assert cpu.ENVIRONMENT.items() <= cpu.environment().items()
