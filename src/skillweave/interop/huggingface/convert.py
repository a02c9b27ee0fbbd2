"""Hugging Face's models to ours and back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from skillweave.config import ConfigError, choose
from skillweave.interop.huggingface.checkpoint import Checkpoint, saved_names, stream_shards
from skillweave.interop.huggingface.engine import Step, covered, give, listed, plan, take
from skillweave.interop.huggingface.export_checks import Fit, find_family
from skillweave.interop.huggingface.families import FAMILIES
from skillweave.interop.huggingface.family import Family, Head
from skillweave.interop.huggingface.generation_settings import set_search
from skillweave.interop.huggingface.hub import hub_folder
from skillweave.interop.huggingface.processor_files import pooling_left, read_beside, write_beside
from skillweave.interop.huggingface.tokens import token_numbers
from skillweave.model.config import ModelConfig
from skillweave.model.folders import CONFIG_FILE, model_folder
from skillweave.model.model import Model
from skillweave.weights.adapters import is_tuned, read_state, weights_file
from skillweave.weights.files import (
    FILE,
    SCALE,
    About,
    WeightsError,
    list_weights,
    read_assets,
    require_equal,
    stream_weights,
)

SHARD = 5 * 2**30
"""Bytes of a file of theirs, at most."""
LEGACY = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
"""Names of the first BERT checkpoints."""


class Conversion(NamedTuple):
    """A model of ours whose weights are still on the meta device, and how each is made of theirs.

    `names`: theirs as the rules have it → as it is. `read`: one of theirs, by the rules' name.
    """

    model: Model
    steps: list[Step]
    names: Mapping[str, str]
    read: Callable[[str], Tensor]
    where: str

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Our weights by name, each read when it is asked for. Raises WeightsError for one of the
        wrong shape."""
        shapes = {name: x.shape for name, x in self.model.state_dict().items()}
        for step in self.steps:
            try:
                yield step.ours, take(step, self.read, shapes[step.ours])
            except WeightsError as error:
                raise WeightsError(f"{self.where}: {error}") from None

    def filled(self) -> Model:
        """The model with its weights, in evaluation mode."""
        self.model.load_state_dict(dict(self.weights()), assign=True)
        return self.model.eval()


def from_hf(source: Any, config: Any = None) -> Model:
    """Our model of one of Hugging Face's, in its precision, ready for inference.

    `source`: a model of transformers, a folder that `save_pretrained` wrote, the name of a model of
    the hub (`org/name`), or a mapping of weights by name with its `config`. Raises ConfigError for
    a family or an option that has no counterpart here, and for a tokeniser that has more pieces
    than the model has words; WeightsError that names missing, unexpected or wrongly shaped weights.
    """
    if isinstance(source, str | Path):
        folder = hub_folder(source)
        found = _open_folder(folder, Checkpoint(folder), config)
    else:
        state: Mapping[str, Tensor] = source if isinstance(source, Mapping) else source.state_dict()
        config = config or getattr(source, "config", None)
        if config is None:
            raise ConfigError(
                "weights by name need the configuration that they belong to: from_hf(state,"
                " config=...)"
            )
        name = type(source).__name__
        architecture = None if isinstance(source, Mapping) else name
        found = _open(config, architecture, state, lambda name: state[name].detach().clone(), name)
    return found.filled()


def _open_folder(folder: Path, checkpoint: Checkpoint, config: Any = None) -> Conversion:
    return _open(
        config or _read_config(folder), None, checkpoint, checkpoint.read, str(folder), folder
    )


def _open(
    config: Any,
    architecture: str | None,
    names: Iterable[str],
    read: Callable[[str], Tensor],
    where: str,
    folder: Path | None = None,
) -> Conversion:
    """The model that a configuration of theirs describes, once weights of these names are known to
    fit it.

    `folder`: where its tokeniser lies, if anywhere.
    """
    family, head = _family(config, architecture)
    canonical = _canonical(names, family.base, head.base)
    if head.optional and not _has_head(head, canonical):
        head = head.bare()
    described, assets = family.read(config, head), {}
    if folder is not None:
        described, assets = read_beside(
            folder, described, getattr(config, "decoder_start_token_id", None)
        )
    with torch.device("meta"):
        model = Model(described, assets)
    return match(model, family, head, canonical, read, where)


def to_hf(model: Model, family: str | None = None) -> Any:
    """The model of Hugging Face's transformers that computes the same, in evaluation mode.

    `family`: their `model_type`; absent, the one that can express the configuration. Raises
    ConfigError that names the options which it cannot express.
    """
    fit = find_family(model.config, family)
    found, head, theirs = fit.family, fit.head, _build(fit, model)
    wanted, ours = theirs.state_dict(), _by_kind(model)
    canonical = _canonical(wanted, found.base, head.base)
    shapes = {name: wanted[own].shape for name, own in canonical.items()}
    made = give(plan(found.all_rules(head), ours, shapes, model.config.encoder.heads), ours, shapes)
    made |= {
        alias: made[name]
        for alias, name in head.tied.items()
        if alias in shapes and alias not in made
    }
    theirs = theirs.to(next(iter(ours.values())).dtype)
    theirs.load_state_dict(
        {own: made[name] for name, own in canonical.items() if name in made}, strict=True
    )
    return theirs.eval()


def convert_folder(model_path: str | Path, out: Path, family: str | None = None) -> str:
    """Write a model of theirs, a folder's or the hub's, as ours, or one of ours (or a run) as
    theirs; what was done, in a line.

    Raises ConfigError and WeightsError as `from_hf` and `to_hf` do.
    """
    folder = hub_folder(model_path)
    if is_theirs(folder):
        if family:
            raise ConfigError(
                f"{folder} is Hugging Face's already, so there is no family to choose; leave"
                " --family out"
            )
        return _write_ours(folder, out)
    return _write_theirs(model_folder(folder), out, family)


def _write_ours(folder: Path, out: Path) -> str:
    """A model folder of theirs as ours, a tensor at a time."""
    checkpoint = Checkpoint(folder)
    found = _open_folder(folder, checkpoint)
    shapes = {name: x.shape for name, x in found.model.state_dict().items()}
    about = {
        step.ours: About(checkpoint.dtype(found.names[step.theirs[0]]), shapes[step.ours])
        for step in found.steps
    }
    out.mkdir(parents=True, exist_ok=True)
    stream_weights(about, found.weights(), out / FILE)
    found.model.save_description(out)
    written = (
        f"{out} is written: {found.model.count_parameters():,} parameters, task"
        f" {next(iter(found.model.config.tasks))}"
    )
    return written + pooling_left(folder)


def _write_theirs(folder: Path, out: Path, family: str | None = None, most: int = SHARD) -> str:
    """A model folder of ours as theirs, some tensors at a time. `most`: bytes of a file, unless one
    tensor alone has more."""
    config = ModelConfig.from_file(folder / CONFIG_FILE)
    with torch.device("meta"):
        model = Model(config, read_assets(folder))
        fit = find_family(config, family)
        theirs = _build(fit, model)
    if config.sliced:
        model.drop_idle()
    file, state = weights_file(folder), model.state_dict()
    stored = list_weights(file)
    if not is_tuned(folder) and (
        strange := [name for name in stored if not {name, name.removesuffix(SCALE)} & state.keys()]
    ):
        raise WeightsError(f"{file} does not fit its configuration; unexpected: {listed(strange)}")
    types = set(stored.values())
    dtype = types.pop() if len(types) == 1 and not is_tuned(folder) else torch.float32
    wanted, ours = saved_names(theirs), _by_kind(model)
    canonical = _canonical(wanted, fit.family.base, fit.head.base)
    own = dict(zip(ours, state, strict=True))
    shapes = {name: wanted[saved].shape for name, saved in canonical.items()}
    groups: dict[tuple[str, ...], list[Step]] = {}  # what is made of one stack is made at once
    for step in plan(fit.family.all_rules(fit.head), ours, shapes, config.encoder.heads):
        groups.setdefault(step.theirs, []).append(step)

    def read(name: str) -> Tensor:
        given = read_state(folder, state, [name])
        require_equal({name: state[name]}, given, str(file))
        return given[name].to(dtype)

    def made() -> Iterator[tuple[str, Tensor]]:
        for steps in groups.values():
            given = {step.ours: read(own[step.ours]) for step in steps}
            yield from ((canonical[name], x) for name, x in give(steps, given, shapes).items())

    out.mkdir(parents=True, exist_ok=True)
    stream_shards(
        {canonical[name]: About(dtype, shapes[name]) for names in groups for name in names},
        made(),
        out,
        most,
    )
    theirs.config.dtype = dtype
    theirs.config.save_pretrained(out)
    if theirs.can_generate():
        theirs.generation_config.save_pretrained(out)
    write_beside(model, out, fit.family.model_type)
    return f"{out} is written: {fit.architecture}"


def _build(fit: Fit, model: Model) -> Any:
    """A model of theirs, with the numbers of our special tokens and the way that answers are
    searched for."""
    import transformers

    kind, numbers = (
        getattr(transformers, fit.architecture),
        token_numbers(model.config, model.assets),
    )
    padding, wanted = numbers.get("pad_token_id"), fit.options.get("pad_token_id")
    if padding is not None and wanted is not None and padding != wanted:
        fault = (
            f"finds positions by padding, which must be piece {wanted} of the tokeniser and is"
            f" piece {padding}"
        )
        remedy = f"train with its own tokeniser, or with `position_offset: {padding + 1}`"
        raise ConfigError(f"family {fit.family.model_type!r} {fault}; {remedy}")
    nested = "text_config" if "text_config" in fit.options else None  # CLIP's
    options: dict[str, Any] = fit.options if nested else numbers | fit.options
    if nested:
        options = {**options, nested: numbers | options[nested]}
    if names := options.get("id2label"):
        options["label2id"] = {name: number for number, name in names.items()}
    theirs = kind(kind.config_class(**options, architectures=[fit.architecture]), **fit.flags)
    set_search(theirs, model.config)
    return theirs


def is_theirs(folder: Path) -> bool:
    """Whether a folder holds a model of Hugging Face's. Raises ConfigError for a description that
    cannot be read."""
    return (folder / CONFIG_FILE).is_file() and "model_type" in _read_description(folder)


def correspondence(model: Model, theirs: Any) -> tuple[list[Step], dict[str, str]]:
    """How each of our weights is made of those of a model of theirs, by the rules' names, and their
    own name of each."""
    family, head = _family(theirs.config, type(theirs).__name__)
    canonical = _canonical(theirs.state_dict(), family.base, head.base)
    return (
        plan(family.all_rules(head), _by_kind(model), canonical, model.config.encoder.heads),
        canonical,
    )


def _by_kind(model: Model) -> dict[str, Tensor]:
    """Our weights, those of targets under the name of their kind."""
    kinds = {
        f"targets.{name}.": f"targets.{target.kind}."
        for name, target in model.config.targets.items()
    }
    return {_renamed(name, kinds): x for name, x in model.state_dict().items()}


def _read_config(folder: Path) -> Any:
    """Their configuration. Raises ConfigError when there is none or its family is not known."""
    import transformers

    data = _read_description(folder)
    if "model_type" not in data:
        what = "no model_type, so it is not a configuration of Hugging Face's"
        raise ConfigError(f"{folder / CONFIG_FILE}: {what}; known: {', '.join(FAMILIES)}")
    choose(FAMILIES, data["model_type"], "family")
    return transformers.AutoConfig.for_model(**data)


def _read_description(folder: Path) -> dict[str, Any]:
    """What a folder's config.json says. Raises ConfigError when it is not there or says nothing by
    name."""
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise ConfigError(
            f"{folder}: no {CONFIG_FILE} there; give a model folder of Hugging Face's"
        )
    try:
        data = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file}: not valid JSON ({error}); fetch or save it again") from None
    if not isinstance(data, dict):
        raise ConfigError(
            f"{file}: expected a JSON object such as transformers writes, not {type(data).__name__}"
        )
    return data


def _family(config: Any, architecture: str | None) -> tuple[Family, Head]:
    family = choose(FAMILIES, config.model_type, "family")
    name = architecture or next(iter(config.architectures or []), "")
    if not name:
        raise ConfigError(
            'the configuration names no architecture; write "architectures": [one of'
            f" {', '.join(family.heads)}] in it"
        )
    head = choose(family.heads, name, f"architecture of family {family.model_type!r}")
    return head.family or family, head


def _canonical(names: Iterable[str], base: str, own: str = "") -> dict[str, str]:
    """Each name as the rules have it, with the family's base before it → the name as it is.

    `own`: what an architecture writes for the base, if it is another.
    """
    given = {re.sub(f"^{re.escape(own)}", base, name) if own else name: name for name in names}
    bare = base and not any(name.startswith(base) for name in given)
    return {
        (base if bare else "") + _renamed(name, LEGACY): own_name
        for name, own_name in given.items()
    }


def _has_head(head: Head, names: Collection[str]) -> bool:
    return covered(head.rules, names) > 0


def _renamed(name: str, parts: Mapping[str, str]) -> str:
    for old, new in parts.items():
        name = name.replace(old, new)
    return name


def match(
    model: Model,
    family: Family,
    head: Head,
    canonical: dict[str, str],
    read: Callable[[str], Tensor],
    where: str,
) -> Conversion:
    """How a model on the meta device gets its weights. Raises WeightsError that names what does not
    fit."""
    steps = plan(family.all_rules(head), model.state_dict(), canonical, model.config.encoder.heads)
    _adopt_aliases(steps, head, canonical)
    needed = {name for step in steps for name in step.theirs}
    _require_complete(needed, family, head, canonical, where)

    def fetch(name: str) -> Tensor:
        return read(canonical[name])

    for alias, name in head.tied.items():
        if alias in canonical and alias not in needed and canonical[alias] != canonical[name]:
            _require_tied(alias, name, fetch, where)
    return Conversion(model, steps, canonical, fetch, where)


def _adopt_aliases(steps: list[Step], head: Head, canonical: dict[str, str]) -> None:
    """Of tied tensors a file may hold any one: it stands for the one that the rules ask for."""
    needed = {name for step in steps for name in step.theirs}
    for alias, name in head.tied.items():
        if name in needed and name not in canonical and alias in canonical:
            canonical[name] = canonical[alias]


def _require_complete(
    needed: Collection[str], family: Family, head: Head, canonical: Mapping[str, str], where: str
) -> None:
    missing = set(needed) - set(canonical)
    unexpected = {
        name
        for name in set(canonical) - set(needed) - set(head.tied)
        if not name.startswith(head.unused)
        and not any(re.search(one, name) for one in family.ignored)
    }
    if not missing and not unexpected:
        return
    faults = [
        f"{what}: {listed(some)}"
        for what, some in (("missing", missing), ("unexpected", unexpected))
        if some
    ]
    likely = max(FAMILIES.values(), key=lambda one: _coverage(one, canonical.values()))
    hint = ""
    if _coverage(likely, canonical.values()) > 2 * _coverage(family, canonical.values()):
        hint = f"; the names are those of family {likely.model_type!r}"
    raise WeightsError(
        f"{where} does not fit family {family.model_type!r}: " + "; ".join(faults) + hint
    )


def _coverage(family: Family, names: Collection[str]) -> int:
    """How many of a checkpoint's names a family knows."""
    return covered(family.rules, _canonical(names, family.base))


def _require_tied(alias: str, name: str, fetch: Callable[[str], Tensor], where: str) -> None:
    if not torch.equal(fetch(alias), fetch(name)):
        remedy = (
            "this head can only be tied; tie the weights and save the model again, or set"
            " tie_word_embeddings to false"
        )
        raise WeightsError(f"{where}: {alias} is tied to {name}, but differs from it; {remedy}")
