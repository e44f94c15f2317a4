"""Saved judges of a few thousand weights, loaded once, and chat models over the endpoint of the tests."""

from __future__ import annotations

import shutil

import pytest
import torch

from rm_gallery.core.models import Backoff, OpenAIChatModel
from rm_gallery.core.tasks import MultiDimensionTask, PairwiseTask, PointwiseTask
from rm_gallery.core.tasks.saved import save_task

TASKS = {"pointwise": PointwiseTask, "pairwise": PairwiseTask, "multi_dimension": MultiDimensionTask}


@pytest.fixture(scope="session")
def judge_folders(tiny_model, tmp_path_factory):
    """The tiny model as a judge of each built-in task: name → folder."""
    folder = tmp_path_factory.mktemp("judges")
    made = {name: shutil.copytree(tiny_model, folder / name) for name in TASKS}
    for name, path in made.items():
        save_task(path, name, TASKS[name](), max_response_length=8)
    return made


@pytest.fixture(scope="session")
def judges(judge_folders):
    """The judges, loaded: name → model."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    models = {name: OpenAIChatModel(str(path), is_local=True) for name, path in judge_folders.items()}
    yield models
    for model in models.values():
        model.close()
    torch.set_num_threads(threads)


@pytest.fixture
def chat():
    """Models over an endpoint, closed at the end."""
    made = []

    def make(endpoint, **options):
        quick = Backoff(first=0.001, longest=0.01, longest_asked=0.1)
        options = {"timeout": 5, "max_retries": 0, "backoff": quick, **options}
        made.append(OpenAIChatModel("judge", endpoint.base_url, **options))
        return made[-1]

    yield make
    for model in made:
        model.close()
