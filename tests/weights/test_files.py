"""Weights in and out of files, and errors that name what does not fit."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from skillweave.weights.files import (
    About,
    WeightsError,
    compare,
    pack,
    read_assets,
    read_weights,
    require_equal,
    stream_weights,
    write_weights,
)

TENSORS = {"a": torch.randn(3, 4), "b": torch.arange(5), "c": torch.randn(6, 2).T}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_weights(TENSORS, tmp_path / "w.safetensors", {"format": "pt"})
    return tmp_path / "w.safetensors"


def test_round_trip(file: Path) -> None:
    found = read_weights(file)
    assert set(found) == set(TENSORS)
    assert all(
        torch.equal(found[name], x) and found[name].dtype == x.dtype for name, x in TENSORS.items()
    )


def test_a_slice(file: Path) -> None:
    assert set(read_weights(file, ["a", "c"])) == {"a", "c"}
    with pytest.raises(WeightsError, match=r"lacks d, e \(2 in all\)"):
        read_weights(file, ["a", "e", "d"])


def test_absent_and_broken_files(file: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        read_weights(tmp_path / "absent.safetensors")
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        read_weights(file)
    file.write_bytes(b"")
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        read_weights(file)


@pytest.mark.parametrize(
    "changes",
    [
        {"b": {"data_offsets": [-8, 32]}},
        {"b": {"data_offsets": [8, 48]}},  # overlaps another tensor
        {"a": {"shape": [-3, -4]}},
        {"a": {"shape": [2, 4]}},
        {"a": {"dtype": "F64"}},
        {"a": {"data_offsets": [48, 0]}},
    ],
)
def test_tensors_that_do_not_lie_one_behind_the_other_are_refused(
    file: Path, changes: dict[str, dict[str, object]]
) -> None:
    content = file.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    for name, change in changes.items():
        header[name] |= change
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[begin:])
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        read_weights(file)


def test_integers_in_place_of_weights_are_refused() -> None:
    with pytest.raises(WeightsError, match=r"integers: a \(torch.int32\)"):
        require_equal({"a": torch.zeros(2)}, {"a": torch.zeros(2, dtype=torch.int32)}, "x")


def test_differences_are_named() -> None:
    given = {"a": torch.zeros(4, 3), "b": TENSORS["b"], "z": torch.zeros(1)}
    assert compare(TENSORS, given) == (["c"], ["z"], ["a is (4, 3), expected (3, 4)"])
    with pytest.raises(WeightsError) as error:
        require_equal(TENSORS, given, "x.safetensors")
    assert (
        str(error.value)
        == "x.safetensors does not fit its configuration; missing: c; unexpected: z; wrong shape: a"
        " is (4, 3), expected (3, 4)"
    )
    require_equal(TENSORS, dict(TENSORS), "x")


def test_long_lists_are_cut() -> None:
    with pytest.raises(WeightsError, match=r"missing: a, b, c, d, e and 2 more$"):
        require_equal({name: torch.zeros(1) for name in "abcdefg"}, {}, "x")


def test_assets(tmp_path: Path) -> None:
    assert read_assets(tmp_path) == {}
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "t.json").write_bytes(b"{}")
    assert read_assets(tmp_path) == {"t.json": b"{}"}


def test_int8_rounds_each_channel_by_half_a_step(tmp_path: Path) -> None:
    x = torch.randn(5, 4, 3) * torch.tensor([1e-3, 1.0, 100.0, 1.0, 0.0]).view(-1, 1, 1)
    tensors = {"m": x, "v": torch.randn(7)}
    packed = pack(tensors, "int8")
    assert (
        packed["m"].dtype == torch.int8
        and torch.equal(packed["v"], tensors["v"])
        and set(packed) == {"m", "v", "m.scale"}
    )
    write_weights(packed, tmp_path / "w.safetensors")
    found = read_weights(tmp_path / "w.safetensors")
    assert set(found) == {"m", "v"} and set(read_weights(tmp_path / "w.safetensors", ["m"])) == {
        "m"
    }
    step = x.abs().amax((1, 2)) / 127
    assert ((found["m"] - x).abs() <= step.view(-1, 1, 1) * 0.501).all() and not found["m"][4].any()


def test_bf16_keeps_vectors(tmp_path: Path) -> None:
    write_weights(
        pack({"m": TENSORS["a"], "v": TENSORS["a"][0]}, "bf16"), tmp_path / "w.safetensors"
    )
    found = read_weights(tmp_path / "w.safetensors")
    assert found["m"].dtype == torch.bfloat16 and torch.equal(found["v"], TENSORS["a"][0])
    torch.testing.assert_close(found["m"].float(), TENSORS["a"], rtol=2**-8, atol=0)


def test_what_safetensors_itself_writes_is_read_alike(tmp_path: Path) -> None:
    dtypes = (
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
    )
    tensors = {str(d): torch.ones(2, 3).to(d) for d in dtypes} | {
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
    }
    save_file(tensors, tmp_path / "w.safetensors")
    found = read_weights(tmp_path / "w.safetensors")
    assert all(
        torch.equal(found[n], x) and found[n].dtype == x.dtype for n, x in tensors.items()
    ) and len(found) == len(tensors)


def test_streamed_files_are_those_of_the_library(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 5),
        "b": torch.randn(7).bfloat16(),
        "c": torch.tensor(2),
        "d": torch.randn(2, 4).t(),
    }
    about = {name: About(x.dtype, x.shape) for name, x in tensors.items()}
    stream_weights(about, tensors.items(), tmp_path / "x.safetensors")
    found = load_file(tmp_path / "x.safetensors")
    assert list(tensors) == sorted(found)
    assert all(
        torch.equal(found[name], x) and found[name].dtype == x.dtype for name, x in tensors.items()
    )


def test_a_streamed_tensor_that_is_not_as_announced(tmp_path: Path) -> None:
    about = {"a": About(torch.float32, torch.Size([2]))}
    with pytest.raises(ValueError, match=r"expected a as .* found a as"):
        stream_weights(about, [("a", torch.zeros(3))], tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []
