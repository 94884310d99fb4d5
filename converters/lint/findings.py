"""What a rule is, what it reports, and the registry of all rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from edgeseg.converters.lint.profiles import Version
from edgeseg.converters.lint.subject import Subject

__all__ = ["RULES", "Check", "Effect", "Finding", "Problem", "Rule", "rule"]

Effect = Literal["refused", "silent", "portability", "advice"]
"""What TensorRT does with the pattern: refuses the graph; builds it, but in float or with other numbers; does so in
some versions only; or runs it as asked, slower than need be."""


@dataclass(frozen=True)
class Finding:
    """One thing in a graph that a rule objects to.

    Attributes:
        code: of the rule; stable, and listed in docs/lint.md.
        node: name of the node, of the graph input or output, or "graph". A node without a name is called `node_of_` and
            its first output, as TensorRT calls it.
        message: what stands there and what TensorRT makes of it.
        cure: what to do.
    """

    code: str
    node: str
    message: str
    cure: str


class Problem(NamedTuple):
    """What a check yields: a finding before it has its code."""

    node: str
    message: str
    cure: str


Check = Callable[[Subject], Iterable[Problem]]


@dataclass(frozen=True)
class Rule:
    """A check with its name.

    Attributes:
        code: letter of the theme (Q quantization, T tensor types, O operators, G graph, A advice) and a number.
        effect: what TensorRT does with the pattern.
        title: the pattern in a few words.
        check: finds it.
        fixed_in: first TensorRT version that takes the pattern; None where no version does.
        profiles: names of the profiles that the rule is of; empty for a rule of all.
    """

    code: str
    effect: Effect
    title: str
    check: Check
    fixed_in: Version | None = None
    profiles: tuple[str, ...] = ()

    def findings(self, subject: Subject) -> list[Finding]:
        """What the check finds in a graph; nothing where every version of the profile takes the pattern."""
        if self.fixed_in is not None and subject.profile.oldest >= self.fixed_in:
            return []
        if self.profiles and subject.profile.name not in self.profiles:
            return []
        return [Finding(self.code, *problem) for problem in self.check(subject)]


RULES: dict[str, Rule] = {}
"""Every rule by its code, in the order of their modules."""


def rule(
    code: str, effect: Effect, title: str, *, fixed_in: Version | None = None, profiles: tuple[str, ...] = ()
) -> Callable[[Check], Check]:
    """Register a check under a code of its own.

    Raises:
        ValueError: for a code that is taken.
    """

    def register(check: Check) -> Check:
        if code in RULES:
            raise ValueError(f"lint rule {code} is already taken by {RULES[code].title!r}")
        RULES[code] = Rule(code, effect, title, check, fixed_in, profiles)
        return check

    return register
