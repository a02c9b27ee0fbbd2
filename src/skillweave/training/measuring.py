"""What training measures of itself: memory, the parts of gradient norms, and a profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

PROFILE_FOLDER = "profile"
SKIPPED_STEPS = 3
"""Steps before a profile: the first ones allocate memory and start workers."""


def component_of(parameter: str) -> str:
    """The component that a parameter belongs to, such as `encoder` or `targets.classification`."""
    first, second = parameter.split(".")[:2]
    return first if first in ("encoder", "decoder", "target_embedding") else f"{first}.{second}"


def activated_parameters(model: nn.Module, task: str) -> int:
    """The number of parameters that a task activates; all of them for a module that is no model of
    several tasks."""
    count = getattr(model, "count_parameters", None)
    return count(task) if count else sum(p.numel() for p in model.parameters())


def memory_in_use(device: torch.device) -> dict[str, float]:
    """Gigabytes: of the process, and on a GPU the most since the last call."""
    found: dict[str, float] = {}
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(x for x in status.read_text("utf-8").splitlines() if x.startswith("VmRSS"))
        found["memory_gb"] = round(int(line.split()[1]) * 1024 / 1e9, 3)
    if device.type == "cuda":
        found["gpu_memory_gb"] = round(torch.cuda.max_memory_allocated(device) / 1e9, 3)
        torch.cuda.reset_peak_memory_stats(device)
    return found


class StepProfiler:
    """Records some steps with PyTorch's profiler. `steps`: how many; 0 for none."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.profiler: Any = None
        if not steps:
            return
        from torch import profiler

        def write(found: Any) -> None:
            folder.mkdir(parents=True, exist_ok=True)
            found.export_chrome_trace(str(folder / "trace.json"))
            table = found.key_averages().table(sort_by="self_cpu_time_total", row_limit=40)
            (folder / "operations.txt").write_text(table, "utf-8")

        self.profiler = profiler.profile(
            schedule=profiler.schedule(wait=SKIPPED_STEPS - 1, warmup=1, active=steps, repeat=1),
            on_trace_ready=write,
            profile_memory=True,
        )

    def start(self) -> None:
        """Begin before the first step."""
        if self.profiler:
            self.profiler.start()

    def step(self) -> None:
        """A step is done."""
        if self.profiler:
            self.profiler.step()

    def stop(self) -> None:
        """End, and write what was recorded."""
        if self.profiler:
            self.profiler.stop()
