"""verl's own reward manager with the example's reward, which asks a real service on the loopback."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT
from tests.service import serving

pytestmark = [pytest.mark.verl, pytest.mark.usefixtures("verl_cpu")]

EXAMPLE = ROOT / "examples/reward/verl_reward.py"


def overrides(url: str) -> list[str]:
    """Those that the example names, with the service's address."""
    found = re.findall(r"^\+?reward\.\S+=\S+$", EXAMPLE.read_text(), re.MULTILINE)
    assert len(found) == 3
    return [
        line.replace("http://127.0.0.1:8000", url).replace("=examples/", f"={ROOT}/examples/")
        for line in found
    ]


@pytest.mark.parametrize("path", ["file", "module"])
def test_verls_reward_manager_pays_the_services_score(tiny_model, path):
    import numpy as np
    import torch
    from hydra import compose, initialize_config_module
    from verl import DataProto
    from verl.trainer.ppo.reward import load_reward_manager
    from verl.utils import hf_tokenizer

    tokenizer = hf_tokenizer(str(tiny_model))
    with serving(tiny_model, "pointwise") as service:
        asked = overrides(service.url)
        if path == "module":
            asked[0] = "reward.custom_reward_function.path=pkg://rm_gallery.core.rewards.verl"
        with initialize_config_module("verl.trainer.config", version_base=None):
            config = compose("ppo_trainer", overrides=asked)
        manager = load_reward_manager(config, tokenizer)

        async def pay(text: str, extra: dict) -> dict:
            answer = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
            tensors = {"prompts": torch.tensor([[1, 2]]), "responses": answer}
            tensors["attention_mask"] = torch.ones(1, 2 + answer.shape[1], dtype=torch.long)
            fields = {"data_source": "ours", "reward_model": {"ground_truth": None}, "extra_info": extra}
            arrays = {key: np.array([value], dtype=object) for key, value in fields.items()}
            return await manager.run_single(DataProto.from_dict(tensors=tensors, non_tensors=arrays))

        paid = manager.loop.run_until_complete(pay("It is 5.", {"query": "What is 2 + 3?", "index": 0}))
        [own] = service.results("/v1/score", [{"query": "What is 2 + 3?", "response": "It is 5."}])
        assert paid["reward_score"] == pytest.approx(own["score"], abs=1e-5)
        assert set(paid["reward_extra_info"]) == {"score"}
        with pytest.raises(Exception, match="holds no messages, query, prompt or question"):
            manager.loop.run_until_complete(pay("It is 5.", {"index": 0}))
