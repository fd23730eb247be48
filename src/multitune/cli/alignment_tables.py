"""What aligns gradients in the plane, as tables."""

from collections.abc import Iterable
from dataclasses import dataclass

from multitune.cli.sheet import Column, Number, Plain, Sheet, Spread
from multitune.experiments.alignment import (
    DERIVED_ETA,
    INNER,
    LEARNING_RATES,
    OUTER_RATES,
    SMOOTH,
    TASKS,
    Alignment,
    Rest,
)
from multitune.experiments.synthetic import FIGURE_3, Outcome, Synthetic


@dataclass(frozen=True)
class Trade:
    """A mean cosine, and the MTL loss at which it stands."""

    cosine: float
    loss: float

    def beside(self) -> str:
        return " ".join(self.below())

    def below(self) -> list[str]:
        return [f"{self.cosine:+.2f}", f"at {self.loss:.0f}"]

    def values(self, key: str) -> dict[str, Plain]:
        return {f"cosine_{key}": self.cosine, f"loss_{key}": self.loss}


def orders(causes: Alignment, results: Synthetic) -> Sheet:
    """One line an order, K and eta, with SGD inside; then the best other method of Figure 3 at each learning rate."""
    columns = [Column("order", text=True, once=True), Column("inner_steps", "K", once=True), Column("outer_lr", "eta")]
    sheet = Sheet("orders", [*columns, *_rates()], leading=3)
    rests = [rest for rest in causes.rests if rest.inner == "sgd"]
    for order in dict.fromkeys(rest.order for rest in rests):
        for inner_steps in dict.fromkeys(rest.inner_steps for rest in rests):
            of_loop = [rest for rest in rests if (rest.order, rest.inner_steps) == (order, inner_steps)]
            for outer_lr in OUTER_RATES:
                cells = _cells(rest for rest in of_loop if rest.outer_lr == outer_lr)
                sheet.add(order, inner_steps, f"{outer_lr:g}", *cells)
        sheet.rule()
    best = [_best(results, rate) for rate in LEARNING_RATES]
    sheet.add("best of Figure 3", "", "", *(Trade(one.cosine.mean, one.loss.mean) for one in best))
    sheet.notes = [
        "mean pairwise cosine at MTL loss, over the last quarter of walks from three starts, by SGD's learning rate. "
        "independent: tasks drawn with replacement, as in the paper; permuted: each once before any comes again. "
        "best of Figure 3: the highest cosine of its other methods at the same rate"
    ]
    return sheet


def _best(results: Synthetic, rate: float) -> Outcome:
    others = [name for name in FIGURE_3 if name != "sequential_reptile"]
    at_rate = [one for one in results.sweep if one.method in others and one.learning_rate == rate]
    return max(at_rate, key=lambda one: one.cosine.mean)


def inner_optimizers(causes: Alignment) -> Sheet:
    """One line an inner optimizer, order and eta, at K = 3."""
    columns = [Column("inner", "inner optimizer", text=True, once=True), Column("order", text=True, once=True)]
    sheet = Sheet("inner", [*columns, Column("outer_lr", "eta"), *_rates()], leading=3)
    rests = [rest for rest in causes.rests if rest.inner_steps == TASKS]
    for name, inner in INNER.items():
        for order in dict.fromkeys(rest.order for rest in rests):
            for outer_lr in OUTER_RATES:
                own = (r for r in rests if (r.inner, r.order, r.outer_lr) == (name, order, outer_lr))
                sheet.add(inner.label, order, f"{outer_lr:g}", *_cells(own))
        sheet.rule()
    sheet.notes = ["K = 3; Adam's learning rate is 20 times that of the column, so that its steps are about as long"]
    return sheet


def derivation(causes: Alignment) -> Sheet:
    """One line a rounding, order, K and learning rate: cosine of walks, of the modified loss, of the expected walk."""
    columns = [
        Column("minima", text=True, once=True),
        Column("order", text=True, once=True),
        Column("inner_steps", "K", once=True),
        *(Column("learning_rate", "learning rate"), Column("walked", "walks"), Column("modified", "modified loss")),
        Column("expected", "expected walk"),
    ]
    sheet = Sheet("derivation", columns, leading=3)
    for rounding in dict.fromkeys(one.rounding for one in causes.derived):
        for one in (each for each in causes.derived if each.rounding == rounding):
            predicted = (Number(one.modified, 3), Number(one.expected, 3))
            minima = "smooth" if rounding == SMOOTH else "sharp"
            sheet.add(minima, one.order, one.inner_steps, f"{one.learning_rate:g}", Spread(one.walked, 3), *predicted)
        sheet.rule()
    sheet.notes = [
        f"mean pairwise cosine at rest, eta {DERIVED_ETA:g}, minima rounded by {SMOOTH:g} (smooth) or 0.5 (sharp). "
        "modified loss: where descent on it ends; expected walk: of phi <- phi - eta E[phi - theta], by enumeration"
    ]
    return sheet


def expansion(causes: Alignment) -> Sheet:
    """One line an order and learning rate: how far the displacement of an inner loop is from its expansion."""
    columns = [Column("order", text=True, once=True), Column("learning_rate", "learning rate")]
    columns += [Column("first_order", "error of the mean gradient"), Column("second_order", "of the modified loss")]
    sheet = Sheet("expansion", columns, leading=2)
    for one in causes.displacements:
        sheet.add(one.order, f"{one.learning_rate:g}", Number(one.first_order, 5), Number(one.second_order, 5))
    sheet.notes = ["E[phi - theta] / (alpha K) at (4, 3), K = 3, smooth minima, less what predicts it"]
    return sheet


def _rates() -> list[Column]:
    return [Column(f"{rate:g}") for rate in LEARNING_RATES]


def _cells(rests: Iterable[Rest]) -> list[Trade]:
    return [Trade(rest.cosine.mean, rest.loss.mean) for rest in rests]
