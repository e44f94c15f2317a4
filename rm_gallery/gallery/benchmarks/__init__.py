"""Published benchmarks, in their publishers' own formats and with their own aggregation; importing registers them."""

from rm_gallery.gallery.benchmarks.helpsteer2 import HelpSteer2, HelpSteer2Preference
from rm_gallery.gallery.benchmarks.jsonl import JsonLines
from rm_gallery.gallery.benchmarks.judgebench import JudgeBench
from rm_gallery.gallery.benchmarks.llmbar import LLMBar
from rm_gallery.gallery.benchmarks.pandalm import PandaLM
from rm_gallery.gallery.benchmarks.rewardbench import RewardBench
from rm_gallery.gallery.benchmarks.rewardbench2 import RewardBench2
from rm_gallery.gallery.benchmarks.rm_bench import RMBench
from rm_gallery.gallery.benchmarks.rmb import RMB

__all__ = [
    "RMB",
    "HelpSteer2",
    "HelpSteer2Preference",
    "JsonLines",
    "JudgeBench",
    "LLMBar",
    "PandaLM",
    "RMBench",
    "RewardBench",
    "RewardBench2",
]
