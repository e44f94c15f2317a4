"""The supervised trainer: its loss and gradients are TRL's."""

from __future__ import annotations

import datasets
import pytest
import torch
from trl import SFTConfig, SFTTrainer

from rm_gallery.core.models.weights import load_model, load_tokenizer
from rm_gallery.core.train.local.sft import SharedPrefixSFTTrainer

pytestmark = pytest.mark.usefixtures("one_thread")


def test_loss_gradients_and_figures_equal_plain_trl(tiny_model, tmp_path):
    """Stems of prompts are encoded once and only answers projected; nothing else may differ."""
    question = "How good is this answer to the question of questions? "
    prompts = ("a", question + "It is 42.", "bcd" * 9, question + "It depends on what one asks.", "ef")
    answers = ("<score>1</score>", "x", "yz", "<score>4</score>", "b")
    rows = {
        "prompt": [[{"role": "user", "content": text}] for text in prompts],
        "completion": [[{"role": "assistant", "content": text}] for text in answers],
    }
    results = []
    for trainer_class in (SharedPrefixSFTTrainer, SFTTrainer):
        arguments = SFTConfig(
            output_dir=str(tmp_path), use_cpu=True, report_to=[], bf16=False, completion_only_loss=True
        )
        trainer = trainer_class(
            load_model(tiny_model),
            args=arguments,
            train_dataset=datasets.Dataset.from_dict(rows),
            processing_class=load_tokenizer(tiny_model),
        )
        trainer.model.train()
        inputs = trainer.data_collator([trainer.train_dataset[i] for i in range(5)])
        loss = trainer.compute_loss(trainer.model, dict(inputs), num_items_in_batch=torch.tensor(20))
        loss.backward()
        figures = {name: trainer._metrics["train"][name][0] for name in ("entropy", "mean_token_accuracy")}
        results.append((loss.detach(), figures, {n: p.grad for n, p in trainer.model.named_parameters()}))
    ours, plain = results
    torch.testing.assert_close(ours[0], plain[0], atol=1e-6, rtol=1e-5)
    assert ours[1] == pytest.approx(plain[1], abs=1e-5)
    for name, gradient in ours[2].items():
        torch.testing.assert_close(gradient, plain[2][name], atol=2e-6, rtol=1e-4, msg=name)
