"""Formats that hold a graph of operators: torch.export, ONNX, and ONNX with weights of 8 bits.

Each pass of a task becomes a graph of its own, with its target: it gives the unit vectors that a
retrieval task compares, or the logits of a task that answers.
"""

from __future__ import annotations

import logging
import os
import warnings
from abc import abstractmethod
from collections.abc import Generator, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from skillweave.batch import Batch
from skillweave.config import ConfigError
from skillweave.config.encoder import RecurrentConfig
from skillweave.model.model import Model
from skillweave.surgery.carve import task_encoders
from skillweave.surgery.export.graph import AnswerGraph, export_program, graph_inputs
from skillweave.surgery.formats.base import (
    FORMATS,
    Exported,
    Format,
    logit_quality,
    relative_error,
    size_of,
    vector_quality,
)

NOISY = ("root", "torch.onnx", "onnxscript", "onnx_ir", "onnxruntime")


@dataclass(frozen=True)
class PassGraph:
    """One pass of a task as a graph, and the real inputs on which it is compared."""

    name: str
    graph: AnswerGraph
    batch: Batch

    @property
    def names(self) -> list[str]:
        """The names of the inputs: modalities, numbered where one occurs twice, and `lengths` if
        samples may be padded."""
        found: list[str] = []
        for span in self.batch.layout.spans:
            modality = span.modality.value
            found.append(f"{modality}_{len(found)}" if modality in found else modality)
        return [*found, *(["lengths"] if self.tensors[-1] is self.batch.lengths else [])]

    @property
    def tensors(self) -> list[Tensor]:
        """The inputs, in the order of their names."""
        given = graph_inputs(self.batch)
        lengths = given["lengths"]
        return [*given["inputs"], *([] if lengths is None else [lengths])]

    @property
    def shapes(self) -> dict[str, list[int | str]]:
        """Name → shape; N samples and L positions are free."""
        found: dict[str, list[int | str]] = {}
        for name, x in zip(self.names, self.tensors, strict=True):
            free = ["N", "L"] if name != "lengths" and x.ndim == 2 else ["N"]
            found[name] = [*free, *x.shape[len(free) :]]
        return found


def pass_graphs(model: Model, batch: Batch) -> Iterator[PassGraph]:
    """The passes of a task. Raises ConfigError for a recurrent encoder, whose loop over a sample's
    own length a graph cannot hold, and for a task whose answer takes several passes."""
    task, layout = batch.layout.task, batch.layout
    if isinstance(model.config.encoder, RecurrentConfig):
        raise ConfigError(f"a graph cannot hold an encoder {model.config.encoder.name!r}")
    targets = [model.config.targets[name] for name in model.config.tasks[task].targets]
    alone = len(layout.passes) == 1
    if not targets or not (alone or targets[0].compares_vectors):
        raise ConfigError(
            f"task {task!r}: a graph holds one pass, and its answer takes several; export it with"
            " --to ctranslate2 if it writes text"
        )
    encoders = task_encoders(model, task, targets=True)
    for p, (name, encoder) in enumerate(encoders.items()):
        spans = layout.passes[p]
        inputs = tuple(batch.inputs[s] for s in spans)
        own = Batch(layout.only(p), inputs, batch.lengths[:, list(spans)])
        yield PassGraph(name, AnswerGraph(encoder, own.layout).eval(), own)


class GraphFormat(Format):
    """A file for each pass."""

    suffix: ClassVar[str]

    @abstractmethod
    def write(self, one: PassGraph, path: Path) -> None:
        """Write the file."""

    @abstractmethod
    def run(self, one: PassGraph, path: Path) -> Tensor:
        """The outputs of the file for the inputs."""

    def export(self, model: Model, batch: Batch, folder: Path) -> list[Exported]:
        """See `Format`."""
        found = []
        for one in pass_graphs(model, batch):
            with torch.inference_mode():
                expected = one.graph(**graph_inputs(one.batch))
            path = folder / f"{one.name}{self.suffix}"
            with quiet():
                try:
                    self.write(one, path)
                except Exception as error:  # each exporter has errors of its own
                    told = str(error).strip().partition("\n")[0]
                    raise ConfigError(
                        f"task {batch.layout.task!r}: a graph cannot hold pass {one.name}: {told}"
                    ) from error
                made = self.run(one, path)
            gives = "vectors" if one.graph.embeds else "logits"
            compare = vector_quality if one.graph.embeds else logit_quality
            found.append(
                Exported(
                    path.name,
                    gives,
                    one.shapes,
                    len(one.batch),
                    size_of(path),
                    relative_error(made, expected),
                    compare(made, expected),
                )
            )
        return found


@contextmanager
def quiet() -> Generator[None]:
    """Without what the exporters print: their progress, and a whole graph with an error."""
    levels = {name: logging.getLogger(name).level for name in NOISY}
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with (
            Path(os.devnull).open("w") as nowhere,
            redirect_stdout(nowhere),
            redirect_stderr(nowhere),
            warnings.catch_warnings(action="ignore"),
        ):
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@FORMATS.register("torch")
class TorchExport(GraphFormat):
    """A program of torch.export: `torch.export.load(FILE).module()` runs it."""

    summary = "torch.export (.pt2)"
    suffix = ".pt2"

    def write(self, one: PassGraph, path: Path) -> None:
        """See `GraphFormat`."""
        torch.export.save(export_program(one.graph, one.batch), path)

    @torch.inference_mode()
    def run(self, one: PassGraph, path: Path) -> Tensor:
        """See `GraphFormat`."""
        return torch.export.load(path).module()(**graph_inputs(one.batch))


@FORMATS.register("onnx")
class Onnx(GraphFormat):
    """A graph of ONNX, run by onnxruntime and others. Its inputs have the names of modalities."""

    summary = "ONNX (.onnx)"
    modules = ("onnx", "onnxscript", "onnxruntime")
    suffix = ".onnx"

    def write(self, one: PassGraph, path: Path) -> None:
        """See `GraphFormat`."""
        program: Any = torch.onnx.export(
            export_program(one.graph, one.batch), dynamo=True, verbose=False, optimize=True
        )
        graph = program.model.graph
        for value, name in zip(graph.inputs, one.names, strict=True):
            value.name = name
        graph.outputs[0].name = "vectors" if one.graph.embeds else "logits"
        program.save(path, external_data=False)

    def run(self, one: PassGraph, path: Path) -> Tensor:
        """See `GraphFormat`."""
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        given = {n: x.numpy() for n, x in zip(one.names, one.tensors, strict=True)}
        return torch.from_numpy(session.run(None, given)[0])


@FORMATS.register("int8")
class Int8(Onnx):
    """ONNX whose matrices and embeddings have 8 bits, with a scale for each channel; onnxruntime
    quantizes activations as they are computed. What that costs is stated in export.json."""

    summary = "ONNX with weights of 8 bits"
    tolerance = None

    def write(self, one: PassGraph, path: Path) -> None:
        """See `GraphFormat`."""
        from onnxruntime.quantization import QuantType, quantize_dynamic

        whole = path.with_suffix(".float.onnx")
        super().write(one, whole)
        quantize_dynamic(
            whole,
            path,
            op_types_to_quantize=["MatMul", "Gemm", "Gather"],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
        whole.unlink()
