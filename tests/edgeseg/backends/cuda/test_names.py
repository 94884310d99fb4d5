"""The fakes say what the real libraries say: every name and number exists there, with as many arguments."""

from __future__ import annotations

import inspect
import re
from enum import IntEnum
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from support.cuda_devices import bindings_on, pycuda_on
from support.fake_cuda_bindings import TEXTS
from support.fake_gpu import FakeGpu

from edgeseg.backends.cuda import pycuda_driver
from edgeseg.backends.cuda.interface import LOST, OUT_OF_MEMORY

OURS = {"gpu", "chosen", "devices", "last", "host_flags", "runtime", "options", "programs", "contexts", "retained"}
OURS |= {"driver_version", "runtime_version", "outside", "init_error", "do", "asked"}


def names_of(fake: object) -> list[str]:
    return [name for name in dir(fake) if not name.startswith("_") and name not in OURS]


def real(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        pytest.skip(f"{name} is not on this machine, or has no driver: {error}")


@pytest.mark.parametrize("name", ["runtime", "driver", "nvrtc"])
class TestCudaBindings:
    def test_names_and_arguments(self, name: str) -> None:
        module, fake = real(f"cuda.bindings.{name}"), getattr(bindings_on(FakeGpu()), name)
        for function in names_of(fake):
            found = getattr(module, function)
            if isinstance(found, type) or not callable(found):
                continue
            head = found.__doc__.splitlines()[0]
            given = len(inspect.signature(getattr(fake, function)).parameters)
            assert re.search(r"\((.*)\)$", head), head
            assert len(arguments_of(head)) == given, head

    def test_numbers(self, name: str) -> None:
        module, fake = real(f"cuda.bindings.{name}"), getattr(bindings_on(FakeGpu()), name)
        for entry in names_of(fake):
            ours = getattr(fake, entry)
            if isinstance(ours, int):
                assert int(getattr(module, entry)) == ours, entry
            if isinstance(ours, type) and issubclass(ours, IntEnum):
                for member in ours:
                    assert int(getattr(getattr(module, entry), member.name)) == member.value, member

    def test_has_names_to_check(self, name: str) -> None:
        assert len(names_of(getattr(bindings_on(FakeGpu()), name))) > 5


def arguments_of(head: str) -> list[str]:
    """Parameters of a signature in Cython's docstring, whose types hold commas in brackets."""
    inside = head[head.index("(") + 1 : head.rindex(")")]
    while re.search(r"\[[^\[\]]*\]", inside):
        inside = re.sub(r"\[[^\[\]]*\]", "", inside)
    return [part for part in inside.split(",") if part.strip()]


def test_arguments_of_cythons_signatures() -> None:
    head = "nvrtcCompileProgram(prog, int numOptions, options: Optional[tuple[bytes, int] | list[bytes]])"
    assert arguments_of(head) == ["prog", " int numOptions", " options: Optional"]
    assert arguments_of("cudaMemGetInfo()") == []


def test_names_of_errors() -> None:
    runtime, driver = real("cuda.bindings.runtime"), real("cuda.bindings.driver")
    known = {*runtime.cudaError_t.__members__, *driver.CUresult.__members__}
    assert known >= LOST | OUT_OF_MEMORY
    assert set(pycuda_driver._NAMES.values()) <= set(driver.CUresult.__members__)


def sentences(names: list[str]) -> dict[str, str]:
    """The runtime's sentence by the driver's name, for the errors that both have; cuGetErrorString has the same."""
    runtime, driver = real("cuda.bindings.runtime"), real("cuda.bindings.driver")
    by_number = {int(code): code for code in runtime.cudaError_t}
    numbers = {name: int(getattr(driver.CUresult, name)) for name in names}
    try:
        return {
            name: runtime.cudaGetErrorString(by_number[number])[1].decode()
            for name, number in numbers.items()
            if number in by_number
        }
    except RuntimeError as error:
        pytest.skip(f"this version asks the driver for its sentences: {error}")


def test_sentences_of_the_fakes() -> None:
    runtime = real("cuda.bindings.runtime")
    try:
        found = {int(code): runtime.cudaGetErrorString(code)[1] for code in runtime.cudaError_t}
    except RuntimeError as error:
        pytest.skip(f"this version asks the driver for its sentences: {error}")
    assert {number: found.get(number) for number in TEXTS if number in found} == {
        number: text for number, text in TEXTS.items() if number in found
    }


def test_sentences_of_pycudas_errors() -> None:
    found = sentences(list(pycuda_driver._NAMES.values()))
    assert len(found) > 20
    assert {name: sentence for sentence, name in pycuda_driver._NAMES.items() if name in found} == found


def test_the_fakes_sentences_have_names() -> None:
    sentences = {text.decode() for number, text in TEXTS.items() if number < 900 and number != 35}
    assert sentences <= set(pycuda_driver._NAMES)


class TestPycuda:
    def test_names(self) -> None:
        driver, compiler = real("pycuda.driver"), real("pycuda.compiler")
        fakes = pycuda_on(FakeGpu())
        for module, fake in ((driver, fakes.driver), (compiler, fakes.compiler)):
            assert [name for name in names_of(fake) if not hasattr(module, name)] == []

    def test_members(self) -> None:
        driver, fake = real("pycuda.driver"), pycuda_on(FakeGpu()).driver
        for name in names_of(fake):
            ours = getattr(fake, name)
            if isinstance(ours, (type, SimpleNamespace)) and name != "module_from_buffer":
                missing = [part for part in vars(ours) if not part.startswith("_") and part != "made"]
                missing = [part for part in missing if not hasattr(getattr(driver, name), part)]
                assert [part for part in missing if part not in ("handle", "number", "stderr")] == [], name

    def test_numbers(self) -> None:
        driver, fake = real("pycuda.driver"), pycuda_on(FakeGpu()).driver
        for name in ("host_alloc_flags", "event_flags"):
            for part, value in vars(getattr(fake, name)).items():
                assert int(getattr(getattr(driver, name), part)) == value

    def test_parameters_of_the_compiler(self) -> None:
        compiler, fake = real("pycuda.compiler"), pycuda_on(FakeGpu()).compiler
        assert list(inspect.signature(compiler.compile).parameters) == list(inspect.signature(fake.compile).parameters)

    def test_kinds_of_errors(self) -> None:
        driver = real("pycuda.driver")
        for name in ("LogicError", "MemoryError", "LaunchError", "CompileError"):
            assert issubclass(getattr(driver, name), driver.Error)
