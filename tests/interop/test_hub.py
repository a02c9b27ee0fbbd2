"""Models on the hub, which is a folder here."""

import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import RepositoryNotFoundError
from tiny_run import make_run

import skillweave as sw
from skillweave import cli
from skillweave.interop import hub
from skillweave.storage import Damaged

REPO = "somebody/model"


class LocalHub:
    """The part of HfApi that is used, and snapshot_download, on a folder for each commit."""

    def __init__(self, root: Path) -> None:
        self.root, self.private, self.reachable = root, {}, True

    def commits(self, repo: str) -> list[Path]:
        return sorted((self.root / repo).glob("*"))

    def create_repo(self, repo: str, private: bool, exist_ok: bool) -> None:
        assert exist_ok
        self.private.setdefault(repo, private)

    def upload_folder(self, repo_id: str, folder_path: str, commit_message: str):
        assert repo_id in self.private and commit_message
        commit = f"{len(self.commits(repo_id)):040d}"
        shutil.copytree(folder_path, self.root / repo_id / commit)
        return SimpleNamespace(oid=commit)

    def find(self, repo: str, revision: str | None) -> Path:
        if not self.commits(repo):
            told = SimpleNamespace(headers={}, request=None)
            raise RepositoryNotFoundError(f"404: no {repo}", response=told)
        return self.root / repo / revision if revision else self.commits(repo)[-1]

    def model_info(self, repo: str, revision: str | None, files_metadata: bool):
        if not self.reachable:
            raise ConnectionError("no network")
        folder, weights = self.find(repo, revision), "model.safetensors"
        digest = hashlib.sha256((folder / weights).read_bytes()).hexdigest()
        large = SimpleNamespace(rfilename=weights, lfs=SimpleNamespace(sha256=digest))
        small = SimpleNamespace(rfilename="config.json", lfs=None)
        return SimpleNamespace(sha=folder.name, siblings=[large, small])

    def snapshot_download(self, repo: str, revision=None, allow_patterns=None, **options) -> str:
        assert self.reachable or options["local_files_only"]
        return str(self.find(repo, revision))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("hub"))


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalHub:
    local = LocalHub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: local)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", local.snapshot_download)
    monkeypatch.chdir(tmp_path)
    return local


def same(one: sw.Model, other: sw.Model) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_push_then_load_by_id_and_by_commit(run: Path, local: LocalHub, capsys) -> None:
    assert cli.main(["push", str(run), REPO]) == 0
    (first,) = local.commits(REPO)
    assert f'sw.load("{REPO}@{first.name}")' in capsys.readouterr().out
    assert local.private == {REPO: True}
    names = {file.relative_to(first).as_posix() for file in first.rglob("*") if file.is_file()}
    assert {"README.md", "config.json", "model.safetensors", "SHA256SUMS"} <= names
    assert not names & {"recipe.yaml", "metrics.jsonl", "optimizer.safetensors"}
    assert f"# {REPO}" in (first / "README.md").read_text("utf-8")
    model = sw.load(run)
    assert same(sw.load(REPO), model)
    other = sw.load(run)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    other.save_pretrained("other")
    assert cli.main(["push", "other", REPO, "--message", "second"]) == 0
    assert same(sw.load(REPO), other)
    assert same(sw.load(f"{REPO}@{first.name}"), model)
    assert sw.load(REPO, tasks=["text_to_image"]).config.tasks.keys() == {"text_to_image"}


def test_pull_copies_a_checked_model(run: Path, local: LocalHub, tmp_path: Path, capsys) -> None:
    hub.push(run / "best", REPO)
    assert cli.main(["pull", REPO, "--out", "copy"]) == 0
    assert same(sw.load("copy"), sw.load(run))
    assert "checksums are right" in capsys.readouterr().out
    assert cli.main(["pull", REPO, "--out", "copy"]) == 2


def test_a_model_of_the_hub_is_a_start(run: Path, local: LocalHub) -> None:
    from skillweave.model.folders import own_folder

    hub.push(run / "best", REPO)
    assert same(sw.Model.from_pretrained(own_folder(REPO)), sw.load(run))


def test_without_a_network_the_cache_is_used(run: Path, local: LocalHub) -> None:
    hub.push(run / "best", REPO)
    local.reachable = False
    assert same(sw.Model.from_pretrained(hub.pull(REPO)), sw.load(run))


@pytest.mark.parametrize("change", ["weights", "hub", "no checksums"])
def test_damaged_files_are_refused(change: str, run: Path, local: LocalHub, monkeypatch) -> None:
    hub.push(run / "best", REPO)
    (folder,) = local.commits(REPO)
    weights = folder / "model.safetensors"
    if change == "weights":
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    elif change == "hub":  # changed together with the model's own list
        info = local.model_info(REPO, None, True)
        info.siblings[0].lfs.sha256 = "0" * 64
        monkeypatch.setattr(local, "model_info", lambda *words, **options: info)
    else:
        (folder / "SHA256SUMS").unlink()
    with pytest.raises(Damaged, match=r"checksum|cannot be checked"):
        hub.pull(REPO)


def test_what_is_not_there_or_misspelt_is_told(run: Path, local: LocalHub, capsys) -> None:
    with pytest.raises(sw.ConfigError, match="nobody/model: Hugging Face hub: 404"):
        hub.pull("nobody/model")
    assert not hub.is_own("nobody/model")
    for name in ("model", "a/b@main", "a b/c"):
        assert cli.main(["push", str(run), name]) == 2
        assert "a model on the hub is called org/name" in capsys.readouterr().err
