"""The dataset that verl loads by path; as in examples/train/pointwise, it needs only the package.

run_pointwise.sh hands this file to verl; replace a hook of `BaseTrainDataset` to change what is asked.
"""

from rm_gallery.core.train import BaseTrainDataset


class HelpfulnessPointwiseTrainDataset(BaseTrainDataset):
    """Each row asks for one score of helpfulness, from 0 to 4."""

    task = "pointwise"
