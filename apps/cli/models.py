"""`edgeseg models`: the networks that can be built by name, where they come from and what they cost."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from edgeseg.apps.cli.results import add_json_argument, print_json, table
from edgeseg.errors import UsageError, unknown_name
from edgeseg.models.cards import CARDS, NOT_BUILT, Card, Cost

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `edgeseg models`."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="show the card of one network")
    parser.add_argument(
        "--compare",
        action="store_true",
        help="all variants beside each other: cost, INT8 and its speed on a CPU, what TensorRT builds, scores",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE.html", help="with --compare: also write a page with a chart"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing page")
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Print all networks, or the card of one; torch is not needed for it."""
    if options.name is not None and options.name not in CARDS:
        raise UsageError(unknown_name("network", options.name, CARDS))
    if options.compare:
        return _compare(options)
    if options.output is not None:
        raise UsageError("only the comparison is written as a page; give --compare with -o")
    if options.json:
        print_json(asdict(CARDS[options.name]) if options.name else _every_figure())
    else:
        print(_card_text(CARDS[options.name]) if options.name else _table_text())
    return 0


def _compare(options: argparse.Namespace) -> int:
    from edgeseg.apps.comparison import COLUMNS, NUMBERS, compare, comparison_figures, comparison_rows, measured_on
    from edgeseg.models.costs import read_costs

    if options.output is not None and options.output.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"the page is HTML: expected a file that ends in .html, but got -o {options.output}")
    costs = read_costs()
    compared = compare(costs, {options.name: CARDS[options.name]} if options.name else CARDS)
    if options.output is not None:
        from edgeseg.apps.comparison_page import comparison_html
        from edgeseg.apps.writers import check_output, replace_file

        check_output(options.output, force=options.force)
        replace_file(options.output, comparison_html(compared, costs).encode())
    if options.json:
        print_json(comparison_figures(compared, costs))
    else:
        rows = [COLUMNS, *comparison_rows(compared)]
        print(f"{table(rows, right=NUMBERS)}\n\n{measured_on(costs)}\nSources of the scores: --compare --json")
    return 0


def _every_figure() -> dict[str, object]:
    return {"networks": [asdict(card) for card in _cards()], "not_built": NOT_BUILT}


def _cards() -> list[Card]:
    return [CARDS[name] for name in sorted(CARDS)]


def _table_text() -> str:
    rows = [("name", "options", "network", "parameters", "GMACs", "at", "stride", "--deploy")]
    for card in _cards():
        for number, cost in enumerate(card.costs):
            first = number == 0
            rows.append(
                (
                    card.name if first else "",
                    _options(cost),
                    card.title if first else "",
                    f"{cost.parameters:,}",
                    _gmacs(cost),
                    _size(cost),
                    str(card.stride),
                    ("a variant" if card.deploy else "the same") if first else "",
                )
            )
    others = "\n".join(f"  {name}: {reason}" for name, reason in NOT_BUILT.items())
    return f"{table(rows, right=(3, 4, 6))}\n\nThe card of one: edgeseg models NAME\n\nNot built, and why:\n{others}"


def _card_text(card: Card) -> str:
    rows = [("network", card.title), ("paper", card.paper), ("source", card.source), ("stride", str(card.stride))]
    rows.append(("--deploy", card.deploy or "changes nothing: the network is taken as it is published"))
    costs: list[tuple[str, ...]] = [("options", "parameters", "GMACs", "at")]
    costs += [(_options(cost), f"{cost.parameters:,}", _gmacs(cost), _size(cost)) for cost in card.costs]
    return f"{table(rows)}\n\n{table(costs, right=(1, 2))}"


def _options(cost: Cost) -> str:
    return " ".join(f"{key}={value}" for key, value in cost.options.items())


def _gmacs(cost: Cost) -> str:
    return "-" if cost.gmacs is None else f"{cost.gmacs:.4f}"


def _size(cost: Cost) -> str:
    return "x".join(map(str, cost.size))
