"""What loading a slice reads and holds: `sw.load(path, tasks=[...])` against the parameters that
the tasks activate.

python benchmarks/load_slice.py [--json FILE] [--layers 12] [--width 384] [--experts 8] [--quick]

Each slice is loaded in a process of its own, which has loaded a tiny model before, so that
libraries and code are in memory. Bytes read are those that the kernel handed out (`rchar` of
/proc/self/io), configuration and header included. Growth of memory is that of the process's
resident set, at its peak while loading and once loaded. Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from memory import status
from report import Figure, report

import skillweave as sw
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model

TASK = "text_to_image"
BYTES, MEMORY = 1.02, 1.15
ROUTES: dict[str, dict[str, Any]] = {
    "skill": {"qkv": {"route": "skill"}},
    "attribute": {"linears": {"route": "attribute"}},
    "token": {"feed_forward": {"route": "token"}},
}


def build(route: str, layers: int, width: int, experts: int) -> Model:
    """A model of five modalities, of which the task uses two."""
    sparse = {
        place: {**spec, "experts": experts} if spec["route"] != "skill" else spec
        for place, spec in ROUTES[route].items()
    }
    spans = [{"modality": "text"}, {"modality": "image", "encoder_pass": 1}]
    encoder = {"layers": layers, "heads": width // 64, "feed_forward": 4 * width, "sparse": sparse}
    data = {
        "width": width,
        "streams": {
            "text": {"vocabulary": 8000},
            "image": {},
            "sound": {},
            "video": {},
            "code": {"vocabulary": 8000},
        },
        "encoder": encoder,
        "targets": {"contrastive": {}},
        "tasks": {
            TASK: {"spans": spans, "targets": {"contrastive": 1.0}},
            "text_to_sound": {
                "spans": [spans[0], {"modality": "sound", "encoder_pass": 1}],
                "targets": {"contrastive": 1.0},
            },
        },
    }
    torch.manual_seed(0)
    return Model(ModelConfig.parse(data))


def load_alone(folder: str, tiny: str) -> None:
    """In a process of its own: print what loading the slice read, and by how much memory grew."""
    sw.load(tiny, tasks=[TASK])
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    before, read = status("VmRSS"), handed_out()
    model = sw.load(folder, tasks=[TASK])
    read = handed_out() - read
    peak, after = status("VmHWM"), status("VmRSS")
    slice_bytes = sum(x.numel() * x.element_size() for x in model.state_dict().values())
    print(
        json.dumps(
            {"slice": slice_bytes, "read": read, "peak": peak - before, "held": after - before}
        )
    )


def handed_out() -> int:
    """Bytes that the process has read so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


def measure(route: str, folder: Path, tiny: Path) -> list[Figure]:
    command = [sys.executable, __file__, "--alone", str(folder), str(tiny)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    wanted = Model.from_pretrained(folder).active_parameters(TASK)
    parts = {
        name: x.numel() * x.element_size()
        for name, x in Model.from_pretrained(folder).named_parameters()
    }
    slice_bytes = sum(parts[name] for name in wanted)
    print(f"{route}: the slice has {slice_bytes / 1e6:.1f} of {sum(parts.values()) / 1e6:.1f} MB")
    bounds = {
        "read": ("bytes read", BYTES),
        "peak": ("memory, peak", MEMORY),
        "held": ("memory, held", MEMORY),
    }
    figures = []
    for key, (title, bound) in bounds.items():
        ratio = found[key] / slice_bytes
        figures.append(
            Figure(f"{route}: {title}", ratio, "× the slice, at most", bound, ratio <= bound)
        )
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=384, help="a multiple of 64 (default 384)")
    parser.add_argument("--experts", type=int, default=8, help="of learned gates (default 8)")
    parser.add_argument(
        "--quick", action="store_true", help="2 layers: shows that it runs, measures little"
    )
    parser.add_argument("--alone", nargs=2, metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        load_alone(*options.alone)
        return 0
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        for route in ROUTES:
            place, tiny = Path(folder, route), Path(folder, f"{route}-tiny")
            build(
                route, 2 if options.quick else options.layers, options.width, options.experts
            ).save_pretrained(place)
            build(route, 1, 64, options.experts).save_pretrained(tiny)
            figures += measure(route, place, tiny)
    return report("loading the slice of one task of two, float32", figures, options.json)


if __name__ == "__main__":
    sys.exit(main())
