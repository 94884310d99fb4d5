"""Weights of an exported ONNX file back in torch, so that training goes on where only that file was kept."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from edgeseg.errors import InputError, ModelError
from edgeseg.models.network import SegmentationNetwork

__all__ = ["load_exported"]

_NAMED = 3
"""Tensors that a message names."""


@dataclass(frozen=True)
class _Layers:
    """Layers by name, in the order in which they run.

    Attributes:
        normalised: (convolution, BatchNorm) wherever the second reads what the first gives.
        activations: PReLUs.
        unread: parameters that change nothing, which a published network may have and no exported file holds.
    """

    normalised: list[tuple[str, str]]
    activations: list[str]
    unread: list[str]


@dataclass
class _Moments:
    """Sums over the values of each channel that a BatchNorm has seen."""

    count: int
    total: Tensor
    squares: Tensor


@torch.no_grad()
def load_exported(network: SegmentationNetwork, path: str | Path, images: Iterable[Tensor]) -> None:
    """Load the weights of a file that `edgeseg export` wrote from the same network.

    Export folds a BatchNorm into the convolution before it, so that its statistics are lost. They are measured again
    on images, and scale and shift are set so that the network computes what the file does, in `eval()` exactly and in
    training up to how far a batch differs from all images.

    Args:
        network: the network as it was when it was exported; changed in place. Auxiliary heads, which no exported file
            holds, keep the weights that they have.
        path: the ONNX file.
        images: (N, 3, H, W) float32, normalised: training frames as the network sees them, some dozens at least.

    Raises:
        InputError: for a file that cannot be read, or that holds other tensors than those of this network; the network
            then has lost its weights.
        ModelError: where there are no images.
    """
    path, batches = Path(path), iter(images)
    first = next(batches, None)
    if first is None:
        raise ModelError("the statistics of BatchNorm are measured on training frames, but there are none")
    model = _read(path)
    tensors = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in model.graph.initializer}
    biases = {n.input[1]: n.input[2] for n in model.graph.node if "Conv" in n.op_type and len(n.input) == 3}
    training = network.training
    network.eval()
    layers = _layers(network, first)
    folded = {
        norm: convolution
        for convolution, norm in layers.normalised
        if f"{norm}.running_mean" not in tensors and f"{convolution}.weight" in biases
    }
    # Slopes come in the shape that ONNX wants, under a name of the exporter's own.
    slopes = [tensors[node.input[1]].reshape(-1) for node in model.graph.node if node.op_type == "PRelu"]
    if len(slopes) == len(layers.activations):
        tensors |= {f"{name}.weight": slope for name, slope in zip(layers.activations, slopes, strict=True)}
    _copy(network, tensors, {*folded}, {*layers.unread}, path)
    norms = {name: network.get_submodule(name) for name in folded}
    for name, convolution in folded.items():
        _as_identity(norms[name], tensors[biases[f"{convolution}.weight"]])
        own = network.get_submodule(convolution).bias
        if isinstance(own, Tensor):  # it was folded too
            own.zero_()
    for name, moments in _measured(network, norms, itertools.chain([first], batches)).items():
        _normalise_by(norms[name], moments)
    network.train(training)


def _read(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path)
    except Exception as error:  # a foreign file can fail anywhere in the parser of its bytes
        raise InputError(f"cannot read {path} as an ONNX file that edgeseg export wrote; check the name") from error


def _layers(network: SegmentationNetwork, image: Tensor) -> _Layers:
    """What an image goes through."""
    names = {module: name for name, module in network.named_modules()}
    made: list[tuple[Tensor, str]] = []
    layers = _Layers([], [], [])

    def look(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.PReLU):
            layers.activations.append(names[module])
        elif isinstance(module, nn.BatchNorm2d):
            layers.normalised.extend((name, names[module]) for tensor, name in made if tensor is given[0])
        else:
            made.append((output, names[module]))

    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.PReLU)
    handles = [module.register_forward_hook(look) for module in names if isinstance(module, kinds)]
    with torch.enable_grad():
        parameters = dict(network.named_parameters())
        gradients = torch.autograd.grad(network(image[:1]).sum(), [*parameters.values()], allow_unused=True)
    for handle in handles:
        handle.remove()
    layers.unread.extend(name for name, found in zip(parameters, gradients, strict=True) if found is None)
    return layers


def _copy(
    network: SegmentationNetwork, tensors: dict[str, Tensor], folded: set[str], unread: set[str], path: Path
) -> None:
    """Every tensor of the file into its place; those of folded BatchNorms are set later."""
    missing = []
    for name, value in network.state_dict().items():
        if name in tensors and tensors[name].shape == value.shape:
            value.copy_(tensors[name])
        elif not (
            name.endswith("num_batches_tracked")
            or name.startswith("auxiliary.")
            or name.rpartition(".")[0] in folded
            or name in unread
        ):
            missing.append(name)
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise InputError(
            f"{path} is no export of this {type(network).__name__} with {network.classes} classes: it lacks "
            f"{', '.join(missing[:_NAMED])}{more}; give the name, classes and options that it was exported with"
        )


def _as_identity(norm: nn.Module, bias: Tensor) -> None:
    """Make a BatchNorm add the bias that it was folded into, and nothing else."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)
    norm.weight.fill_(1)
    norm.bias.copy_(bias)


def _measured(
    network: SegmentationNetwork, norms: dict[str, nn.Module], images: Iterator[Tensor]
) -> dict[str, _Moments]:
    """What each BatchNorm sees over the images."""
    moments: dict[str, _Moments] = {}
    with _watched(norms, moments):
        for batch in images:
            network(batch)
    return moments


@contextmanager
def _watched(norms: dict[str, nn.Module], moments: dict[str, _Moments]) -> Iterator[None]:
    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def add(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            values = given[0].double()
            seen = moments.setdefault(name, _Moments(0, torch.zeros(()), torch.zeros(())))
            seen.count += values.numel() // values.shape[1]
            seen.total = seen.total + values.sum((0, 2, 3))
            seen.squares = seen.squares + values.square().sum((0, 2, 3))

        return norms[name].register_forward_pre_hook(add)

    handles = [watch(name) for name in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _normalise_by(norm: nn.Module, moments: _Moments) -> None:
    """Give a BatchNorm that only adds the statistics of what it sees, without a change of what it gives."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean = moments.total / moments.count
    variance = (moments.squares / moments.count - mean.square()).clamp_min(0)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_((norm.running_var + norm.eps).sqrt())
    norm.bias.add_(norm.running_mean)
