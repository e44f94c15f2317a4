"""`TrainConfig`: the training YAML, one schema for both engines and all methods."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rm_gallery.core.rewards import RewardConfig
from rm_gallery.core.tasks import Task, get_task
from rm_gallery.core.tasks.multi_dimension import Dimensions
from rm_gallery.core.yaml_config import apply_override, flat, read_yaml, validate


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class LoraSection(_Section):
    """Low-rank adapters (Hu et al. 2021) instead of full weights."""

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | list[str] = "all-linear"


class ModelSection(_Section):
    path: str
    """A Hugging Face folder or hub id."""
    reasoning_model: bool = False
    """The model thinks by itself: its chat template is rendered with `enable_thinking=True`, and the prompt
    does not ask for reasoning. Decides both, whatever `prompt.think` says."""
    lora: LoraSection | None = None
    dtype: Literal["float32", "bfloat16", "auto"] = "bfloat16"
    """Of the computation; `auto` is whichever of the two multiplies faster on this machine. The trained weights are kept in float32: tiny updates vanish in bfloat16."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] | None = None
    """How attention is computed where prompts are not shared; null leaves the choice to transformers."""
    gradient_checkpointing: bool = False
    shared_prefix: bool = True
    """Encode once what texts begin with alike: the samples of a prompt, the responses to a question. False is plain TRL, the reference."""
    trust_remote_code: bool = False


class PromptSection(_Section):
    think: bool = False
    """Ask in the prompt for `<think>…</think>` before the verdict."""
    instruction: str | None = None
    """Replaces the task's own instruction."""


class DataSection(_Section):
    train: Path
    val: Path | None = None
    max_prompt_length: int = Field(default=4096, ge=1)
    """In tokens. Longer prompts are left out and counted."""
    shuffle: Literal["rows", "prompts"] = "rows"
    """`prompts` keeps the rows of one prompt next to each other, so that a batch holds several responses to one
    question: what tells them apart is then not drowned by what tells questions apart."""
    limit: int | None = Field(default=None, ge=1)
    """Use at most so many rows of each file, drawn with the seed."""


class TrainSection(_Section):
    batch_size: int = Field(default=96, ge=1)
    """Prompts per step. GRPO draws `rollout.n` samples for each."""
    mini_batch_size: int | None = Field(default=24, ge=1)
    """Prompts per optimizer update; divides `batch_size`. Null: all of them at once."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Prompts per forward and backward pass: memory only, not the result. Null: the mini-batch."""
    micro_batch_tokens: int | None = Field(default=None, ge=1)
    """In place of it: as many prompts as never have more tokens than this, with their answers."""
    epochs: float = Field(default=1, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    learning_rate: float = Field(default=1.0e-6, gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    scheduler: Literal["constant", "linear", "cosine"] = "constant"
    weight_decay: float = Field(default=0.01, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    eval_every: int | None = Field(default=10, ge=1)
    """Steps between evaluations on `data.val`. The start and the last step are evaluated in any case."""
    save_every: int | None = Field(default=20, ge=1)
    """Steps between checkpoints. Null: only the last."""
    keep_checkpoints: int | None = Field(default=3, ge=1)
    seed: int = Field(default=0, ge=0)


class RolloutSection(_Section):
    n: int = Field(default=4, ge=1)
    max_response_length: int = Field(default=2048, ge=1)
    """In tokens."""
    temperature: float = Field(default=1.0, gt=0)
    eval_batch_size: int = Field(default=16, ge=1)
    """Prompts judged at once in held-out evaluation (memory only)."""


class LossSection(_Section):
    """The one GRPO loss of both engines (docs: "the loss").

    Token-mean over the mini-batch of `-min(r·A, clip(r, 1±clip)·A) + kl_coef·KL`.
    """

    kl_coef: float = Field(default=0.001, ge=0)
    kl_estimator: Literal["low_var_kl"] = "low_var_kl"
    """k3 of Schulman (2020): `exp(d) - d - 1` with `d = log p_ref - log p`."""
    clip: float = Field(default=0.2, gt=0)
    advantage: Literal["group_std", "group_mean"] = "group_std"
    """Reward minus the group's mean, divided by the group's standard deviation or not."""


class BradleyTerrySection(_Section):
    """The loss of method `bradley_terry`: the log-likelihood of each judgment, given the gap of the two scores.

    Bradley & Terry (1952): P(chosen) = sigmoid(score of chosen - score of rejected).
    """

    label: str = "helpfulness"
    """Of a file of rated responses: the label by which two responses to one prompt are compared."""
    margin: Literal["none", "strength"] = "none"
    """`strength`: the gap must exceed margin_scale x the strength of the preference (Touvron et al. 2023, Llama 2)."""
    margin_scale: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    ties: Literal["drop", "rao_kupper", "davidson"] = "drop"
    """`drop` leaves tied pairs out and counts them; the others give a tie a probability of its own."""
    tie_parameter: float | None = Field(default=None, allow_inf_nan=False)
    """Rao & Kupper's theta (above 1), Davidson's nu (above 0). Null: learned, starting at the share of ties."""
    center_coef: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Weight of mean (score of chosen + score of rejected)^2, which keeps scores around 0 (Eisenstein et al. 2023)."""

    @model_validator(mode="after")
    def _parameter_fits(self) -> BradleyTerrySection:
        least = {"rao_kupper": 1.0, "davidson": 0.0}.get(self.ties)
        if self.tie_parameter is None:
            return self
        if least is None:
            raise ValueError("bradley_terry.tie_parameter has no effect with ties: drop")
        if self.tie_parameter <= least:
            raise ValueError(f"bradley_terry.tie_parameter of {self.ties} must be above {least:g}")
        return self


class RegressionSection(_Section):
    """Method `regression`: one head, a number for each attribute, by mean squared error over the labels that are there.

    As HelpSteer2's authors train it (Wang et al. 2024, arXiv 2406.08673).
    """

    attributes: dict[str, float] = {"helpfulness": 1.0}
    """Label → its weight in the one number by which responses are ranked. Weights do not enter the loss."""

    @field_validator("attributes")
    @classmethod
    def _some_weight(cls, value: dict[str, float]) -> dict[str, float]:
        if not value or not all(map(math.isfinite, value.values())) or not any(value.values()):
            raise ValueError("name at least one attribute with a weight other than 0")
        return value


class SftSection(_Section):
    """Method `sft`."""

    reasoning: str = "reasoning"
    """Of a judge that reasons: the column with the text that stands before the verdict."""


class TaskConfig(_Section):
    """What a judge is asked, and what its answer earns."""

    task: str = "pointwise"
    dimensions: Dimensions | None = None
    """Of the task `multi_dimension`: what is rated, with weight, scale and description."""
    prompt: PromptSection = PromptSection()
    reward: RewardConfig = RewardConfig()

    @property
    def think(self) -> bool:
        """Whether the prompt asks for reasoning."""
        return self.prompt.think

    def build_task(self) -> Task[Any]:
        """The task with its reward and prompt settings. Raises `ConfigError`."""
        return get_task(
            self.task,
            self.reward,
            think=self.think,
            instruction=self.prompt.instruction,
            **({} if self.dimensions is None else {"dimensions": self.dimensions}),
        )


class TrainConfig(TaskConfig):
    """See `docs/` for every key with its meaning; unknown keys are refused with the nearest known one."""

    method: Literal["grpo", "exact", "sft", "bradley_terry", "regression"] = "grpo"
    engine: Literal["local", "verl"] = "local"
    model: ModelSection
    data: DataSection
    train: TrainSection = TrainSection()
    rollout: RolloutSection = RolloutSection()
    loss: LossSection = LossSection()
    sft: SftSection = SftSection()
    bradley_terry: BradleyTerrySection = BradleyTerrySection()
    regression: RegressionSection = RegressionSection()
    track: list[Literal["console", "tensorboard", "wandb", "trackio", "mlflow", "swanlab"]] = ["console"]
    output_dir: Path = Path("checkpoints")
    verl: dict[str, Any] = {}
    """Passed through to verl under its own names, dotted; they go before what is derived from the rest."""

    @field_validator("verl", mode="before")
    @classmethod
    def _dotted(cls, value: Any) -> Any:
        return flat(value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _sizes_fit(self) -> TrainConfig:
        train = self.train
        if train.batch_size % self.mini_batch_size:
            raise ValueError(
                f"train.batch_size ({train.batch_size}) must be a multiple of train.mini_batch_size "
                f"({self.mini_batch_size})"
            )
        if self.mini_batch_size % self.micro_batch_size:
            raise ValueError(
                f"train.mini_batch_size ({self.mini_batch_size}) must be a multiple of train.micro_batch_size "
                f"({self.micro_batch_size})"
            )
        if train.micro_batch_size and train.micro_batch_tokens:
            raise ValueError(
                f"train.micro_batch_size ({train.micro_batch_size}) and train.micro_batch_tokens "
                f"({train.micro_batch_tokens}) both say what a pass takes: leave one of them out"
            )
        if self.method == "grpo" and self.rollout.n < 2:
            raise ValueError(
                "rollout.n is 1, but GRPO compares the samples of one prompt: use at least 2, better 4 or more"
            )
        if self.method == "grpo" and self.reward.is_rule:
            raise ValueError(
                f"reward.name {self.reward.name} scores a distribution over the verdicts, and grpo pays one written "
                "answer at a time: use method exact, or a reward of single verdicts"
            )
        return self

    @property
    def mini_batch_size(self) -> int:
        """Prompts per optimizer update, resolved."""
        return min(self.train.mini_batch_size or self.train.batch_size, self.train.batch_size)

    @property
    def micro_batch_size(self) -> int:
        """Prompts per forward and backward pass, resolved."""
        return min(self.train.micro_batch_size or self.mini_batch_size, self.mini_batch_size)

    @property
    def think(self) -> bool:
        """Whether the prompt asks for reasoning: not of a model that reasons by itself."""
        return super().think and not self.model.reasoning_model


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a training YAML, apply `key.sub=value` overrides, and check it.

    Raises:
        ConfigError: the file is missing or not YAML, or a key or value is refused; names the key.
    """
    values = read_yaml(path, "keys such as task, model and data")
    for override in overrides:
        apply_override(values, override, example="train.seed=1", dotted="verl")
    return check_config(values, str(path))


def check_config(values: dict[str, Any], where: str = "the training configuration") -> TrainConfig:
    """Validate a configuration that is already a dict; the errors of `load_config`."""
    return validate(TrainConfig, values, where)


def load_task(name: str | Path) -> Task[Any]:
    """A task by its name, as `module.path:Class`, or by a YAML with `task`, `dimensions`, `prompt` or `reward`.

    A training YAML will do: its other keys are left alone.

    Raises:
        ConfigError: as of `get_task` and `load_config`.
    """
    if Path(name).suffix not in (".yaml", ".yml"):
        return get_task(str(name))
    values = read_yaml(name, "keys such as task and dimensions")
    others = TrainConfig.model_fields.keys() - TaskConfig.model_fields.keys()
    config = validate(TaskConfig, {k: v for k, v in values.items() if k not in others}, str(name))
    model = values.get("model")
    if isinstance(model, dict) and model.get("reasoning_model") is True:
        config = config.model_copy(update={"prompt": config.prompt.model_copy(update={"think": False})})
    return config.build_task()
