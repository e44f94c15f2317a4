"""The dataset that verl loads by path: `data.custom_cls.name=HelpfulnessPairwiseTrainDataset`.

run_pairwise.sh hands this file to verl. Prompts, labels and checks are those of the task that train.yaml names;
replace a hook of `BaseTrainDataset` to change one of them.
"""

from rm_gallery.core.train import BaseTrainDataset


class HelpfulnessPairwiseTrainDataset(BaseTrainDataset):
    """Each row asks which of two responses is more helpful: A, B or tie."""

    task = "pairwise"


PairwiseTrainDataset = HelpfulnessPairwiseTrainDataset
