"""Memory of `skillweave convert` for a sharded Hugging Face checkpoint, in both directions, relative
to the largest shard.

python benchmarks/convert_memory.py [--json FILE] [--layers 12] [--width 1024] [--shard 100]
[--quick]

A random LLaMA is saved as safetensors in shards of this size, converted, and converted back. Each
conversion runs in its own process, which first converts a tiny model, so that libraries are loaded.
The measure is how much the resident set of the process grows at its peak. Linux only.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from memory import status
from report import Figure, report

from skillweave.interop.huggingface import convert_folder

BOUND = 1.2


def save(folder: Path, layers: int, width: int, shard: int) -> int:
    """Write a random model in shards of `shard` MB; return the bytes of the largest one."""
    torch.manual_seed(0)
    sizes = {
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
    }
    config = transformers.LlamaConfig(**sizes, num_key_value_heads=width // 64, vocab_size=8000)
    transformers.LlamaForCausalLM(config).save_pretrained(folder, max_shard_size=f"{shard}MB")
    return max(file.stat().st_size for file in folder.glob("*.safetensors"))


def peak_growth(folder: Path, tiny: Path) -> int:
    """Bytes by which a process grows while it converts `folder`, after it has converted `tiny`."""
    call = [sys.executable, __file__, "--convert", str(tiny), str(folder)]
    return int(subprocess.run(call, check=True, capture_output=True, text=True).stdout)


def convert(tiny: Path, folder: Path) -> int:
    """The process of `peak_growth`."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=folder.parent) as out:
        convert_folder(tiny, Path(out) / "tiny")
        before = status("VmRSS")
        # Forget the peak of loading libraries.
        Path("/proc/self/clear_refs").write_text("5")
        convert_folder(folder, Path(out) / "model")
        return status("VmHWM") - before


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--layers", type=int, default=12, help="layers of the model (default 12)")
    parser.add_argument("--width", type=int, default=1024, help="width of the model (default 1024)")
    parser.add_argument(
        "--shard", type=int, default=100, metavar="MB", help="size of a shard (default 100)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="tiny sizes, which show that it runs and measure nothing",
    )
    parser.add_argument("--convert", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.convert:
        print(convert(*options.convert))
        return 0
    if options.quick:
        options.layers, options.width, options.shard = 2, 64, 1
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as place:
        folder, tiny = Path(place) / "theirs", Path(place) / "small"
        save(tiny, 1, 64, 1)
        largest = save(folder, options.layers, options.width, options.shard)
        shards = len(list(folder.glob("*.safetensors")))
        ours = [Path(place) / f"{one.name}-ours" for one in (folder, tiny)]
        for given, made in zip((folder, tiny), ours, strict=True):
            convert_folder(given, made)
        ratios = {
            "import": peak_growth(folder, tiny) / largest,
            "export": peak_growth(*ours) / largest,
        }
    bound = float("inf") if options.quick else BOUND
    what = f"{shards} shards of {largest / 2**20:.0f} MiB"
    figures = [
        Figure(
            f"peak memory of {direction}, {what}",
            ratio,
            "× the largest shard, at most",
            bound,
            ratio <= bound,
        )
        for direction, ratio in ratios.items()
    ]
    return report("conversion", figures, options.json)


if __name__ == "__main__":
    sys.exit(main())
