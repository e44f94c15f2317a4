"""The dataset that verl loads by path; as in examples/train/pointwise, it needs only the package."""

from rm_gallery.core.train import BaseTrainDataset


class HelpfulnessPointwiseTrainDataset(BaseTrainDataset):
    """Each row asks for one score of helpfulness, from 0 to 4."""

    task = "pointwise"
