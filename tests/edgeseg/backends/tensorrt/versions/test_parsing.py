"""The parser's side of every version, on fakes that have exactly its names."""

from __future__ import annotations

from typing import Any

import pytest
from support.bundles import quantized_graph
from support.tensorrt_api import DUMPS
from support.tensorrt_fakes import Behaviour, Refusal, fake_library

from edgeseg.backends.tensorrt.logger import BuildLog
from edgeseg.backends.tensorrt.versions import parsing
from edgeseg.backends.tensorrt.versions.library import Library
from edgeseg.errors import EngineError, UsageError

STRONG = [dump for dump in DUMPS if not fake_library(dump).weakly_typed]


def logger_of(library: Library) -> Any:
    return parsing.make_logger(library, BuildLog().receive)


def builder_of(library: Library) -> Any:
    return parsing.create_builder(library, logger_of(library))


def network_of(library: Library, *, strongly_typed: bool | None = None) -> Any:
    typed = not library.weakly_typed if strongly_typed is None else strongly_typed
    return parsing.create_network(library, builder_of(library), strongly_typed=typed)


class TestNetwork:
    @pytest.mark.parametrize("dump", DUMPS)
    def test_takes_the_graph(self, dump: str) -> None:
        """The parser refuses a network without the explicit batch that its version wants."""
        library = fake_library(dump)
        network = network_of(library)
        assert parsing.parse_graph(library, network, logger_of(library), quantized_graph()) == []
        assert parsing.input_shapes(network) == {"frame": (1, 32, 48, 3)}
        assert network._strong is (dump in STRONG)

    def test_can_be_strongly_typed_from_10_12(self) -> None:
        assert network_of(fake_library("tensorrt-10.16.1.11"), strongly_typed=True)._strong

    @pytest.mark.parametrize("dump", ["tensorrt-8.6.0", "tensorrt-10.3.0", "tensorrt-10.7.0"])
    def test_cannot_before(self, dump: str) -> None:
        with pytest.raises(UsageError, match=r"has no strong typing fit for use; it comes with 10.12"):
            network_of(fake_library(dump), strongly_typed=True)

    @pytest.mark.parametrize("dump", STRONG)
    def test_cannot_be_weakly_typed_from_11(self, dump: str) -> None:
        with pytest.raises(UsageError, match="has strongly typed networks only"):
            network_of(fake_library(dump), strongly_typed=False)

    @pytest.mark.parametrize("dump", [dump for dump in DUMPS if dump.startswith("tensorrt-")])
    def test_needs_a_gpu(self, dump: str) -> None:
        library = fake_library(dump, Behaviour(gpu=False))
        with pytest.raises(EngineError, match=f"{library} cannot start its builder, which needs an NVIDIA GPU"):
            builder_of(library)


class TestParse:
    def refused(self, dump: str, behaviour: Behaviour) -> list[parsing.ParserMessage]:
        library = fake_library(dump, behaviour)
        return parsing.parse_graph(library, network_of(library), logger_of(library), quantized_graph())

    @pytest.mark.parametrize("dump", DUMPS)
    def test_names_the_node(self, dump: str) -> None:
        found = self.refused(dump, Behaviour(refusals=(Refusal("no such thing"), Refusal("another", node="b"))))
        if dump.startswith("tensorrt-8"):
            assert found[0] == parsing.ParserMessage("node 7", "", "no such thing")
        else:
            assert found[0] == parsing.ParserMessage("deform", "DeformConv", "no such thing")
        assert len(found) == 2

    def test_a_refusal_of_no_node(self) -> None:
        found = self.refused("tensorrt-8.6.0", Behaviour(refusals=(Refusal("no model", index=-1),)))
        assert found == [parsing.ParserMessage("", "", "no model")]

    @pytest.mark.parametrize("dump", DUMPS)
    def test_a_refusal_without_a_word(self, dump: str) -> None:
        found = self.refused(dump, Behaviour(silent_refusal=True))
        assert found == [parsing.ParserMessage("", "", "it gives no reason")]
