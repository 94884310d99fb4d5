"""CRF-as-RNN: FCN's scores refined, the frame behind a normalised image, training end to end, what is exported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.costs import count_parameters, meta_network
from support.published import run_onnx
from support.structure import check_sizes, check_training

from edgeseg.converters.export import export
from edgeseg.errors import InputError, OutputError, UsageError
from edgeseg.models import create, create_dsrl
from edgeseg.models.crfasrnn import CRFasRNN
from edgeseg.models.fcn import FCN
from edgeseg.models.weights import load_weights
from edgeseg.refine import LearnedCRF

SMALL = {"width": 0.125, "deploy": True}


def network(classes: int = 5) -> CRFasRNN:
    torch.manual_seed(0)
    made = create("crfasrnn", classes=classes, **SMALL)
    assert isinstance(made, CRFasRNN)
    return made


@pytest.mark.parametrize(("stride", "parameters"), [(8, 134_489_759), (16, 134_815_994), (32, 136_152_917)])
def test_has_the_parameters_of_fcn_and_three_matrices(stride: int, parameters: int) -> None:
    made = meta_network("crfasrnn", classes=21, stride=stride)
    assert count_parameters(made) == parameters + 3 * 21 * 21


def test_any_size() -> None:
    check_sizes("crfasrnn", **SMALL)


def test_training_reaches_every_weight() -> None:
    check_training("crfasrnn", heads=0, **SMALL)


def test_refines_the_scores_of_fcn() -> None:
    made = network().eval()
    image = torch.randn(2, 3, 24, 40)
    assert made.crf is not None
    with torch.inference_mode():
        scores, _ = FCN.encode(made, image)
        frames = image * torch.tensor([58.395, 57.12, 57.375])[:, None, None]
        expected = made.crf(scores, frames + torch.tensor([123.675, 116.28, 103.53])[:, None, None])
        found = made(image)
        assert isinstance(found, torch.Tensor)
        torch.testing.assert_close(found, expected)
        assert not torch.allclose(found, scores, atol=0.1)
        made.crf = None
        assert torch.equal(made(image), scores)


@pytest.mark.parametrize(
    ("mean", "std"),
    [((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)), ((0, 0, 0), (255, 255, 255)), ((110.3, 1, 7), (72, 3, 9))],
)
def test_brings_the_image_back_to_the_frame(
    mean: tuple[float, ...], std: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    seen = []
    monkeypatch.setattr(
        "edgeseg.models.mean_field.message_filters",
        lambda pixels, *_: seen.append(pixels) or [lambda values, transposed=False: values] * 2,
    )
    made = network().eval()
    made.normalised_by(mean, std)
    image = (frame.astype(np.float32) - np.float32(mean)) / np.float32(std)
    made(torch.from_numpy(image.transpose(2, 0, 1)[None]))
    assert np.array_equal(seen[0], frame)


def test_starts_from_fcn(tmp_path: Path) -> None:
    torch.manual_seed(7)
    base = create("fcn", classes=5, **SMALL)
    torch.save(base.state_dict(), tmp_path / "fcn.pt")
    made = network()
    load_weights(made, tmp_path / "fcn.pt")
    state = made.state_dict()
    assert all(torch.equal(state[name], value) for name, value in base.state_dict().items())
    assert torch.equal(state["crf.compatibility"], -torch.eye(5))
    torch.save(state, tmp_path / "crf.pt")
    with pytest.raises(InputError, match=r"3 left over \(crf"):
        load_weights(base, tmp_path / "crf.pt")
    torch.save({name: value for name, value in state.items() if name != "crf.appearance"}, tmp_path / "part.pt")
    with pytest.raises(InputError, match=r"1 missing \(crf.appearance\)"):
        load_weights(made, tmp_path / "part.pt")


def test_takes_no_head_that_super_resolves() -> None:
    with pytest.raises(UsageError, match=r"must have a stride of 2, 4, 8, \.\.\., but it is 1"):
        create_dsrl("crfasrnn", **SMALL)


class TestExport:
    def test_writes_the_network_and_beside_it_the_crf(self, tmp_path: Path) -> None:
        made = network()
        with torch.no_grad():
            assert made.crf is not None
            for parameter in made.crf.parameters():
                parameter += 0.1 * torch.randn(5, 5)
        done = export(made, (32, 48), tmp_path / "net.onnx")
        assert done.crf == tmp_path / "net.crf.json"
        assert done.parameters == count_parameters(create("fcn", classes=5, **SMALL))
        image = torch.randn(1, 3, 32, 48)
        with torch.inference_mode():
            scores = FCN.encode(made.eval(), image)[0].numpy()
        np.testing.assert_allclose(run_onnx(done.path, image.numpy()), scores, atol=1e-4 * np.abs(scores).max())
        found = LearnedCRF.read(done.crf)
        for name in ("appearance", "smoothness", "compatibility"):
            assert np.array_equal(getattr(found, name), getattr(made.crf, name).detach().numpy())
        assert found.iterations == 10
        assert made.crf is not None, "the network itself stays whole"

    def test_never_replaces_a_file_unasked(self, tmp_path: Path) -> None:
        (tmp_path / "net.crf.json").write_text("mine")
        with pytest.raises(OutputError, match=r"net\.crf\.json exists; choose another place"):
            export(network(), (32, 48), tmp_path / "net.onnx")
        assert not (tmp_path / "net.onnx").exists()
        export(network(), (32, 48), tmp_path / "net.onnx", force=True)
        assert json.loads((tmp_path / "net.crf.json").read_text())["format"] == "edgeseg-crf-1"
