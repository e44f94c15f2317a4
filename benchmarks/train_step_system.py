"""One system of benchmarks/train_step.py in a process of its own: takes a step for each line on its standard input.

The argument is a JSON file (`spec` below). Each answer is one line of JSON on standard output; what libraries print
goes to standard error. Closing standard input ends it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

OVER = 77
"""Exit status where the memory limit was reached."""
SIDE = 4096
"""Of the square matrices whose product is the machine's peak."""
Say = Callable[[dict[str, Any]], None]


def watch_memory(limit_gib: float) -> None:
    """End this process as soon as its peak is above the limit."""
    unit = 1 if sys.platform == "darwin" else 1024

    def watch() -> None:
        while resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit < limit_gib * 2**30:
            time.sleep(0.05)
        os._exit(OVER)

    threading.Thread(target=watch, daemon=True).start()


def product(spec: dict[str, Any], say: Say) -> None:
    """The machine's peak: a product of square matrices in the dtype of the computation."""
    from machine import product_rate

    side = spec.get("side", SIDE)
    say({"ready": True})
    for _ in sys.stdin:
        rate = product_rate(side, spec["dtype"])
        say({"seconds": 2 * side**3 / rate, "operations_per_second": rate})


def train(spec: dict[str, Any], say: Say) -> None:
    import torch
    import transformers

    from rm_gallery.core.models.weights import quiet_transformers
    from rm_gallery.core.train.config import check_config
    from rm_gallery.core.train.local import engine
    from rm_gallery.core.train.local.exact import ExactJob
    from rm_gallery.core.train.local.phases import settle
    from rm_gallery.core.train.local.verdicts import VerdictJob
    from rm_gallery.core.train.run_folder import RunFolder

    class Stepper(transformers.TrainerCallback):
        """Waits for a line before each step, and says what it took."""

        began = 0.0

        def wait(self) -> bool:
            go = bool(sys.stdin.readline())
            self.began = time.perf_counter()
            return go

        def on_train_begin(self, args, state, control, **_):
            control.should_training_stop = not self.wait()

        def on_step_end(self, args, state, control, **_):
            settle()
            seconds = time.perf_counter() - self.began
            phases = dict(trainer.seconds)
            trainer.seconds.clear()
            phases["update"] = max(0.0, seconds - sum(phases.values()))
            lengths = getattr(trainer, "_metrics", {}).get("train", {}).get("completions/mean_length")
            answer = {"seconds": seconds, "phases": phases, "answer_tokens": lengths[-1] if lengths else None}
            if torch.cuda.is_available():
                answer["gpu_peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
            say(answer)
            if not self.wait():
                control.should_training_stop = True

    config = check_config(spec["settings"])
    job = (ExactJob if config.method == "exact" else VerdictJob).prepare(config)
    if job.rows != config.train.batch_size:
        raise SystemExit(f"{job.rows} rows are left for a batch of {config.train.batch_size}")
    bare = spec["system"] == "trl_bare"
    deterministic = engine._deterministic()  # as `rmg train` computes, whichever of its trainers it is
    if not bare:
        deterministic.__enter__()
    with quiet_transformers():
        if bare:
            trainer = bare_trainer(job, spec)
        else:
            trainer = job.trainer(RunFolder.create(config, Path(spec["folder"]) / "run"), config.model.path)
        trainer.resumed_at = None
        if config.method == "grpo":  # every sample has the same length
            trainer.generation_config.min_new_tokens = config.rollout.max_response_length
            trainer.generation_kwargs["min_new_tokens"] = config.rollout.max_response_length
        trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
        trainer.add_callback(Stepper())
        model = trainer.accelerator.unwrap_model(trainer.model)
        nodes = len(trainer.tree.tokens) if config.method == "exact" else None
        say({"ready": True, "shape": shape_of(model), "tree_tokens": nodes, "versions": versions()})
        trainer.train()


def bare_trainer(job: Any, spec: dict[str, Any]) -> Any:
    """`trl.GRPOTrainer` as it comes, with the same rows and settings, and a stopwatch around its phases."""
    import datasets
    import torch
    from trl import GRPOConfig, GRPOTrainer

    from rm_gallery.core.models.weights import load_model
    from rm_gallery.core.train.local.grpo import RewardFunction
    from rm_gallery.core.train.local.phases import settle
    from rm_gallery.core.train.local.trainers import in_bfloat16

    config, micro = job.config, spec["micro_batch_samples"]
    samples = config.train.batch_size * config.rollout.n
    arguments = GRPOConfig(
        output_dir=str(Path(spec["folder"]) / "bare"),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=samples // micro,
        num_generations=config.rollout.n,
        max_completion_length=config.rollout.max_response_length,
        temperature=config.rollout.temperature,
        beta=config.loss.kl_coef,
        epsilon=config.loss.clip,
        loss_type="dapo",
        use_bias_correction_kl=False,
        learning_rate=config.train.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=config.train.weight_decay,
        max_grad_norm=config.train.max_grad_norm,
        bf16=in_bfloat16(config),
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        gradient_checkpointing=False,  # TRL's default is on, which is slower
        shuffle_dataset=False,
        max_steps=config.train.max_steps,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=config.train.seed,
    )
    rows = {"prompt": [job.train[i].messages for i in job.order], "index": list(job.order)}
    trainer = GRPOTrainer(
        load_model(config.model.path, attention=config.model.attention),
        RewardFunction(job.task, job.train),
        args=arguments,
        train_dataset=datasets.Dataset.from_dict(rows),
        processing_class=job.tokenizer,
    )
    trainer.seconds = {}

    def timed(name: str, phase: str) -> None:
        original = getattr(trainer, name)

        def run(*args: Any, **kwargs: Any) -> Any:
            if phase == "log_probs" and torch.is_grad_enabled():
                return original(*args, **kwargs)  # part of the update
            settle()
            began = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                settle()
                trainer.seconds[phase] = trainer.seconds.get(phase, 0.0) + time.perf_counter() - began

        setattr(trainer, name, run)

    timed("_generate_single_turn", "generate")
    timed("_get_per_token_logps_and_entropies", "log_probs")
    timed("_calculate_rewards", "reward")
    return trainer


def shape_of(model: Any) -> dict[str, int]:
    """The fields of `train_step_counts.Shape`."""
    config = model.config.get_text_config()
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return {
        "layer_weights": sum(p.numel() for p in model.base_model.layers.parameters() if p.dim() > 1),
        "head_weights": model.get_output_embeddings().weight.numel(),
        "attention_width": config.num_attention_heads * size,
        "layers": config.num_hidden_layers,
    }


def versions() -> dict[str, Any]:
    import torch
    import transformers
    import trl

    found = {module.__name__: module.__version__ for module in (torch, transformers, trl)}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {**found, "threads": torch.get_num_threads(), "gpu": gpu}


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    if spec.get("memory_limit_gib"):
        watch_memory(spec["memory_limit_gib"])
    (product if spec["system"] == "product" else train)(spec, say)


if __name__ == "__main__":
    main()
