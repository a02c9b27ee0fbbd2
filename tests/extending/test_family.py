"""A family that another package adds, here in one file: what it says is all that conversion needs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import randomise, relative_error
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

import skillweave as sw
from skillweave.batch import Batch, Layout, Modality, Span
from skillweave.config import ConfigError
from skillweave.interop.huggingface import convert_folder
from skillweave.interop.huggingface.families import FAMILIES
from skillweave.interop.huggingface.family import Family, Head, ProcessorFile, activation, prefixed
from skillweave.interop.huggingface.json_files import read_json, write_json
from skillweave.interop.rules import block_rules, reshaped
from skillweave.model.config import ModelConfig

NOTE = "toy.json"


class ToyConfig(PretrainedConfig):
    model_type = "toy"

    def __init__(self, size: int = 8, depth: int = 2, act: str = "relu", **others: Any) -> None:
        self.size, self.depth, self.act = size, depth, act
        super().__init__(**others)


class ToyLayer(nn.Module):
    """A post-norm block with one head."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.up, self.down = nn.Linear(size, size), nn.Linear(size, size)
        self.first_norm, self.second_norm = nn.LayerNorm(size), nn.LayerNorm(size)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        x = self.first_norm(x + self.out(scaled_dot_product_attention(query, key, value)))
        return self.second_norm(x + self.down(self.up(x).relu()))


class ToyModel(PreTrainedModel):
    """An encoder of words without positions."""

    config_class = ToyConfig
    base_model_prefix = "toy"

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.words = nn.Parameter(torch.empty(1, 41, config.size))
        self.layers = nn.ModuleList(ToyLayer(config.size) for _ in range(config.depth))
        self.post_init()

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.words[0][input_ids]
        for layer in self.layers:
            x = layer(x)
        return x


def read_length(folder: Path, settings: dict[str, Any]) -> None:
    settings["streams"]["text"]["max_length"] = read_json(folder / NOTE).get("length", 512)


def write_length(folder: Path, config: ModelConfig) -> None:
    assert config.streams.text is not None
    write_json(folder / NOTE, {"length": config.streams.text.max_length})


TOY = Family(
    model_type="toy",
    module=__name__,
    prefix="toy.",
    fields={
        "width": "size",
        **prefixed("encoder", layers="depth", feed_forward="size", activation=activation("act")),
    },
    rules={
        "embeddings.text.content.word.weight": reshaped("words"),
        **block_rules(
            "encoder.blocks.{i}",
            "layers.{i}",
            qkv="qkv",
            attention_output="out",
            attention_norm="first_norm",
            inner="up",
            outer="down",
            feed_forward_norm="second_norm",
        ),
    },
    heads={"ToyModel": Head()},
    constants={
        **prefixed("streams.text", vocabulary=41, embedding=["word"], norm=False),
        **prefixed("encoder", heads=1, norm_epsilon=1e-5, dropout=0.0, attention_dropout=0.0),
    },
    processor_files=(ProcessorFile(read_length, write_length),),
)


@pytest.fixture(autouse=True)
def toy() -> Iterator[None]:
    TOY.register()
    AutoConfig.register("toy", ToyConfig)
    yield
    del FAMILIES["toy"]
    CONFIG_MAPPING._extra_content.pop("toy")


def toy_model() -> ToyModel:
    torch.manual_seed(0)
    model = ToyModel(ToyConfig(depth=3)).eval()
    randomise(model)
    return model


def test_it_computes_the_same() -> None:
    theirs = toy_model().double()
    ids = torch.randint(41, (1, 6))
    batch = Batch(Layout("encode", (Span(Modality.TEXT, length=6),)), (ids,), torch.tensor([[6]]))
    found = sw.from_hf(theirs).hidden(batch)[0]
    assert relative_error(found, theirs(ids)) < 1e-9


def test_it_is_converted_both_ways_with_its_own_files(tmp_path: Path) -> None:
    theirs = toy_model()
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="1KB")
    write_json(tmp_path / "theirs" / NOTE, {"length": 77})
    convert_folder(tmp_path / "theirs", tmp_path / "ours")
    model = sw.load(tmp_path / "ours")
    assert model.config.streams.text is not None and model.config.streams.text.max_length == 77
    convert_folder(tmp_path / "ours", tmp_path / "back")
    assert read_json(tmp_path / "back" / NOTE) == {"length": 77}
    back = ToyModel.from_pretrained(tmp_path / "back").state_dict()
    in_memory = sw.to_hf(model)
    assert isinstance(in_memory, ToyModel)
    for name, x in theirs.state_dict().items():
        assert torch.equal(back[name], x) and torch.equal(in_memory.state_dict()[name], x), name


def test_names_are_taken_once() -> None:
    with pytest.raises(ValueError, match="family 'toy' is registered already"):
        TOY.register()
    del FAMILIES["toy"]
    with pytest.raises(ConfigError, match="unknown family 'toy'"):
        sw.from_hf(toy_model())
    TOY.register()
