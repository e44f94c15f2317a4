"""What a run and a million judgments cost, before they are started: work counted, rates measured or assumed.

`counts` and `work` count operations and bytes, `machine` and `rates` say how many of them are done in a second, `plan`
divides one by the other. None of them imports torch.
"""

from rm_gallery.core.estimate.lengths import Lengths, given_lengths, read_lengths
from rm_gallery.core.estimate.machine import MACHINES, Machine, Range, find_machine, this_machine
from rm_gallery.core.estimate.model import SIZES, Transformer, known_size, read_model
from rm_gallery.core.estimate.plan import Estimate, Judging, cost, estimate_training, judge_modes
from rm_gallery.core.estimate.rates import Rates, Run, rates_from, rates_of

__all__ = [
    "MACHINES",
    "SIZES",
    "Estimate",
    "Judging",
    "Lengths",
    "Machine",
    "Range",
    "Rates",
    "Run",
    "Transformer",
    "cost",
    "estimate_training",
    "find_machine",
    "given_lengths",
    "judge_modes",
    "known_size",
    "rates_from",
    "rates_of",
    "read_lengths",
    "read_model",
    "this_machine",
]
