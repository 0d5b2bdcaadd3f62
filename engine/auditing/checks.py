"""What a check returns, and how checks are run so that a crash can never pass for a result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

PASS, WARN, FAIL, INCONCLUSIVE, SKIPPED = "PASS", "WARN", "FAIL", "INCONCLUSIVE", "SKIPPED"

Interval = tuple[float, float]


class MissingParametersError(Exception):
    """The data set does not record what the model needs; ``columns`` names it."""

    def __init__(self, columns: list[str]) -> None:
        super().__init__(f"not recorded: {', '.join(columns)}")
        self.columns = columns


class TooFewHostsError(Exception):
    """The rows show fewer hosts than a gate needs to be trained on some and tried on others."""

    def __init__(self, n_hosts: int) -> None:
        hosts = "one host" if n_hosts == 1 else f"{n_hosts} hosts"
        super().__init__(f"{hosts}: a gate is trained on some hosts and tried on others, two at the least")


@dataclass(frozen=True)
class Finding:
    """The answer of one check; the runner adds id, title and whether it is required.

    ``effect`` is the measured size in the unit that ``message`` names, ``ci95`` its interval, ``threshold``
    what it was held against.
    """

    status: str
    message: str
    effect: float | None = None
    ci95: Interval | None = None
    threshold: float | None = None
    n_pairs: int | None = None
    n_groups: int | None = None

    def entry(self, id_: str, title: str, *, required: bool, n_pairs: int, n_groups: int) -> dict[str, Any]:
        """Return the finding as a report's entry; the numbers given stand where it names none of its own."""
        return {
            "id": id_,
            "title": title,
            "required": required,
            "status": self.status,
            "effect": self.effect,
            "ci95": list(self.ci95) if self.ci95 is not None else None,
            "threshold": self.threshold,
            "n_pairs": n_pairs if self.n_pairs is None else self.n_pairs,
            "n_groups": n_groups if self.n_groups is None else self.n_groups,
            "message": self.message,
        }


@dataclass(frozen=True)
class Check:
    """One row of the registry: a function of the audit's state that returns a :class:`Finding`.

    One that is ``beside`` asks the state for nothing of the model, and runs in a thread beside the others.
    """

    id: str
    title: str
    required: bool
    run: Callable[[Any], Finding]
    beside: bool = False


@dataclass(frozen=True)
class Outcome:
    """A check and what came of it; ``crashed`` where it raised instead of answering."""

    check: Check
    finding: Finding
    crashed: bool = False


def run_check(check: Check, state: Any) -> Outcome:
    """Run one check; whatever it raises becomes a status that no verdict takes for a pass."""
    try:
        return Outcome(check, check.run(state))
    except MissingParametersError as error:
        return Outcome(check, Finding(SKIPPED, f"needs parameters that are {error}"))
    except TooFewHostsError as error:
        return Outcome(check, Finding(INCONCLUSIVE, str(error)))
    except Exception as error:  # any crash of a check is a result: "did not run"
        text = " ".join(str(error).split())
        return Outcome(
            check, Finding(INCONCLUSIVE, f"did not finish: {type(error).__name__}: {text}"), crashed=True
        )


def judge_equivalence(ci95: Interval, low: float, high: float) -> str:
    """Return PASS where the interval lies inside [low, high], FAIL where it lies outside, else INCONCLUSIVE.

    A pass is an argument for equivalence: "not significant" is not one.
    """
    if low <= ci95[0] and ci95[1] <= high:
        return PASS
    if ci95[1] < low or ci95[0] > high:
        return FAIL
    return INCONCLUSIVE


def row_words(rows: Sequence[int]) -> str:
    """Return the first rows of several, in words."""
    shown = ", ".join(str(row) for row in rows[:3])
    return f"row {shown}" + (", ..." if len(rows) > 3 else "")
