"""ALiBi: the published slopes, and a bias that is really applied. Positions in a picture: where
it stands among other spans. Buckets of DeBERTa. Rotation of a part of each head."""

import math
from typing import Any

import pytest
import torch
from tiny import STREAMS, make_batch, random_batch, random_examples, tiny_config, tiny_model
from transformers import DINOv3ViTConfig
from transformers.models.beit.modeling_beit import BeitRelativePositionBias
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position
from transformers.models.dinov3_vit.modeling_dinov3_vit import DINOv3ViTRopePositionEmbedding
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from skillweave.batch import Layout, Modality, Span
from skillweave.config import ConfigError
from skillweave.layers.position import (
    Disentangled,
    RelativeBias2d,
    Rotary,
    Rotary2d,
    T5Bias,
    alibi_slopes,
    rotate,
)
from skillweave.layers.tokens import map_tokens


@pytest.mark.parametrize("heads", [1, 2, 3, 8, 12, 16, 20])
def test_slopes_are_those_of_bloom(heads: int) -> None:
    # slope times position: 0, then the slope itself
    bias_H1L = build_alibi_tensor(torch.ones(1, 2), heads, torch.float64)
    assert alibi_slopes(heads) == pytest.approx(bias_H1L[:, 0, 1].tolist())


def test_alibi_is_applied_and_has_no_parameters() -> None:
    """With learned positions at nothing, only the bias can tell a text from its words in another
    order."""
    outputs = []
    for kind in ("alibi", "none"):
        config = tiny_config(encoder={"position": {"kind": kind}})
        torch.manual_seed(0)
        model = tiny_model(config)
        assert not any("alibi" in name or "slope" in name for name, _ in model.named_parameters())
        model.get_parameter("embeddings.text.positions.position.table.weight").data.zero_()
        batch = random_batch("classify", [(5,)], config)
        words_NL = batch.inputs[0]
        first = model(batch).logits["classification"]
        words_NL[:, 1:5] = words_NL[:, 1:5].flip(1)
        outputs.append((first - model(batch).logits["classification"]).abs().max().item())
    assert outputs[0] > 1e-6 and outputs[1] < 1e-12


@pytest.mark.parametrize("grid", [(3, 3), (2, 4), (1, 1)])
def test_offsets_of_a_picture_are_those_of_beit(grid: tuple[int, int]) -> None:
    expected = BeitRelativePositionBias.generate_relative_position_index(grid)
    assert torch.equal(RelativeBias2d(2, grid).rows(torch.device("cpu")), expected)


def test_a_pictures_bias_stands_where_the_picture_does() -> None:
    """Between two texts of which one is padded: none for words, and padding is not seen."""
    spans = (
        Span(Modality.TEXT, length=3),
        Span(Modality.IMAGE, length=5),
        Span(Modality.TEXT, length=2),
    )
    tokens = map_tokens(
        Layout("t", spans), 0, torch.tensor([[3, 5, 2], [1, 5, 2]]), torch.device("cpu")
    )
    bias = RelativeBias2d(3, (2, 2))
    mask_NHLL = bias(tokens, torch.zeros((), dtype=torch.float64)).mask
    assert mask_NHLL is not None
    expected = torch.zeros(2, 3, 10, 10, dtype=torch.float64)
    for query in range(5):
        for key in range(5):
            expected[:, :, 3 + query, 3 + key] = bias.table.weight[
                bias.rows(torch.device("cpu"))[query, key]
            ]
    expected[1, :, :, 1:3] = -torch.inf
    assert torch.equal(mask_NHLL, expected)


@pytest.mark.parametrize("per_layer", [False, True])
def test_padding_changes_nothing_beside_a_picture(per_layer: bool) -> None:
    config = tiny_config(
        encoder={"position": {"kind": "relative_2d", "grid": [2, 2], "per_layer": per_layer}}
    )
    model, lengths = tiny_model(config), [[5, 3], [5, 7]]
    examples = random_examples("captioning", lengths, config)
    together = model.hidden(make_batch("captioning", examples, config, bucket=8))[0]
    for i, example in enumerate(examples):
        alone = model.hidden(make_batch("captioning", [example], config, bucket=1))[0][0]
        torch.testing.assert_close(together[i, : sum(lengths[i])], alone)


def test_a_picture_of_another_size() -> None:
    with pytest.raises(
        ConfigError, match=r"position.grid is \(3, 3\), but a picture has 2 × 2 patches"
    ):
        tiny_config(encoder={"position": {"kind": "relative_2d", "grid": [3, 3]}})
    tokens = map_tokens(
        Layout("t", (Span(Modality.IMAGE, length=6),)), 0, torch.tensor([[6]]), torch.device("cpu")
    )
    with pytest.raises(
        ValueError, match=r"a grid of \(2, 2\) patches and \[CLS\], but an image has 6 positions"
    ):
        RelativeBias2d(1, (2, 2))(tokens, torch.zeros(()))


@pytest.mark.parametrize(("buckets", "longest"), [(320, 800), (332, 1000), (8, 6)])
def test_gated_biases_have_the_buckets_of_wavlm(buckets: int, longest: int) -> None:
    theirs = WavLMAttention(4, 2, num_buckets=buckets, max_distance=longest)
    distance = torch.arange(-2000, 2000)
    distance = distance[distance != 0]  # of which theirs takes the logarithm
    found = T5Bias(2, buckets, longest, gated=True).bucket(distance)
    assert torch.equal(found, theirs._relative_positions_bucket(distance))


@pytest.mark.parametrize("grid", [(2, 3), (4, 1)])
def test_only_patches_are_rotated_as_by_dinov3(grid: tuple[int, int]) -> None:
    rows, columns = grid
    config = DINOv3ViTConfig(hidden_size=24, num_attention_heads=3, patch_size=2)
    theirs = DINOv3ViTRopePositionEmbedding(config).eval()
    expected = theirs(torch.zeros(1, 3, 2 * rows, 2 * columns))
    spans = (Span(Modality.TEXT, length=2), Span(Modality.IMAGE, length=rows * columns + 3))
    tokens = map_tokens(
        Layout("t", spans), 0, torch.tensor([[2, spans[1].length]]), torch.device("cpu")
    )
    found = Rotary2d(8, grid).eval()(tokens, torch.zeros(())).rotary
    assert found is not None
    for table, wanted, still in zip(found[:2], expected, (1, 0), strict=True):
        torch.testing.assert_close(table[0, 0, 5:], wanted)
        assert (table[0, 0, :5] == still).all()


def test_augmentation_moves_and_stretches_the_picture() -> None:
    """Its parameters can be read from rows and columns, which it changes alike for all patches."""
    still = Rotary2d(8, (4, 4)).eval().coordinates(torch.device("cpu"))
    moved = Rotary2d(8, (4, 4), shift=0.3, jitter=1.5, rescale=2.0)
    factors, shifts = [], []
    for _ in range(50):
        places = moved.coordinates(torch.device("cpu"))
        factor = (places[-1] - places[0]) / (still[-1] - still[0])
        torch.testing.assert_close(places, still * factor + (places[0] - still[0] * factor))
        factors.append(factor)
        shifts.append((places[0] - still[0] * factor) / factor)
    both, shift = torch.stack(factors), torch.stack(shifts)
    assert both.min() >= 1 / 3 and both.max() <= 3 and (both.max() - both.min()) > 1
    assert ((both[:, 0] / both[:, 1]).log().abs() <= 2 * math.log(1.5) + 1e-6).all()
    assert shift.abs().max() <= 0.3 + 1e-6 and shift.abs().max() > 0.2
    assert torch.equal(moved.eval().coordinates(torch.device("cpu")), still)


@pytest.mark.parametrize(
    ("position", "stream", "told"),
    [
        ("rope_2d", {"embedding": ["visible_patch", "position"]}, "visible_patch leaves some out"),
        ("relative_2d", {"registers": 2}, "a picture has 3 learned tokens"),
    ],
)
def test_pictures_without_places_are_refused(
    position: str, stream: dict[str, Any], told: str
) -> None:
    streams = {**STREAMS, "image": {**STREAMS["image"], **stream}}
    with pytest.raises(ConfigError, match=told):
        tiny_config(
            encoder={"position": {"kind": position, "grid": [2, 2]}}, width=24, streams=streams
        )


def test_layers_differ_only_in_what_is_learned() -> None:
    with pytest.raises(
        ConfigError,
        match="'alibi' has no per_layer, which is an option of 't5_bias', 'relative_2d'",
    ):
        tiny_config(encoder={"position": {"kind": "alibi", "per_layer": True}})
    with pytest.raises(ConfigError, match="both qkv and query_value"):
        tiny_config(encoder={"biases": ["qkv", "query_value"]})


@pytest.mark.parametrize(("buckets", "longest"), [(256, 512), (4, 9), (32, 128)])
def test_buckets_are_those_of_deberta(buckets: int, longest: int) -> None:
    distances = torch.arange(-3 * longest, 3 * longest)
    layer = Disentangled(8, buckets, longest, ("c2p",), None, 0.0)
    expected = make_log_bucket_position(distances, buckets, longest).long()
    assert torch.equal(layer.bucket(distances), expected)


def test_a_part_of_each_head_is_rotated() -> None:
    """The part is rotated as a smaller head, and the rest stays as it is."""
    layout = Layout("a", (Span(Modality.TEXT, length=7),))
    tokens = map_tokens(layout, 0, torch.tensor([[7]]), torch.device("cpu"))
    x = torch.randn(1, 2, 7, 10)
    tables = Rotary(6)(tokens, x).rotary
    assert tables is not None
    found = rotate(x, tables)
    assert torch.equal(found[..., 6:], x[..., 6:])
    assert torch.equal(found[..., :6], rotate(x[..., :6], tables))
    torch.testing.assert_close(found.norm(dim=-1), x.norm(dim=-1))
