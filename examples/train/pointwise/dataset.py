"""The dataset that verl loads by path: `data.custom_cls.path=dataset.py data.custom_cls.name=PointwiseTrainDataset`.

run_pointwise.sh hands this file to verl. Prompts, labels and checks are those of the task that train.yaml
names; replace a hook of `BaseTrainDataset` to change one of them.
"""

from rm_gallery.core.train import BaseTrainDataset


class HelpfulnessPointwiseTrainDataset(BaseTrainDataset):
    """Each row asks for one score of helpfulness, from 0 to 4."""

    task = "pointwise"


PointwiseTrainDataset = HelpfulnessPointwiseTrainDataset
