from __future__ import annotations

import argparse

import pytest

from edgeseg.apps.cli.options import (
    add_network_arguments,
    add_preprocessing_arguments,
    frame_size,
    network_option,
    network_options,
    positive_count,
    preprocessing,
    thread_count,
)
from edgeseg.errors import UsageError


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_preprocessing_arguments(parser)
    return parser.parse_args(arguments)


class TestPreprocessing:
    def test_imagenet_in_the_networks_order(self) -> None:
        assert preprocessing(parse("--preset", "imagenet")) == ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
        assert preprocessing(parse("--preset", "imagenet", "--color", "BGR"))[0] == (103.53, 116.28, 123.675)

    def test_named_scales(self) -> None:
        assert preprocessing(parse("--preset", "unit")) == ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
        assert preprocessing(parse("--preset", "none")) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    @pytest.mark.parametrize("mean", [("1,2,3",), ("1", "2", "3"), ("1 2 3",), ("1,", "2,", "3")])
    def test_three_numbers_with_commas_or_spaces(self, mean: tuple[str, ...]) -> None:
        assert preprocessing(parse("--mean", *mean, "--std", "4,5,6")) == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))

    @pytest.mark.parametrize("given", [("--mean", "1,2,3"), ("--std", "1,2,3")])
    def test_one_alone_is_not_guessed(self, given: tuple[str, ...]) -> None:
        with pytest.raises(
            UsageError, match=r"give --mean and --std \(three numbers each, in 0..255 units\), or --preset"
        ):
            preprocessing(parse(*given))

    def test_nothing_is_left_to_the_network(self) -> None:
        assert preprocessing(parse()) is None

    def test_a_preset_takes_the_order_that_the_network_states(self) -> None:
        assert preprocessing(parse("--preset", "imagenet"), "BGR") == (
            (103.53, 116.28, 123.675),
            (57.375, 57.12, 58.395),
        )
        assert preprocessing(parse("--preset", "imagenet", "--color", "RGB"), "BGR")[0] == (123.675, 116.28, 103.53)

    def test_both_ways_at_once(self) -> None:
        with pytest.raises(UsageError, match="either --preset or --mean and --std"):
            preprocessing(parse("--preset", "unit", "--mean", "1,2,3"))

    @pytest.mark.parametrize("text", ["1,2", "1,2,3,4", "1,2,x", "1,2,nan", "1,2,inf"])
    def test_not_three_numbers(self, text: str) -> None:
        with pytest.raises(UsageError, match=f"--mean takes three numbers.*but got '{text}'"):
            preprocessing(parse("--mean", text, "--std", "1,1,1"))

    def test_std_of_zero(self) -> None:
        with pytest.raises(UsageError, match="--std must be positive, but got 1 0 1"):
            preprocessing(parse("--mean", "1,2,3", "--std", "1,0,1"))

    def test_units_of_0_to_1_are_noticed(self) -> None:
        with pytest.raises(
            UsageError, match=r"frames in 0..1; .*--mean 123.675 116.28 103.53 --std 58.395 57.12 57.375"
        ):
            preprocessing(parse("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"))


class TestTypes:
    def test_frame_size(self) -> None:
        assert frame_size("360x480") == (360, 480)

    @pytest.mark.parametrize("text", ["360", "360x", "0x480", "axb", "1x2x3", "-1x2", "65536x1", "\u00b2x2"])
    def test_no_frame_size(self, text: str) -> None:
        with pytest.raises(argparse.ArgumentTypeError, match=f"HEIGHTxWIDTH.*{text!r}"):
            frame_size(text)

    @pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "\u00b2", "99999999999"])
    def test_no_count(self, text: str) -> None:
        with pytest.raises(argparse.ArgumentTypeError, match=f"at least 1, but got {text!r}"):
            positive_count(text)

    def test_threads(self) -> None:
        assert thread_count("1024") == 1024
        with pytest.raises(argparse.ArgumentTypeError, match="expected 1 to 1024 threads, but got '100000'"):
            thread_count("100000")


class TestNetworkOptions:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("stride=16", 16),
            ("width=0.5", 0.5),
            ("batch_norm=false", False),
            ("batch_norm=true", True),
            ("head=a=b", "a=b"),
        ],
    )
    def test_values(self, text: str, expected: object) -> None:
        name, value = network_option(text)
        assert (name, value) == (text.partition("=")[0], expected)
        assert type(value) is type(expected)

    @pytest.mark.parametrize("text", ["stride", "=16", "stride=", "out put=8"])
    def test_what_is_none(self, text: str) -> None:
        with pytest.raises(
            argparse.ArgumentTypeError, match=f"expected NAME=VALUE such as stride=16, but got '{text}'"
        ):
            network_option(text)

    def test_words_and_others_together(self) -> None:
        parser = argparse.ArgumentParser()
        add_network_arguments(parser.add_argument_group())
        given = parser.parse_args(["--width", "0.5", "--option", "head=cascade", "--option", "output_stride=8"])
        assert network_options(given) == {"width": 0.5, "head": "cascade", "output_stride": 8}
        assert network_options(parser.parse_args([])) == {}
