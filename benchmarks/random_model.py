"""A language model of a known shape with random weights: speed and memory do not depend on what they are.

    python benchmarks/random_model.py --tokenizer models/smollm2-135m-instruct --shape smollm2-1.7b --out models/random-1.7b

For benchmarks/train_step.py, and benchmarks/judge.py with `--modes expected`. It writes no verdict that can be read.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rm_gallery.core.models.weights import load_tokenizer, quiet_transformers

# fmt: off
SHAPES = {  # width, of the feed-forward layer, layers, heads, heads of keys and values
    "smollm2-135m": (576, 1536, 30, 9, 3),
    "smollm2-360m": (960, 2560, 32, 15, 5),
    "smollm2-1.7b": (2048, 8192, 24, 32, 32),
}
"""As their publisher's config.json has them; all with the vocabulary of `--tokenizer` and a head tied to the embeddings."""
# fmt: on


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizer", required=True, help="folder of a model, for its tokenizer")
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-1.7b")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    tokenizer = load_tokenizer(given.tokenizer)
    width, inner, layers, heads, groups = SHAPES[given.shape]
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    with quiet_transformers(), torch.device(device):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(given.out)
    tokenizer.save_pretrained(given.out)
    print(
        f"{given.out}: {sum(p.numel() for p in model.parameters()) / 1e6:,.0f}M weights as {given.shape} has them"
    )


if __name__ == "__main__":
    main()
