"""`edgeseg models`: the networks that can be built by name, where they come from and what they cost."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from edgeseg.apps.cli.results import add_json_argument, print_json, table
from edgeseg.errors import UsageError, unknown_name
from edgeseg.models.cards import CARDS, Card, Cost

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `edgeseg models`."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="show the card of one network")
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Print all networks, or the card of one; torch is not needed for it."""
    if options.name is not None and options.name not in CARDS:
        raise UsageError(unknown_name("network", options.name, CARDS))
    if options.json:
        print_json(asdict(CARDS[options.name]) if options.name else {"networks": [asdict(c) for c in _cards()]})
    else:
        print(_card_text(CARDS[options.name]) if options.name else _table_text())
    return 0


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
    return f"{table(rows, right=(3, 4, 6))}\n\nThe card of one: edgeseg models NAME"


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
