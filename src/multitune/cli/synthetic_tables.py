"""The synthetic experiment as tables."""

from collections.abc import Sequence

from multitune.cli.sheet import Column, Number, Sheet, Spread
from multitune.experiments.synthetic import METHODS, Synthetic


def walks(results: Synthetic) -> Sheet:
    """One line a method and start: where it ends, and the loss and cosine there."""
    columns = [
        Column("start", text=True, once=True),
        Column("method", text=True),
        *(Column("learning_rate", "learning rate"), Column("end"), Column("distance", "to an optimum")),
        *(Column("loss", "MTL loss"), Column("cosine")),
    ]
    sheet = Sheet("walks", columns, leading=2)
    for start in dict.fromkeys(walk.start for walk in results.walks if walk.start):
        for walk in results.of_figures(start):
            assert walk.end is not None
            rate, distance = f"{walk.learning_rate:g}", Number(walk.distance.mean, 1)
            ends = (Spread(walk.loss, 0), Spread(walk.cosine, 2))
            sheet.add(_point(start), METHODS[walk.method].label, rate, _point(walk.end), distance, *ends)
        sheet.rule()
    sheet.notes = [
        "end: of the first seed's walk; distance to the nearest optimum, MTL loss and mean pairwise cosine: averages "
        "over the last quarter of the walks, with 95 % intervals over seeds of tasks or of nearby starts"
    ]
    return sheet


def sweep(results: Synthetic) -> Sheet:
    """One line a method: its cosine at each learning rate, over all starts; then how far Figure 3's ordering holds."""
    rates = sorted({outcome.learning_rate for outcome in results.sweep})
    columns = [Column("method", "cosine at learning rate", text=True), *(Column(f"{rate:g}") for rate in rates)]
    sheet = Sheet("sweep", columns)
    for method in results.methods:
        cosine = {o.learning_rate: o.cosine for o in results.sweep if o.method == method}
        sheet.add(METHODS[method].label, *(Spread(cosine.get(rate), 2) for rate in rates))
    sheet.rule()
    margins = {margin.learning_rate: margin for margin in results.margins()}
    for label, side in (("margin, others at their own", "own"), ("margin, others at this one", "same")):
        cells = {rate: getattr(margin, side) for rate, margin in margins.items()}
        sheet.add(label, *(Spread(cells.get(rate), 2, sign="+") for rate in rates))
    sheet.notes = ["margin: Sequential Reptile less the highest of the other methods of the paper's Figure 3"]
    return sheet


def _point(point: Sequence[float]) -> str:
    return f"({', '.join(f'{round(value, 1) + 0:g}' for value in point)})"
