"""Freed memory is kept for the next tensor, unless the user has chosen otherwise."""

import platform
import subprocess
import sys

import pytest
import torch

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or torch.cuda.is_available(), reason="is for glibc, and no GPU"
)

PROGRAM = """
import resource
import torch
from rm_gallery.core.models.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 * 2**20)  # 64 MiB: more than glibc ever keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
given_back = faults()
kept = keep_freed_memory()
for _ in range(10):  # glibc leaves crumbs between the first few, each of which is too small for the next by one
    faults()
print(given_back, kept, faults())
"""


def measured(**environment: str) -> tuple[int, bool, int]:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    before, kept, after = ran.stdout.split()
    return int(before), kept == "True", int(after)


def test_a_tensor_takes_the_memory_of_the_one_before_it():
    before, kept, after = measured()
    assert kept
    assert before > 10  # or the machine would have nothing to gain, and this test nothing to show
    assert after < before / 5


@pytest.mark.parametrize(
    "chosen",
    [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}],
    ids=["MALLOC_", "GLIBC_TUNABLES"],
)
def test_what_the_user_has_set_stays(chosen):
    before, kept, after = measured(**chosen)
    assert not kept
    assert after > before / 2
