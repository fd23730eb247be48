"""A corpus as tables: its records, labels and pseudo-tasks."""

from collections.abc import Mapping, Sequence

from multitune.cli.sheet import NONE, Column, Number, Sheet
from multitune.cli.tables import LANGUAGE
from multitune.data.bad import BadRecords
from multitune.data.corpus import Corpus
from multitune.data.records.balance import Balance
from multitune.evaluation.lengths import SAMPLE, Lengths
from multitune.pseudo_tasks import Division


def counts(corpus: Corpus, lengths: Mapping[str, Lengths], max_length: int) -> Sheet:
    """Records by language and split, and their lengths in tokens."""
    sizes = (Column("train"), Column("dev"), Column("test"), Column("left_out", "left out"), Column("bad"))
    tokens = (Column("tokens"), Column("tokens_95", "95 %"), Column("over_max_length", f"% over {max_length}"))
    sheet = Sheet("records", [LANGUAGE, *sizes, *tokens])
    for language in corpus.test:
        splits = (corpus.train, corpus.dev, corpus.test)
        length = lengths.get(language)
        sheet.add(
            language,
            *(len(split[language]) if language in split else None for split in splits),
            corpus.dropped.get(language, 0),
            corpus.skipped.get(language, 0),
            Number(length and length.mean, 1),
            Number(length and length.percentile_95, 0),
            Number(length and length.over, 1),
        )
    one = corpus.task + (f", {len(corpus.labels)} labels" if corpus.labels else "")
    dev = "test is dev; " if corpus.test_is_dev else ""
    sheet.notes = [
        f"{'heads of their own' if corpus.heads else one}; {dev}left out: records whose labels are all ignored;",
        f"tokens: mean and 95th percentile of at most {SAMPLE} records a split",
    ]
    return sheet


def labels(balance: Sequence[Balance]) -> Sheet:
    """One line a label: how often it is in training, and the languages where its share is least and most."""
    shares = [Column(f"{which}_{what}", head, text=not head) for which in ("least", "most") for what, head in (
        ("share", f"{which} %"), ("language", ""))]  # fmt: skip
    sheet = Sheet("labels", [Column("label", text=True), Column("times", "in training"), Column("share", "%"), *shares])
    for row in balance:
        ends = (cell for share, language in (row.least, row.most) for cell in (Number(share, 1), language))
        sheet.add(row.label, row.times, Number(row.share, 1), *ends)
    return sheet


def bad(records: BadRecords) -> Sheet:
    """One line a bad record: file and line, and what is wrong."""
    sheet = Sheet("bad_records", [Column("place", text=True), Column("problem", text=True, folds=True)])
    for place, problem in records:
        sheet.add(str(place), problem)
    return sheet


def clusters(division: Division) -> Sheet:
    """One line a pseudo-task: its records, their most frequent label and their words."""
    description = division.description
    columns = [
        Column("pseudo_task", "pseudo-task", text=True),
        *(Column("train"), Column("share", "%"), Column("dev")),
        Column("label", "most frequent label", text=True),
        Column("label_share", "its %"),
        Column("words", text=True, folds=True),
    ]
    sheet = Sheet("pseudo_tasks", columns)
    for cluster in description.clusters:
        label, share = next(iter(cluster.labels.items()), (NONE, None))
        dev = len(division.dev.get(cluster.task, ()))
        numbers = (cluster.records, Number(cluster.percent, 1), dev)
        sheet.add(cluster.task, *numbers, label, Number(share, 1), " ".join(cluster.words))
    sheet.notes = [
        "of the records that train_limit and dev_limit leave; the principal components keep "
        f"{description.variance:.1f} % of the variance"
    ]
    return sheet
