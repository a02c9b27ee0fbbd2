"""Write the model folder of skillweave/tiny from a run: without the tasks that only trained it.

Run `python packs/tiny/publish.py RUN`. The weights are stored in bf16 and read back as float32. The
model card and the datasheet beside them stay.
"""

import argparse
from pathlib import Path

import skillweave as sw

OUT = Path(__file__).parents[2] / "src/skillweave/pretrained/tiny"
KEPT = (
    "text_to_image",
    "text_to_video",
    "text_to_code",
    "text_matching",
    "speech_recognition",
    "text_classification",
    "masked_text",
)
"""The tasks that answer, and the pretraining task that others start from."""


def publish(run: Path, out: Path = OUT, stored: str = "bf16") -> int:
    """Write the model of a run into a folder, and return the bytes of its weights.

    It computes in float32, whatever it was trained in: few CPUs are fast in bf16.
    """
    model = sw.load(run)
    tasks = {name: model.config.tasks[name] for name in KEPT}
    model.config = model.config.changed(tasks=tasks, precision="float32")
    model.save_pretrained(out, stored)
    return (out / "model.safetensors").stat().st_size


def main() -> None:
    """Publish the run that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--stored", default="bf16", choices=("float32", "bf16", "int8"))
    arguments = parser.parse_args()
    size = publish(arguments.run, arguments.out, arguments.stored)
    print(f"{arguments.out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
