"""On the real model, mode `expected` is what constrained sampling would count."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from rm_gallery.core.judge import LocalJudge
from rm_gallery.core.tasks import PairwiseTask, PointwiseTask

pytestmark = pytest.mark.slow

SAMPLES = 20_000
QUERY = [{"role": "user", "content": "How long should I boil an egg so that its yolk stays soft?"}]
GOOD, BAD = "Six minutes in boiling water, then straight into cold water.", "Eggs are laid by hens."
ROWS = {
    "pointwise": {"input": QUERY, "output": {"content": GOOD}},
    "pairwise": {"input": QUERY, "output": [{"content": BAD}, {"content": GOOD}]},
}


def walk(children, below, text, count, random):
    """How often each whole text is reached by `count` walks from `text`: each goes on to a child in proportion to the
    probability of all the legal texts below it."""
    if not children.get(text):
        return Counter({text: count})
    shares = np.array([below[child] for child in children[text]])
    found = Counter()
    for child, going in zip(children[text], random.multinomial(count, shares / shares.sum()), strict=True):
        found += walk(children, below, child, int(going), random)
    return found


@pytest.mark.parametrize("task", [PointwiseTask(), PairwiseTask()], ids=lambda task: task.name)
def test_expected_is_the_relative_frequency_of_samples_constrained_to_the_canonical_texts(smollm2, task):
    """Constrained means: what free samples would be if all but the canonical texts were thrown away.

    So a walk through the tokens of the legal texts goes on, at each place, in proportion to the probability of the
    legal texts below, that is, the model's own next-token probability times that of staying legal afterwards. (What
    masking illegal tokens and renormalising at each step would sample is another distribution: it forgives a beginning
    for leading, mostly, to texts that are not legal.) The next-token probabilities come from a plain forward of each
    place, without cache, tree or batch.
    """
    judge = LocalJudge.load(smollm2)
    conversation = task.messages(ROWS[task.name])
    [answer] = judge.answer(task, [conversation], mode="expected", max_new_tokens=16)

    encode = judge.tokenizer
    prompt = encode(judge.render(conversation), add_special_tokens=False)["input_ids"]
    end = encode.convert_tokens_to_ids("<|im_end|>")
    texts = [
        (*encode(task.format(verdict), add_special_tokens=False)["input_ids"], end)
        for verdict in task.verdicts()
    ]
    places = sorted({text[:i] for text in texts for i in range(len(text))}, key=len)
    children = {
        place: sorted({t[: len(place) + 1] for t in texts if t[: len(place)] == place}) for place in places
    }
    log_next = {}
    for place in places:
        with torch.no_grad():
            logits = judge.model(torch.tensor([[*prompt, *place]]), use_cache=False).logits[0, -1].double()
        for child in children[place]:
            log_next[child] = logits.log_softmax(-1)[child[-1]].item()
    below = {
        node: sum(
            math.exp(sum(log_next[text[: i + 1]] for i in range(len(node) - 1, len(text))))
            for text in texts
            if text[: len(node)] == node
        )
        for node in log_next
    }
    counts = walk(children, below, (), SAMPLES, np.random.default_rng(0))
    frequencies = np.array([counts[text] for text in texts]) / SAMPLES

    exact = [math.exp(sum(log_next[text[: i + 1]] for i in range(len(text)))) for text in texts]
    print(
        f"{task.name}: probabilities {answer.probabilities}, counted {frequencies.tolist()}, mass {answer.mass:.3g}"
    )
    probabilities = np.array(answer.probabilities)
    errors = np.sqrt(probabilities * (1 - probabilities) / SAMPLES)
    assert (np.abs(frequencies - probabilities) <= 4 * errors + 0.5 / SAMPLES).all()
    assert frequencies.sum() == pytest.approx(1)
    assert answer.verdict == list(task.verdicts())[int(np.argmax(exact))], "the constrained argmax"
    assert probabilities == pytest.approx(np.array(exact) / sum(exact), abs=1e-5)
    assert answer.mass == pytest.approx(sum(exact), rel=1e-3)
    assert 0 < answer.mass <= 1
