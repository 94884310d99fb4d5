"""Checkpoints: written whole or not at all, read without running anything, refused by name."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from support.training import equal, network, recipe, register

from edgeseg.errors import ModelError, OutputError
from edgeseg.models.superresolution import SuperResolvedNetwork
from edgeseg.training import checkpoint
from edgeseg.training.checkpoint import FORMAT, load_network, read_checkpoint, restore, save_checkpoint

RECIPE = recipe()


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)


def state(**changes: Any) -> dict[str, Any]:
    return {"recipe": RECIPE.to_dict(), "network": network(RECIPE).state_dict(), "ema": None, **changes}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "last.pt", state())
    return tmp_path / "last.pt"


class TestWrite:
    def test_comes_back(self, path: Path) -> None:
        assert equal(read_checkpoint(path), {"format": FORMAT, **state()})
        assert os.listdir(path.parent) == ["last.pt"]

    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("[enforce fail] x\ny")])
    def test_a_failure_leaves_the_old_one(self, path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
        before = path.read_bytes()

        def fail(value: object, file: Any) -> None:
            file.write(b"half of it")
            raise error

        monkeypatch.setattr(checkpoint.torch, "save", fail)
        with pytest.raises(
            OutputError, match=r"cannot write the checkpoint .*; free space or choose another folder"
        ) as said:
            save_checkpoint(path, state())
        assert "\n" not in str(said.value)
        assert path.read_bytes() == before
        assert os.listdir(path.parent) == ["last.pt"]

    def test_an_interrupt_leaves_the_old_one(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(descriptor: int) -> None:
            raise KeyboardInterrupt

        before = path.read_bytes()
        monkeypatch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(path, state(epoch=2))
        assert path.read_bytes() == before
        assert os.listdir(path.parent) == ["last.pt"]

    def test_a_folder_that_is_gone(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match=r"cannot write the checkpoint .*: No such file or directory; free space"):
            save_checkpoint(tmp_path / "none" / "last.pt", state())

    def test_on_a_disk_that_is_really_full(self, small_disk: Path) -> None:
        place = small_disk / "last.pt"
        save_checkpoint(place, state())
        before = place.read_bytes()
        with pytest.raises(OutputError, match=r"cannot write the checkpoint .*No space left on device; free space"):
            save_checkpoint(place, state(optimizer=torch.zeros(1 << 20)))
        assert place.read_bytes() == before
        assert os.listdir(small_disk) == ["last.pt"]


class Code:
    """Runs a command when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.place),)


class TestRead:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"cannot read the checkpoint .*none.pt: No such file or directory"):
            read_checkpoint(tmp_path / "none.pt")

    @pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
    def test_cut_short(self, path: Path, share: float) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ModelError, match=r"last.pt is not a checkpoint of edgeseg train, or is damaged"):
            read_checkpoint(path)

    @pytest.mark.parametrize("content", [b"text", b"\x80\x04K\x01.", b"PK\x03\x04" + bytes(200), bytes(1000)])
    def test_foreign(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"last.pt is not a checkpoint of edgeseg train"):
            read_checkpoint(path)

    @pytest.mark.parametrize("value", [{"format": "other"}, {"a": torch.zeros(1)}, [1], 3])
    def test_of_another_format(self, path: Path, value: object) -> None:
        torch.save(value, path)
        with pytest.raises(ModelError, match=r"it lacks format edgeseg-checkpoint-1"):
            read_checkpoint(path)

    def test_without_its_parts(self, path: Path) -> None:
        save_checkpoint(path, {"recipe": RECIPE.to_dict()})
        with pytest.raises(ModelError, match="lacks network; train again or name another"):
            read_checkpoint(path)

    @pytest.mark.parametrize("by_torch", [True, False])
    def test_code_is_not_run(self, path: Path, by_torch: bool, tmp_path: Path) -> None:
        value = {"format": FORMAT, "network": Code(tmp_path / "ran")}
        if by_torch:
            torch.save(value, path)
        else:
            path.write_bytes(pickle.dumps(value))
        with pytest.raises(ModelError, match="is not a checkpoint of edgeseg train, or is damaged"):
            read_checkpoint(path)
        assert not (tmp_path / "ran").exists()


class TestLoad:
    def test_the_network_to_deploy(self, path: Path) -> None:
        loaded, made = load_network(path)
        assert made == RECIPE
        assert not loaded.training
        assert equal(dict(loaded.state_dict()), dict(network(RECIPE).state_dict()))

    def test_takes_the_moving_average(self, path: Path) -> None:
        average = {name: value + 1 for name, value in network(RECIPE).state_dict().items()}
        save_checkpoint(path, state(ema=average))
        assert equal(dict(load_network(path)[0].state_dict()), average)

    def test_super_resolved(self, path: Path) -> None:
        made = recipe(dsrl=True, head={"channels": 4})
        save_checkpoint(path, {"recipe": made.to_dict(), "network": network(made).state_dict(), "ema": None})
        loaded, _ = load_network(path)
        assert isinstance(loaded, SuperResolvedNetwork)
        assert loaded(torch.zeros(1, 3, 16, 24)).shape == (1, 4, 32, 48)

    def test_another_network(self, path: Path) -> None:
        weights = network(RECIPE).state_dict()
        weights["head.weight"] = torch.zeros(9, 16, 1, 1)
        weights["strange"] = weights.pop("stem.0.weight")
        save_checkpoint(path, state(network=weights))
        with pytest.raises(ModelError) as error:
            load_network(path)
        assert str(error.value) == (
            f"{path} is of another network: it lacks stem.0.weight; it has beyond it strange; "
            "it has other shapes for head.weight"
        )

    def test_names_three_tensors_of_many(self) -> None:
        with pytest.raises(ModelError, match=r"it lacks \S+, \S+, \S+ and more$"):
            restore(network(RECIPE), {}, "x.pt")

    def test_a_recipe_of_another_version(self, path: Path) -> None:
        save_checkpoint(path, state(recipe={"network": "tinynet", "colour": 1}))
        with pytest.raises(ModelError, match="the checkpoint's recipe cannot be read"):
            load_network(path)
