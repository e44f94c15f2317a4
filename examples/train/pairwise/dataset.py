"""The dataset that verl loads by path: `data.custom_cls.name=HelpfulnessPairwiseTrainDataset`.

Prompts, labels and checks are the task's; replace a hook of `BaseTrainDataset` to change one of them.
"""

from rm_gallery.core.train import BaseTrainDataset


class HelpfulnessPairwiseTrainDataset(BaseTrainDataset):
    """Each row asks which of two responses is more helpful: A, B or tie."""

    task = "pairwise"


PairwiseTrainDataset = HelpfulnessPairwiseTrainDataset
