"""peft reads our LoRA adapters."""

import pytest
import torch
from training_recipes import tuning_recipe

import skillweave as sw
from skillweave.training import train

peft = pytest.importorskip("peft")


@pytest.mark.parametrize("target", [None, "mine"])
def test_peft_reads_and_merges_an_adapter_as_we_do(target, tmp_path):
    base = train(tuning_recipe(tmp_path / "base"), quiet=True)
    tasks = ("text_classification",) if target else ("text_classification", "text_to_image")
    run = train(tuning_recipe(tmp_path / "run", tasks, base, "lora", target=target), quiet=True)
    expected = sw.load(run).state_dict()
    plain = sw.Model(sw.load(run).config)
    plain.load_state_dict(
        {name: x for name, x in sw.load(base).state_dict().items() if name in expected},
        strict=False,
    )
    plain.config = {}  # peft looks for a configuration of transformers
    model = peft.PeftModel.from_pretrained(plain, str(run / "last"))
    expert = model.base_model.model.encoder.blocks[0].attention.qkv.experts["text"]
    frozen = sw.load(base).encoder.blocks[0].attention.qkv.experts["text"].weight
    assert torch.equal(expert.weight, frozen), (
        "a bank reads this: peft's layer would have no effect unmerged"
    )
    found = model.merge_and_unload().state_dict()
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        torch.testing.assert_close(found[name], x, msg=name)
