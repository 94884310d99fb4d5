"""From a torch network to the ONNX file that `edgeseg convert` takes: float image in, logits out, nothing of training.

torch's exporter writes opset 18 at the least, and its own way down fails on common graphs; the graph is therefore
brought to opset 17 by `edgeseg.converters.opset`, as every network that is converted.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from edgeseg.converters.metadata import NetworkMetadata, write_metadata
from edgeseg.converters.opset import to_target_opset
from edgeseg.errors import ModelError, OutputError, UsageError
from edgeseg.frame import fit_frame
from edgeseg.libraries import require
from edgeseg.models.crfasrnn import CRFasRNN
from edgeseg.models.network import SegmentationNetwork

__all__ = ["CRF_SUFFIX", "IMAGE", "LOGITS", "RANDOM_IMAGES", "Exported", "export"]

IMAGE = "image"
LOGITS = "logits"
CRF_SUFFIX = ".crf.json"
RANDOM_IMAGES = 3
"""Images of seeded noise on which torch and the exported graph are compared, before real frames."""

_EXPORTER_OPSET = 18
# Two engines add in another order: logits nearer to each other than this share of the largest one are equal. torch's
# own float32 is 5e-5 away from its float64 in a DABNet of random weights, and trained networks have such pixels too.
_ROUNDING = 1e-4

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exported:
    """What was written, and how far it agrees with torch.

    Attributes:
        path: the ONNX file.
        input_shape: (1, 3, H, W) of `image`, float32, normalised.
        output_shape: (1, classes, h, w) of `logits`, float32.
        parameters: of the network in `eval()`.
        random_images, frames: images of noise and real frames compared.
        pixels: pixels compared.
        ties: pixels whose class differs only because two logits are equal up to rounding, or within the share that
            `SegmentationNetwork.unsteady` allows.
        crf: the file with the parameters of a CRF that the network was trained with, which no graph holds; None for
            networks without one.
    """

    path: Path
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    parameters: int
    random_images: int
    frames: int
    pixels: int
    ties: int
    crf: Path | None = None


def export(
    network: SegmentationNetwork,
    size: tuple[int, int],
    path: str | Path,
    metadata: NetworkMetadata | None = None,
    *,
    frames: Iterable[NDArray[np.uint8]] = (),
    force: bool = False,
) -> Exported:
    """Write a network as ONNX opset 17 and check that it chooses the classes that torch chooses.

    Args:
        network: any network of `edgeseg.models`; a copy is exported in `eval()`, without its auxiliary heads, and
            CRF-as-RNN without its CRF, whose parameters get a file of their own beside the network's.
        size: (height, width) of the image in pixels; batch 1.
        path: the file to write; it is written beside its place and renamed.
        metadata: travels in the file, so that `edgeseg convert` needs no options.
        frames: real frames, (H, W, 3) uint8 RGB, on which the check is done too; they need mean and std in `metadata`.
        force: replace a file that stands there.

    Raises:
        OutputError: when the place is taken or cannot be written.
        ModelError: when the network does not take the size, cannot be exported, or disagrees with torch.
        UsageError: for frames without mean and std.
    """
    path, metadata = Path(path), metadata or NetworkMetadata()
    learned = network.crf.learned() if isinstance(network, CRFasRNN) and network.crf is not None else None
    crf = None if learned is None else path.with_suffix(CRF_SUFFIX)
    for place in (path, crf):
        if place is not None:
            _check_place(place, force)
    deployed = _deployed(network)
    expected = _run(deployed, np.zeros((1, 3, *size), np.float32))
    model = to_target_opset(_onnx_program(deployed, size))
    _forget_origin(model)
    write_metadata(model, metadata)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString(deterministic=True)
    count, pixels, ties = _check_agreement(deployed, content, _images(size, metadata, frames))
    if learned is not None and crf is not None:
        _write(crf, learned.to_json().encode())
    _write(path, content)
    return Exported(
        path=path,
        input_shape=(1, 3, *size),
        output_shape=expected.shape,
        parameters=sum(p.numel() for p in deployed.parameters()),
        random_images=RANDOM_IMAGES,
        frames=count - RANDOM_IMAGES,
        pixels=pixels,
        ties=ties,
        crf=crf,
    )


def _deployed(network: SegmentationNetwork) -> SegmentationNetwork:
    """A copy for inference on the CPU; the exporter would list auxiliary heads among the weights."""
    deployed = copy.deepcopy(network).cpu().float().eval()
    deployed.drop_undeployed()
    return deployed


def _run(network: SegmentationNetwork, image: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        try:
            logits: Any = network(torch.from_numpy(image))
        except (RuntimeError, ValueError) as error:
            raise ModelError(
                f"the network does not take an image of {image.shape[2]}x{image.shape[3]}: {_first_line(error)}; "
                "try multiples of 32 with --size HxW"
            ) from error
    values: NDArray[np.float32] = logits.numpy()
    return values


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _onnx_program(network: SegmentationNetwork, size: tuple[int, int]) -> onnx.ModelProto:
    require("onnxscript", "export networks")
    with _exporter_output():
        try:
            program = torch.onnx.export(
                network,
                (torch.zeros(1, 3, *size),),
                dynamo=True,
                opset_version=_EXPORTER_OPSET,
                input_names=[IMAGE],
                output_names=[LOGITS],
                external_data=False,
                verbose=_log.isEnabledFor(logging.INFO),
            )
        except Exception as error:  # the exporter lets through errors of many of torch's own layers
            raise ModelError(
                f"torch cannot export this network: {_first_line(error)}; --verbose shows the exporter's own words"
            ) from error
    assert program is not None
    return program.model_proto


@contextlib.contextmanager
def _exporter_output() -> Iterator[None]:
    """The exporter's warnings about itself are for those who ask for more."""
    if _log.isEnabledFor(logging.INFO):
        yield
        return
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _forget_origin(model: onnx.ModelProto) -> None:
    """Take out what the exporter notes of the program: its source lines, and paths of the machine."""
    parts = (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output)
    for part in (*parts, *model.graph.initializer, model.graph, model):
        del part.metadata_props[:]
        part.doc_string = ""


def _images(
    size: tuple[int, int], metadata: NetworkMetadata, frames: Iterable[NDArray[np.uint8]]
) -> Iterator[NDArray[np.float32]]:
    """Normalised images (1, 3, H, W): noise first, then the frames as the network's metadata says."""
    random = np.random.default_rng(0)
    for _ in range(RANDOM_IMAGES):
        yield random.standard_normal((1, 3, *size), np.float32)
    for frame in frames:
        if metadata.mean is None or metadata.std is None:
            raise UsageError("to check real frames, say how they are normalised: give --mean and --std, or --preset")
        mean, std = (np.asarray(v, np.float32).reshape(1, 3, 1, 1) for v in (metadata.mean, metadata.std))
        image = fit_frame(frame, *size).astype(np.float32).transpose(0, 3, 1, 2)
        image = image[:, ::-1] if metadata.color_order == "BGR" else image
        yield np.ascontiguousarray((image - mean) / std)


def _check_agreement(
    network: SegmentationNetwork, content: bytes, images: Iterable[NDArray[np.float32]]
) -> tuple[int, int, int]:
    """Images and pixels compared, and pixels that differ by rounding only.

    Raises:
        ModelError: when torch and ONNX Runtime choose another class anywhere else, in more pixels than the network is
            unsteady in, or the latter refuses the graph.
    """
    session = _session(content)
    count = pixels = ties = wrong = 0
    for image in images:
        expected, (found,) = _run(network, image)[0], session.run([LOGITS], {IMAGE: image})
        if not (np.isfinite(expected).all() and expected.shape == found.shape[1:]):
            raise ModelError(
                f"the network gives logits of {expected.shape} in torch, where ONNX Runtime gives {found.shape[1:]}, "
                "or numbers that are not finite; check its weights"
            )
        first, second = expected.argmax(0), found[0].argmax(0)
        rows, columns = np.nonzero(first != second)
        margin = expected[first[rows, columns], rows, columns] - expected[second[rows, columns], rows, columns]
        equal = int(np.count_nonzero(margin <= _ROUNDING * float(np.abs(expected).max())))
        count, pixels, ties, wrong = count + 1, pixels + first.size, ties + equal, wrong + len(rows) - equal
    if wrong > network.unsteady * pixels:
        raise ModelError(
            f"the exported network chooses another class than torch in {wrong} of {pixels} pixels on {count} images; "
            "nothing was written; please report this network as a bug"
        )
    return count, pixels, ties + wrong


def _session(content: bytes) -> Any:
    ort = require("onnxruntime", "check the exported network")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no public base class
        raise ModelError(
            f"torch's exporter wrote a graph that ONNX Runtime does not take: {_first_line(error)}; nothing was "
            "written; write that part of the network in another way"
        ) from error


def _check_place(path: Path, force: bool) -> None:
    if path.is_dir():
        raise OutputError(f"{path} is a folder, expected the name of a file such as model.onnx; choose another -o")
    if path.exists() and not force:
        raise OutputError(f"{path} exists; choose another place with -o or replace it with --force")
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: the folder {path.parent} does not exist; create it first")


def _write(path: Path, content: bytes) -> None:
    beside = None
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        beside = Path(name)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        beside.chmod(0o644)
        beside.replace(path)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; choose another place with -o, nothing was changed"
        ) from error
    finally:
        if beside is not None:
            beside.unlink(missing_ok=True)
