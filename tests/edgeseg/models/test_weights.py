"""Weights from files: published ones, our own, and every refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.networks import tiny_network
from support.published import ESPNET, ESPNETV2, Published
from torch import nn

from edgeseg.errors import InputError
from edgeseg.models import create
from edgeseg.models.network import SegmentationNetwork
from edgeseg.models.weights import load_weights


def same(first: SegmentationNetwork, second: SegmentationNetwork) -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.state_dict().items())


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def refusal(network: SegmentationNetwork, path: Path) -> str:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_weights(network, path)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("published", [ESPNET, ESPNETV2], ids=["espnet", "espnetv2"])
def test_published_tensors_all_find_their_place(published: Published, shared: Path) -> None:
    network = published.load(shared)
    state = torch.load(published.weights_file(shared), map_location="cpu", weights_only=True)
    theirs = sorted(float(v.double().sum()) for n, v in state.items() if not n.endswith("num_batches_tracked"))
    ours = sorted(
        float(v.double().sum()) for n, v in network.state_dict().items() if not n.endswith("num_batches_tracked")
    )
    assert theirs == ours


@pytest.mark.parametrize("key", [None, "network"])
def test_own_checkpoints(key: str | None, tmp_path: Path) -> None:
    trained, fresh = tiny_network(seed=1), tiny_network(seed=2)
    state = trained.state_dict()
    path = saved(state if key is None else {key: state, "epoch": 3, "ema": None}, tmp_path / "best.pt")
    load_weights(fresh, path)
    assert same(trained, fresh)


def test_moving_average_is_preferred(tmp_path: Path) -> None:
    trained, averaged, fresh = (tiny_network(seed=seed) for seed in (1, 2, 3))
    path = saved({"network": trained.state_dict(), "ema": averaged.state_dict()}, tmp_path / "best.pt")
    load_weights(fresh, path)
    assert same(averaged, fresh)


def test_deployed_checkpoint_without_auxiliary_heads(tmp_path: Path) -> None:
    trained, fresh = tiny_network(seed=1), tiny_network(seed=2)
    state = trained.state_dict()
    deployed = {name: value for name, value in state.items() if not name.startswith("auxiliary.")}
    kept = fresh.auxiliary[0].weight.clone()
    load_weights(fresh, saved(deployed, tmp_path / "deployed.pt"))
    assert torch.equal(fresh.head.weight, trained.head.weight)
    assert torch.equal(fresh.auxiliary[0].weight, kept)
    del state["auxiliary.0.bias"]
    assert "1 missing (auxiliary.0.bias)" in refusal(fresh, saved(state, tmp_path / "half.pt"))


def test_old_files_lack_the_counters_of_batchnorm(tmp_path: Path) -> None:
    trained, fresh = tiny_network(seed=1), tiny_network(seed=2)
    for network in (trained, fresh):
        network.auxiliary[0] = nn.Sequential(nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4))
    state = {name: value for name, value in trained.state_dict().items() if not name.endswith("num_batches_tracked")}
    load_weights(fresh, saved(state, tmp_path / "old.pt"))
    assert same(trained, fresh)


def test_names_the_tensors_of_another_network(tmp_path: Path) -> None:
    network = tiny_network(classes=4)
    state = tiny_network(classes=5).state_dict()
    state["extra.weight"] = state.pop("stem.0.weight")
    said = refusal(network, saved(state, tmp_path / "other.pt"))
    assert "weights of this TinyNetwork with 4 classes: 1 missing (stem.0.weight); " in said
    assert "1 left over (extra.weight); 4 of another shape (auxiliary.0.weight 5x8x1x1 where 4x8x1x1 is exp" in said
    assert " and 1 more)" in said


def test_published_weights_of_another_network(shared: Path) -> None:
    said = refusal(create("espnet", q=3, classes=12), ESPNET.weights_file(shared))
    assert "left over (level3.3.reduce.weight" in said
    assert "missing" not in said
    said = refusal(create("espnet", classes=19), ESPNET.weights_file(shared))
    assert "of another shape (score3.conv.weight 12x256x1x1 where 19x256x1x1 is expected" in said
    said = refusal(create("espnetv2", width=0.5), ESPNET.weights_file(shared))
    assert "missing (" in said
    assert "left over (" in said


class Code:
    """Would run when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this must not run",)


def test_code_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(tiny_network(), saved({"network": Code()}, tmp_path / "code.pt"))
    assert "holds Python objects that could run code, expected tensors alone" in said
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", bytes(range(256)), b"PK\x03\x04" + bytes(40)])
def test_no_checkpoint(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    path.write_bytes(content)
    assert "is no file of torch.save, or it is truncated; fetch it again" in refusal(tiny_network(), path)


@pytest.mark.parametrize("share", [0.2, 0.7, 0.99])
def test_truncated(share: float, tmp_path: Path) -> None:
    path = saved(tiny_network().state_dict(), tmp_path / "whole.pt")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "or it is truncated" in refusal(tiny_network(), path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "but it holds an object of type list"),
        ({}, "but it holds an empty dict"),
        ({"network": {}}, "but it holds an empty dict"),
        ({"model": {"a": torch.zeros(1)}}, "but it maps 'model' to an object of type dict, not to a tensor; give"),
        ({3: torch.zeros(1)}, "but it maps 3 to an object of type Tensor"),
    ],
)
def test_no_state_dict(content: Any, said: str, tmp_path: Path) -> None:
    assert said in refusal(tiny_network(), saved(content, tmp_path / "other.pt"))


def test_no_file(tmp_path: Path) -> None:
    assert "is no file; check the name" in refusal(tiny_network(), tmp_path / "absent.pt")
    assert "is no file; check the name" in refusal(tiny_network(), tmp_path)
