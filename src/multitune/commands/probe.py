"""Probes of a finished run: ``probes.json`` beside its model (docs/probes.md)."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from multitune import pseudo_tasks, tasks
from multitune.data.records.corpus import Corpus, Record
from multitune.errors import UserError
from multitune.evaluation.scoring import Encoded
from multitune.models import encoder as encoders
from multitune.models import masked_lm
from multitune.models.encoder import Encoder
from multitune.models.precision import resolve
from multitune.probes import drift, retention
from multitune.probes.gradient_similarity import Similarity, cosines, held_out, mean_cosine, measure
from multitune.probes.live import rounded, summary
from multitune.probes.pairs import CLDR, Pairs, from_cldr, from_folder
from multitune.probes.proximity import proximity
from multitune.recipe import Recipe, read
from multitune.results.run import FILE, RunResult
from multitune.storage.atomic import write_json
from multitune.tasks import TASKS, HeadMap, MaskedLanguageModelling
from multitune.training.loading import load_corpus, load_encoder, load_plan
from multitune.training.run import word_embedding
from multitune.versions import versions

PROBES = "probes.json"
SENTENCES = 100
"""Test sentences a language, at most, whose masked tokens are predicted."""


@dataclass
class Findings:
    """What probes.json holds; docs/probes.md has the shape of each part. None where it could not be measured."""

    run: dict[str, Any]
    seen: list[str]
    unseen: list[str]
    gradient_similarity: dict[str, Any] | None = None
    proximity: dict[str, Any] | None = None
    masked_lm: dict[str, Any] | None = None
    retrieval: dict[str, Any] | None = None
    drift: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=versions)


def probe(
    run: Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    pairs: Path | None = None,
    mlm_head: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Findings:
    """Measure a finished run's ``model/`` beside the model that it began with, and write ``run/probes.json``.

    Args:
        run: a run folder.
        overrides: recipe keys to set, e.g. ``{"unseen": ["ja", "th"]}``; the data and the languages may differ.
        pairs: a folder of texts with their translations for the retrieval (probes/pairs.py); CLDR's names without.
        mlm_head: a finished run of masked language modelling on the same model with ``freeze_encoder: true``, whose
            head is asked for masked tokens.
        say: is told what is being measured.

    Raises:
        UserError: not a finished run, one without its model or with one for each language, bad overrides, a bad folder,
            or a missing package.
    """
    recipe, result = _read(run, overrides or {})
    head = None if mlm_head is None else _head(mlm_head, recipe)
    corpus = load_corpus(recipe)
    heads = tasks.of(corpus)
    if heads.shared is None:
        raise UserError(f"{run}: its tasks have heads, and so models, of their own; probe needs one model of several")
    texts = from_cldr(corpus.test) if pairs is None else from_folder(pairs, corpus.test)
    pretrained = load_encoder(recipe, heads, corpus)
    tuned = encoders.load(str(run / "model"), heads, layers=None, dropout=None, seed=recipe.seed)
    findings = Findings(
        run={"method": result.method, "seed": result.seed, "budget": result.budget},
        seen=list(corpus.train),
        unseen=[language for language in corpus.test if language not in corpus.train],
    )
    with _timed("gradient_similarity", findings, say):
        division = pseudo_tasks.divide(recipe, corpus, pretrained)
        by_task = corpus.dev if division is None else division.dev
        _compare_gradients(findings, tuned, heads, by_task, recipe)
    if word_embedding(tuned) is None:
        findings.notes.append("masked_lm, retrieval: these are skills of encoders of text")
    else:
        with _timed("masked_lm", findings, say):
            _ask_masked_tokens(findings, tuned, heads, corpus, recipe, head)
        with _timed("retrieval", findings, say):
            _find_translations(findings, pretrained, tuned, texts, CLDR if pairs is None else str(pairs))
    with _timed("drift", findings, say):
        moved = drift.between(pretrained, tuned)
        findings.drift = {"total": drift.total(moved), "layers": drift.by_layer(moved)}
    write_json(run / PROBES, asdict(findings))
    return findings


def _read(run: Path, overrides: Mapping[str, Any]) -> tuple[Recipe, RunResult]:
    if not (run / "recipe.yaml").exists() or not (run / FILE).exists():
        raise UserError(f"{run}: holds no finished run; probe needs its recipe.yaml, results.json and model/")
    if not (run / "model").exists():
        raise UserError(f"{run}: has no model/; probe needs a run with save_model: true")
    recipe = read(run / "recipe.yaml").resolve(overrides=overrides)
    if load_plan(recipe).one_model_per_task:
        raise UserError(f"{run}: {recipe.method} has a model for each language; probe needs one model of several")
    return recipe, RunResult.read(run)


@contextmanager
def _timed(part: str, findings: Findings, say: Callable[[str], None]) -> Iterator[None]:
    say(f"probing: {part.replace('_', ' ')}")
    began = time.monotonic()
    yield
    findings.seconds[part] = time.monotonic() - began


def _compare_gradients(
    findings: Findings, tuned: Encoder, heads: HeadMap, by_task: Mapping[str, Sequence[Record]], recipe: Recipe
) -> None:
    if len(by_task) < 2:
        findings.notes.append("gradient_similarity: a single language has no pairs")
        return
    dev = Encoded.of(by_task, heads, tuned, recipe.max_length)
    precision = resolve(recipe.precision, tuned.device)
    found = measure(tuned, heads, held_out(dev, recipe.batch_size), precision)
    findings.gradient_similarity = summary(found) | {"layers": _layers(found)}
    findings.proximity = proximity(found.tasks, cosines(found.gram).numpy())
    if findings.proximity is None:
        findings.notes.append("proximity: fewer than four languages of known family, or all equally distant")


def _layers(found: Similarity) -> dict[str, Any]:
    return {
        layer: {"cosine": mean_cosine(gram), "cosines": rounded(cosines(gram))} for layer, gram in found.grams.items()
    }


def _head(run: Path, recipe: Recipe) -> Path:
    """The model of a run that trained a head for masked tokens on the pretrained encoder of ``recipe``."""
    if not (run / "recipe.yaml").exists() or not (run / "model").exists():
        raise UserError(f"--mlm-head: {run} holds no finished run with a model/; see recipes/mlm_head.yaml")
    found = read(run / "recipe.yaml").resolve()
    if TASKS.get(found.task or "") is not MaskedLanguageModelling or not found.freeze_encoder:
        raise UserError(f"--mlm-head: {run} did not train a head for masked tokens alone; see recipes/mlm_head.yaml")
    if (found.model, found.layers) != (recipe.model, recipe.layers):
        raise UserError(
            f"--mlm-head: {run} is of {found.model}, layers: {found.layers}; "
            f"the run to probe is of {recipe.model}, layers: {recipe.layers}"
        )
    return run / "model"


def _ask_masked_tokens(
    findings: Findings, tuned: Encoder, heads: HeadMap, corpus: Corpus, recipe: Recipe, head: Path | None
) -> None:
    model = masked_lm.load(recipe.model, recipe.layers) if head is None else masked_lm.load(str(head), None)
    if model is None or tuned.tokenizer.mask_token is None:
        findings.notes.append(
            f"masked_lm: {recipe.model} ships no head for masked tokens; --mlm-head takes a trained one"
        )
        return
    model.to(tuned.device)  # type: ignore[arg-type]
    test = held_out(Encoded.of(corpus.test, heads, tuned, recipe.max_length), SENTENCES)
    before = retention.masked_lm_losses(model, tuned.tokenizer, test)
    masked_lm.put_in(model, tuned.head(findings.seen[0]))
    after = retention.masked_lm_losses(model, tuned.tokenizer, test)
    findings.masked_lm = {"head": "pretrained" if head is None else str(head)} | _before_and_after(
        findings, before, after
    )
    if head is not None:
        findings.notes.append(
            f"masked_lm: the head is not pretraining's, but was trained on the frozen encoder ({head})"
        )
    elif recipe.layers is not None:
        findings.notes.append(f"masked_lm: the head was pretrained on all layers, not on the first {recipe.layers}")


def _find_translations(
    findings: Findings, pretrained: Encoder, tuned: Encoder, pairs: Mapping[str, Pairs], source: str
) -> None:
    left_out = [language for language in (*findings.seen, *findings.unseen) if language not in pairs]
    if left_out:
        findings.notes.append(f"retrieval: no pairs with English for {', '.join(left_out)}")
    if not pairs:
        return
    before, after = (retention.retrieval(encoder, pairs) for encoder in (pretrained, tuned))
    about = {"pairs": source, "size": {language: len(each.texts) for language, each in pairs.items()}}
    findings.retrieval = about | _before_and_after(findings, before, after)


def _before_and_after(findings: Findings, before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, Any]:
    """Both by language, and their averages over seen and unseen languages."""
    sides = {"seen": findings.seen, "unseen": findings.unseen}
    return {
        "pretrained": before,
        "tuned": after,
        "average": {
            side: {"pretrained": _average(before, languages), "tuned": _average(after, languages)}
            for side, languages in sides.items()
        },
    }


def _average(values: Mapping[str, float], languages: Sequence[str]) -> float | None:
    found = [values[language] for language in languages if language in values]
    return sum(found) / len(found) if found else None
