"""Graders over judges that HelpSteer2's recipes train: the prompt of training, and the distribution over verdicts.

grader = HelpSteer2PointwiseGrader(model=OpenAIChatModel("runs/judge/actor_latest", is_local=True))
result = await grader.aevaluate(query="What is 2 + 3?", response="It is 5.")
result.score, result.metadata["probabilities"]
"""

from __future__ import annotations

from rm_gallery.core.graders.judge import JudgeGrader, PairJudgeGrader
from rm_gallery.core.judge.answer import Mode
from rm_gallery.core.models.openai_chat import OpenAIChatModel
from rm_gallery.gallery.helpsteer2 import PAIRWISE, POINTWISE


class HelpSteer2PointwiseGrader(JudgeGrader):
    """Helpfulness from 0 to 4, as the mean of the judge's distribution.

    Args:
        model: a judge in this process or behind an endpoint. One that carries no task is asked the recipe's question.
        name: stands in the results.
        mode: as of `ChatJudge`. An endpoint that gives no log-probabilities is asked in mode `greedy` or `vote`.
    """

    def __init__(
        self, model: OpenAIChatModel, *, name: str = "helpfulness", mode: Mode | None = None
    ) -> None:
        super().__init__(model, model.task or POINTWISE, name=name, criterion="helpfulness", mode=mode)


class HelpSteer2PairwiseGrader(PairJudgeGrader):
    """Which of two `responses` is more helpful, asked in both orders.

    Args:
        model, mode: as of `HelpSteer2PointwiseGrader`.
        name: stands in the results.
    """

    def __init__(self, model: OpenAIChatModel, *, name: str = "preference", mode: Mode | None = None) -> None:
        super().__init__(model, model.task or PAIRWISE, name=name, mode=mode)
