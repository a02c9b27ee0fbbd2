"""Models that are kept in folders: a configuration, weights, and the files that belong to them."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Self

from torch import Tensor, nn

from skillweave.config import ConfigError, choose
from skillweave.config.streams import ASSETS_FOLDER
from skillweave.model.config import ModelConfig, ModelTask
from skillweave.model.folders import CONFIG_FILE
from skillweave.storage import add_checksums, verify, write_json
from skillweave.weights.adapters import Adapter, read_state, weights_file
from skillweave.weights.files import FILE, STORED, pack, read_assets, require_equal, write_weights
from skillweave.weights.meta import meta_device


class Pretrained(nn.Module, ABC):
    """A module that its configuration describes whole, with what writes and reads it.

    `assets`: files that belong to the model, such as tokenizers, by name; they are saved beside the
    weights, so that a model folder alone can encode raw files.
    """

    def __init__(self, config: ModelConfig, assets: Mapping[str, bytes] | None = None) -> None:
        super().__init__()
        self.config = config
        self.assets = dict(assets or {})

    @abstractmethod
    def active_parameters(self, tasks: str | Collection[str]) -> list[str]:
        """Names of the parameters that any of the tasks activates. Raises ConfigError for a task
        the model never had."""

    def drop_idle(self) -> None:
        """Drop the parameters that no task activates. Gates that pick experts must have their
        weights."""
        active = set(self.active_parameters(self.config.tasks))
        for name in [name for name, _ in self.named_parameters() if name not in active]:
            path, _, own = name.rpartition(".")
            self.get_submodule(path).register_parameter(own, None)

    def save_pretrained(
        self,
        folder: str | Path,
        stored: str = "float32",
        state: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Write config.json, model.safetensors, the assets and their checksums into a folder, made
        if absent.

        `stored`: `float32` (as they are), `bf16` or `int8`, of which only the file is smaller: see
        `weights.pack`. `state`: the weights, if they are not those that the model has now.
        """
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        write_weights(
            pack(
                self.state_dict() if state is None else state,
                choose({s: s for s in STORED}, stored, "way to store weights"),
            ),
            path / FILE,
            {"format": "pt"},
        )
        self.save_description(path)

    def save_description(self, path: Path) -> None:
        """Write config.json and the assets into a folder that may hold the weights, and the
        checksums of all these files."""
        config = self.config.model_copy(update={"streams": self.config.streams.saved()})
        write_json(path / CONFIG_FILE, config.model_dump(mode="json"))
        for name, content in self.assets.items():
            (path / ASSETS_FOLDER).mkdir(exist_ok=True)
            (path / ASSETS_FOLDER / name).write_bytes(content)
        weights = [FILE] if (path / FILE).is_file() else []
        add_checksums(path, [*weights, CONFIG_FILE, *(f"{ASSETS_FOLDER}/{n}" for n in self.assets)])

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, tasks: str | Collection[str] | None = None
    ) -> Self:
        """Read a folder that `save_pretrained` wrote, or a tuned model's, its base with what was
        tuned; or no more of it than what `tasks` activate.

        Raises ConfigError or WeightsError that says what does not fit, ConfigError for a task the
        model never had, Damaged for a file with another checksum than it was saved with. To check
        the weights they must all be read, so with `tasks` they are not checked.
        """
        path = Path(folder)
        verify(path, but=() if tasks is None else [weights_file(path).name])
        if not (path / CONFIG_FILE).is_file():
            raise ConfigError(
                f"{path}: no {CONFIG_FILE} there; give a model folder such as runs/NAME/best"
            )
        whole = ModelConfig.from_file(path / CONFIG_FILE)
        config = whole if tasks is None else whole.restricted(tasks)
        # no memory and no random numbers for weights that are about to be read
        with meta_device():
            model = cls(config, read_assets(path, whole.asset_names - config.asset_names))
        if config.sliced:
            if gates := [name for name in model.state_dict() if ".route." in name]:
                model._take(path, gates)  # they decide which experts are read
            model.drop_idle()
        model._take(
            path,
            (
                [name for name, x in model.state_dict().items() if x.is_meta]
                if config.sliced
                else None
            ),
        )
        return model.eval()

    def _take(self, folder: Path, names: Collection[str] | None) -> None:
        """Read parameters, all of the folder's or only `names`; all must fit."""
        own = self.state_dict()
        given = read_state(folder, own, names)
        require_equal(
            own if names is None else {name: own[name] for name in names},
            given,
            str(weights_file(folder)),
        )
        self.load_state_dict(
            {name: x.to(own[name].dtype) for name, x in given.items()}, strict=False, assign=True
        )

    def with_tuning(self, folder: str | Path) -> Self:
        """The tuned model of a folder, for inference: it holds what tuning changed and shares this
        model's other weights.

        Raises WeightsError when it was tuned on other weights than this model's.
        """
        path = Path(folder)
        verify(path)
        adapter = Adapter.read(path)
        with meta_device():
            tuned = type(self)(ModelConfig.from_file(path / CONFIG_FILE), read_assets(path))
        own, base = tuned.state_dict(), self.state_dict()
        adapter.require(base, own)
        state = adapter.apply(base, own)
        require_equal(own, state, str(weights_file(path)))
        tuned.load_state_dict(state, assign=True)
        return tuned.eval().requires_grad_(False)

    def with_tasks(self, tasks: Mapping[str, ModelTask]) -> Self:
        """This model with more tasks, which it was not trained on: the same parameters, not copies.

        Raises ConfigError for a task whose streams or targets the model lacks.
        """
        model = copy.copy(self)
        model.config = self.config.changed(tasks={**self.config.tasks, **tasks})
        return model
