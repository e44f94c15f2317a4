"""verl and vLLM on a CPU, for development and tests: a platform plugin for verl and the settings that go with it.

A GPU's absence is all that is stood in for. The trainer, Ray, the rollouts of vLLM, rewards, FSDP2 and checkpoints
are verl's own. Not covered, for they need the hardware: NCCL, CUDA IPC, sleep mode, tensor parallelism, memory fit.

verl loads this module in each of its processes through `VERL_USE_EXTERNAL_MODULES` (`ENVIRONMENT`).
"""

from __future__ import annotations

import os
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rm_gallery.core.train.config import TrainConfig
    from rm_gallery.core.train.verl.sizing import ModelSize

ENVIRONMENT = {
    "VERL_PLATFORM": "cpu",
    "VERL_USE_EXTERNAL_MODULES": __name__,
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "TOKENIZERS_PARALLELISM": "false",
    # the engine that is registered for CUDA runs on a CPU as it stands
    "VERL_ENGINE_DEVICE": "cuda",
    "VERL_ENGINE_VENDOR": "nvidia",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def environment() -> dict[str, str]:
    """`ENVIRONMENT`, and all cores for whichever process has work: Ray gives each of its own one thread where nothing is
    said, and trainer and vLLM take turns."""
    return {**ENVIRONMENT, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(os.cpu_count())}


def overrides(config: TrainConfig, size: ModelSize) -> dict[str, Any]:
    """verl's keys for one CPU: no compilation, no sleep mode, small buffers, and logical GPUs for Ray to place on."""
    rollout = "actor_rollout_ref.rollout"
    samples = config.train.batch_size * config.rollout.n
    # weights travel in float32 and one at a time; the largest is the embedding
    bucket = max(64, int((size.parameters or 1e8) * 4 / 2**20))
    return {
        "actor_rollout_ref.actor.fsdp_config.use_torch_compile": False,
        "actor_rollout_ref.ref.fsdp_config.use_torch_compile": False,
        f"{rollout}.enforce_eager": True,
        f"{rollout}.free_cache_engine": False,
        f"+{rollout}.enable_sleep_mode": False,
        f"{rollout}.tensor_model_parallel_size": 1,
        f"{rollout}.max_num_seqs": min(64, max(8, samples)),
        f"{rollout}.agent.num_workers": 1,
        f"{rollout}.checkpoint_engine.update_weights_bucket_megabytes": bucket,
        f"+{rollout}.engine_kwargs.vllm.worker_extension_cls": (
            "rm_gallery.core.train.verl.cpu_vllm.CpuWorkerExtension"
        ),
        "reward.num_workers": 1,
        "transfer_queue.backend.SimpleStorage.num_data_storage_units": 1,
        "ray_kwargs.ray_init.num_cpus": 8,
        "+ray_kwargs.ray_init.num_gpus": 1,
        "+ray_kwargs.ray_init.include_dashboard": False,
        "+ray_kwargs.ray_init.object_store_memory": 2**30,
    }


def _torch_cpu() -> types.ModuleType:
    """`torch.cpu` with the calls that verl makes of an accelerator's module."""
    import torch

    class TorchCpu(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            return getattr(torch.cpu, name)

    module: Any = TorchCpu("torch.cpu")
    for name in ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"):
        setattr(module, name, lambda *_, **__: 0)
    for name in (
        *("empty_cache", "ipc_collect", "manual_seed", "manual_seed_all", "set_device", "synchronize"),
        "reset_peak_memory_stats",
    ):
        setattr(module, name, lambda *_, **__: None)
    module.is_available = lambda: True
    module.device_count = lambda: 1
    module.current_device = lambda: 0
    module.mem_get_info = lambda *_: (8 << 30, 16 << 30)
    module.get_rng_state = lambda *_: torch.random.get_rng_state()
    module.set_rng_state = lambda state, *_: torch.random.set_rng_state(state)
    module.get_device_name = lambda *_: "cpu"
    return module


def _register() -> None:
    import torch
    from verl.plugin.platform.platform_base import PlatformBase
    from verl.plugin.platform.platform_manager import PlatformRegistry

    module = _torch_cpu()

    @PlatformRegistry.register(platform="cpu")
    class PlatformCpu(PlatformBase):
        device_name = property(lambda self: "cpu")
        vendor_name = property(lambda self: "cpu")
        device_module = property(lambda self: module)

        def is_available(self) -> bool:
            return True

        def current_device(self) -> str:
            return "cpu"  # verl passes it to tensor.to()

        def device_count(self) -> int:
            return 1

        def set_device(self, device_index: int) -> None: ...

        def synchronize(self, device_index: int | None = None) -> None: ...

        def manual_seed(self, seed: int) -> None:
            torch.manual_seed(seed)

        def manual_seed_all(self, seed: int) -> None:
            torch.manual_seed(seed)

        def set_allocator_settings(self, settings: str) -> None: ...

        def empty_cache(self) -> None: ...

        def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
            return None, None

        def communication_backend_name(self) -> str:
            return "gloo"

        def visible_devices_envvar(self) -> str:
            return "CUDA_VISIBLE_DEVICES"

        @contextmanager
        def nvtx_range(self, msg: str) -> Iterator[None]:
            yield

        def profiler_start(self) -> None: ...

        def profiler_stop(self) -> None: ...

        def ray_resource_name(self) -> str:
            return "GPU"  # a logical one

        def ray_noset_envvars(self) -> list[str]:
            return []

        def is_ipc_supported(self) -> bool:
            return False  # weights go to vLLM through shared memory

        def cudart(self) -> None:
            return None


def _adapt_torch() -> None:
    """Two calls that torch refuses on a CPU although nothing is lost by them."""
    import torch

    start = torch.distributed.init_process_group

    def init_process_group(backend: str | None = None, *args: Any, **kwargs: Any) -> Any:
        if backend and "," in backend:  # verl asks for "cpu:gloo,cpu:gloo", which names the CPU twice
            backend = ",".join(dict.fromkeys(backend.split(",")))
        return start(backend, *args, **kwargs)

    torch.distributed.init_process_group = init_process_group
    # the reference model's offloading pins memory, which takes an accelerator
    torch.Tensor.pin_memory = lambda self, *_, **__: self


if os.environ.get("VERL_USE_EXTERNAL_MODULES") == __name__:  # not where a test or the launcher imports it
    _register()
    _adapt_torch()
