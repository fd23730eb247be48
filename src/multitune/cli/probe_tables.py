"""What probes found, as tables."""

from multitune.cli.sheet import Column, Number, Sheet
from multitune.cli.tables import LANGUAGE, SIDE
from multitune.results.probes import Findings, Skill
from multitune.results.run import SIDES

ANSWERS = (("prompt", "general prompt"), ("pretrained", "before"), ("tuned", "after"))


def probes(findings: Findings) -> list[Sheet]:
    """Cosines of languages' gradients; cosine and drift by layer; what is left of pretraining."""
    return [*_cosines(findings), _by_layer(findings), _skills(findings), *_answers(findings)]


def retention(findings: Findings) -> Sheet:
    """One line a language: its skills with the pretrained and with the tuned weights."""
    skills = {label: skill for label, skill in _labelled_skills(findings).items() if skill is not None}
    columns = [Column(f"{label}: {when}") for label in skills for when in ("before", "after")]
    read = findings.next_tokens
    apart = [] if read is None else [Column("divergence", "divergence, nats")]
    sheet = Sheet("retention_by_language", [SIDE, LANGUAGE, *columns, *apart], leading=2)
    others = [] if read is None else [k for k in read.tuned if k not in (*findings.seen, *findings.unseen)]
    for side, languages in (("seen", findings.seen), ("unseen", [*findings.unseen, *others])):
        for language in languages:
            values = [each.get(language) for skill in skills.values() for each in (skill.pretrained, skill.tuned)]
            values += [] if read is None else [read.divergence.get(language)]
            sheet.add(side, language, *map(Number, values))
        sheet.rule()
    return sheet


def _cosines(findings: Findings) -> list[Sheet]:
    similarity, proximity = findings.gradient_similarity, findings.proximity
    if similarity is None:
        return []
    columns = [Column("language", "cosine of gradients", text=True), *map(Column, similarity.languages)]
    sheet = Sheet("cosines", columns)
    for language, row in zip(similarity.languages, similarity.cosines, strict=True):
        sheet.add(language, *map(Number, row))
    note = f"held-out batches, languages by family; mean {similarity.cosine:.2f}"
    if proximity is not None:
        note += f"; with genealogical distance: Spearman {proximity.spearman:+.2f}, p = {proximity.p:.4f}"
    sheet.notes = [note]
    return [sheet]


def _by_layer(findings: Findings) -> Sheet:
    sheet = Sheet("layers", [Column("layer", text=True), Column("cosine", "mean cosine"), Column("drift")])
    cosines = findings.gradient_similarity.cosine_by_layer if findings.gradient_similarity else {}
    drift = findings.drift.layers
    for layer in cosines or drift:
        sheet.add(layer, Number(cosines.get(layer)), Number(drift.get(layer)))
    return sheet


def _labelled_skills(findings: Findings) -> dict[str, Skill | None]:
    if findings.next_tokens is not None:
        return {"texts, nats a byte": findings.next_tokens}
    return {"masked token, nats": findings.masked_lm, "translation found, %": findings.retrieval}


def _skills(findings: Findings) -> Sheet:
    whens = [Column(f"{side}_{when}", f"{side} {when}") for side in SIDES for when in ("before", "after")]
    sheet = Sheet("retention", [Column("skill", "retention", text=True), *whens])
    for label, skill in _labelled_skills(findings).items():
        averages = [skill.average[side] for side in SIDES] if skill else []
        values = [value for each in averages for value in (each.pretrained, each.tuned)]
        sheet.add(label, *map(Number, values or [None] * 4))
    if findings.next_tokens is not None:
        apart = findings.next_tokens.average_divergence
        sheet.add("divergence, nats", *(Number(v) for side in SIDES for v in (None, apart[side])))
    sheet.notes = list(findings.notes)
    return sheet


def _answers(findings: Findings) -> list[Sheet]:
    columns = [Column(name, label, text=True) for name, label in ANSWERS]
    sheet = Sheet("answers", columns)
    for own in findings.answers:
        sheet.add(*(" ".join(said.split()) for said in (own.prompt, own.pretrained, own.tuned)))
    return [sheet] if findings.answers else []
