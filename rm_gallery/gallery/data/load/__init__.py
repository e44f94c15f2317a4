"""Converters of public datasets and of one's own tables; importing this registers them."""

from rm_gallery.gallery.data.load.columns import ColumnsPairwiseConverter, ColumnsPointwiseConverter
from rm_gallery.gallery.data.load.helpsteer2_pairwise import HelpSteer2PairwiseConverter
from rm_gallery.gallery.data.load.helpsteer2_pointwise import HelpSteer2PointwiseConverter

__all__ = [
    "ColumnsPairwiseConverter",
    "ColumnsPointwiseConverter",
    "HelpSteer2PairwiseConverter",
    "HelpSteer2PointwiseConverter",
]
