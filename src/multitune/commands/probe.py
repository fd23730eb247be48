"""Probes of a finished run: ``probes.json`` beside its model."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from transformers import AutoModelForCausalLM

from multitune import pseudo_tasks
from multitune.commands.given_data import recipe_of
from multitune.data.corpus import Corpus
from multitune.errors import UserError
from multitune.evaluation.scoring import Encoded
from multitune.mistakes import check_used
from multitune.models import encoder as encoders
from multitune.models import masked_lm
from multitune.models.device import chosen
from multitune.models.encoder import Encoder
from multitune.models.parts import ENCODER
from multitune.models.precision import resolve
from multitune.models.shipped import shipped
from multitune.probes import drift, language_model, retention, spelling
from multitune.probes import texts as general_texts
from multitune.probes.gradient_similarity import Similarity, cosines, held_out, mean_cosine, measure
from multitune.probes.live import rounded, summary
from multitune.probes.pairs import CLDR, Pairs, from_cldr, from_folder
from multitune.probes.proximity import proximity
from multitune.recipe import Recipe
from multitune.recipe_files import read
from multitune.results.json_files import finite
from multitune.results.probes import (
    BeforeAfter,
    Drift,
    Findings,
    GeneralAnswer,
    LayeredSimilarity,
    LayerSimilarity,
    MaskedTokens,
    NextTokens,
    ProbedRun,
    Proximity,
    Retrieval,
)
from multitune.results.run import FILE, RunResult, Sides, mean
from multitune.screen.stages import stage
from multitune.storage.disk import check_readable, check_writable
from multitune.tasks import TASKS, HeadMap, MaskedLanguageModelling
from multitune.training.data_changes import changes_since
from multitune.training.loading import LIMITS, READING, load_encoder, load_plan, load_with_labels
from multitune.training.method import word_embedding
from multitune.versions import versions

USED = (
    *(*READING, *LIMITS, "languages", "unseen", "max_length"),
    *("batch_size", "probe_examples", "pseudo_tasks", "model", "precision", "device"),
)
"""Recipe keys that decide what is measured when the run is given; ``model`` says where the pretrained one is now."""
SENTENCES = 100
"""Test sentences a language, at most, whose masked tokens are predicted."""


def probe(
    run: str | Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    pairs: str | Path | None = None,
    mlm_head: str | Path | None = None,
    texts: str | Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Findings:
    """Measure a finished run's ``model/`` beside the model that it began with, and write ``run/probes.json``.

    Args:
        run: a run folder.
        overrides: recipe keys to set, e.g. ``{"unseen": ["ja", "th"]}``: those of ``USED``.
        pairs: a folder of texts with their translations for the retrieval (probes/pairs.py); CLDR's names without.
        mlm_head: a finished run of masked language modelling on the same model with ``freeze: [encoder]``, whose
            head is asked for masked tokens.
        texts: a folder of texts for a causal language model to read (probes/texts.py); CLDR's names without.
        say: is told what is being measured.

    Raises:
        UserError: not a finished run, one without its model or with one for each language, bad overrides, a bad folder,
            or a missing package.
    """
    run = Path(run)
    for folder in (run, pairs, mlm_head, texts):
        check_readable(Path(folder or run))
    recipe, result = _read(run, overrides or {})
    check_writable(run, Findings.NAME)
    head = None if mlm_head is None else _head(Path(mlm_head), run, recipe)
    models = shipped(run / "model")
    if "" not in models:
        raise UserError(f"{run}: each of its tasks has a model of its own; probe needs one model for several tasks")
    heads = HeadMap.of_all(models[""])
    corpus = load_with_labels(recipe, models)
    tuned = encoders.load(str(run / "model"), heads, layers=None, dropout=None, seed=recipe.seed, device=recipe.device)
    reads = heads.tasks[0].auto_model is AutoModelForCausalLM
    encodes = not reads and word_embedding(tuned) is not None
    if texts is not None and not reads:
        raise UserError(
            f"--texts: {run} is no causal language model, which could read them; see --mlm-head and --pairs"
        )
    for option, given in (("--pairs", pairs), ("--mlm-head", mlm_head)):
        if given is not None and not encodes:
            raise UserError(f"{option}: is for encoders of text, and {run} is none; leave it out")
    material = _Material(
        head=head,
        pairs=_pairs(pairs, corpus) if encodes else {},
        pairs_from=CLDR if pairs is None else str(pairs),
        texts=_texts(texts, corpus) if reads else None,
        texts_from=general_texts.CLDR if texts is None else str(texts),
    )
    pretrained = load_encoder(recipe, heads, corpus)
    about = ProbedRun(method=result.method, seed=result.seed, budget=result.spent)
    measuring = _Measuring(recipe, corpus, heads, pretrained, tuned, say)
    if changes := changes_since(run, corpus, overrides or {}, ["dev", "test"]):
        measuring.notes.append(f"the data changed: {changes} are not those that {run} was made with")
    findings = measuring.findings(about, material)
    findings.write(run)
    return findings


@dataclass(frozen=True)
class _Material:
    """What models are asked beside a run's own data.

    Attributes:
        head: the model of ``mlm_head``.
        pairs, texts: by language; ``texts`` is None for models that are no causal language models.
        pairs_from, texts_from: where they come from.
    """

    head: Path | None
    pairs: Mapping[str, Pairs]
    pairs_from: str
    texts: Mapping[str, Sequence[str]] | None
    texts_from: str


def _pairs(folder: str | Path | None, corpus: Corpus) -> dict[str, Pairs]:
    """Texts of the languages of a run with their translations."""
    return from_cldr(corpus.test) if folder is None else from_folder(Path(folder), corpus.test)


def _texts(folder: str | Path | None, corpus: Corpus) -> dict[str, list[str]]:
    """Texts in the languages of a run and a few others."""
    languages = general_texts.with_others(dict.fromkeys([*corpus.train, *corpus.test]))
    return general_texts.from_cldr(languages) if folder is None else general_texts.from_folder(Path(folder), languages)


def _read(run: Path, overrides: Mapping[str, Any]) -> tuple[Recipe, RunResult]:
    if not (run / "recipe.yaml").exists() or not (run / FILE).exists():
        raise UserError(f"{run}: holds no finished run; probe needs its recipe.yaml, results.json and model/")
    if not (run / "model").exists():
        raise UserError(f"{run}: has no model/; probe needs a run with save_model: true")
    check_used("probe", overrides, USED, Recipe)
    recipe = recipe_of(run).resolve(overrides={"device": "auto", **overrides})
    chosen(recipe.device)
    if recipe.ship_vocabulary != "full":
        raise UserError(
            f"{run}: ships a trimmed vocabulary; probe needs the weights of all tokens (ship_vocabulary: full)"
        )
    if load_plan(recipe).one_model_per_task:
        raise UserError(f"{run}: {recipe.method} trains one model per language; probe needs one model for several")
    return recipe, RunResult.read(run)


def _head(run: Path, probed: Path, recipe: Recipe) -> Path:
    """The model of a run that trained a head for masked tokens on the pretrained encoder of a probed one.

    That one's ``recipe`` may say where the encoder is now; both began where its file says that it was.
    """
    if not (run / "recipe.yaml").exists() or not (run / "model").exists():
        raise UserError(f"--mlm-head: {run} holds no finished run with a model/; see recipes/mlm_head.yaml")
    trained = read(run / "recipe.yaml").resolve()
    if TASKS.get(trained.task or "") is not MaskedLanguageModelling or ENCODER not in trained.freeze:
        raise UserError(f"--mlm-head: {run} did not train a head for masked tokens alone; see recipes/mlm_head.yaml")
    began = recipe_of(probed).resolve().model
    if trained.model not in (began, recipe.model) or trained.layers != recipe.layers:
        raise UserError(
            f"--mlm-head: {run} was trained on {trained.model} with layers: {trained.layers}, "
            f"the run to probe on {began} with layers: {recipe.layers}"
        )
    return run / "model"


@dataclass
class _Measuring:
    """A run being probed.

    Attributes:
        pretrained: the model that it began with.
        tuned: the one that it shipped.
        notes: what could not be measured, and why.
        seconds: probe -> seconds.
    """

    recipe: Recipe
    corpus: Corpus
    heads: HeadMap
    pretrained: Encoder
    tuned: Encoder
    say: Callable[[str], None]
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def languages(self) -> Sides[list[str]]:
        """The languages that the run trained on, and those that it was only tested on."""
        train, test = self.corpus.train, self.corpus.test
        return Sides(seen=list(train), unseen=[language for language in test if language not in train])

    def findings(self, run: ProbedRun, given: _Material) -> Findings:
        """All that can be measured."""
        with self._timed("gradient_similarity"):
            similarity, related = self._gradients()
        masked, retrieved, read, answers = None, None, None, list[GeneralAnswer]()
        if given.texts is not None:
            with self._timed("next_tokens"):
                read = self._next_tokens(given.texts, given.texts_from)
            with self._timed("answers"):
                answers = self._answers()
        elif word_embedding(self.tuned) is None:
            self.notes.append("masked_lm, retrieval: only encoders of text have these skills")
        else:
            with self._timed("masked_lm"):
                masked = self._masked_tokens(given.head)
            with self._timed("retrieval"):
                retrieved = self._translations(given.pairs, given.pairs_from)
        with self._timed("drift"):
            moved = drift.between(self.pretrained, self.tuned)
        return Findings(
            run=run,
            seen=self.languages.seen,
            unseen=self.languages.unseen,
            gradient_similarity=similarity,
            proximity=related,
            masked_lm=masked,
            retrieval=retrieved,
            next_tokens=read,
            answers=answers,
            drift=Drift(finite(drift.total(moved)), {k: finite(v) for k, v in drift.by_layer(moved).items()}),
            notes=self.notes,
            seconds=self.seconds,
            versions=versions(),
        )

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        self.say(f"probing: {part.replace('_', ' ')}")
        began = time.monotonic()
        with stage(f"probing: {part.replace('_', ' ')}"):
            yield
        self.seconds[part] = time.monotonic() - began

    def _gradients(self) -> tuple[LayeredSimilarity | None, Proximity | None]:
        recipe, tuned = self.recipe, self.tuned
        division = pseudo_tasks.divide(recipe, self.corpus, self.pretrained)
        by_task = self.corpus.dev if division is None else division.dev
        if len(by_task) < 2:
            self.notes.append("gradient_similarity: at least two languages are needed")
            return None, None
        batches = held_out(Encoded.of(by_task, self.heads, tuned, recipe.max_length), recipe.probe_batch)
        similarity = measure(tuned, self.heads, batches, resolve(recipe.precision, tuned.device))
        related = proximity(similarity.tasks, cosines(similarity.gram).numpy())
        if related is None:
            self.notes.append("proximity: at least four languages of known family are needed, not all equally distant")
        return LayeredSimilarity(**summary(similarity), layers=_layers(similarity)), related

    def _masked_tokens(self, head: Path | None) -> MaskedTokens | None:
        recipe, tuned = self.recipe, self.tuned
        model = masked_lm.load(recipe.model, recipe.layers) if head is None else masked_lm.load(str(head), None)
        if model is None or tuned.tokenizer.mask_token is None:
            self.notes.append(
                f"masked_lm: {recipe.model} ships no head for masked tokens; --mlm-head takes a trained one"
            )
            return None
        model.to(tuned.device)  # type: ignore[arg-type]
        test = held_out(Encoded.of(self.corpus.test, self.heads, tuned, recipe.max_length), SENTENCES)
        before = retention.masked_lm_losses(model, tuned.tokenizer, test)
        masked_lm.put_in(model, tuned.head(self.languages.seen[0]))
        after = retention.masked_lm_losses(model, tuned.tokenizer, test)
        if head is not None:
            self.notes.append(
                f"masked_lm: the head is not pretraining's, but was trained on the frozen encoder ({head})"
            )
        elif recipe.layers is not None:
            self.notes.append(f"masked_lm: the head was pretrained on all layers, not on the first {recipe.layers}")
        skill = _before_and_after(self.languages, before, after)
        return MaskedTokens(**skill, head="pretrained" if head is None else str(head))

    def _translations(self, texts: Mapping[str, Pairs], source: str) -> Retrieval | None:
        named = (*self.languages.seen, *self.languages.unseen)
        left_out = [k for k in named if k not in texts and not spelling.is_english(k)]
        if left_out:
            self.notes.append(f"retrieval: no pairs with English for {', '.join(left_out)}")
        if not texts:
            return None
        before, after = (retention.retrieval(encoder, texts) for encoder in (self.pretrained, self.tuned))
        size = {language: len(pairs.texts) for language, pairs in texts.items()}
        return Retrieval(**_before_and_after(self.languages, before, after), pairs=source, size=size)

    def _next_tokens(self, texts: Mapping[str, Sequence[str]], source: str) -> NextTokens | None:
        found = language_model.changes(self.pretrained, self.tuned, texts)
        if left_out := [language for language in self.corpus.test if language not in found]:
            self.notes.append(f"next_tokens: no texts for {', '.join(left_out)}")
        if not found:
            return None
        seen = self.languages.seen
        sides = Sides([k for k in found if k in seen], [k for k in found if k not in seen])
        apart = {k: finite(change.divergence) for k, change in found.items()}
        before, after = ({k: getattr(v, what) for k, v in found.items()} for what in ("pretrained", "tuned"))
        return NextTokens(
            **_before_and_after(sides, before, after),
            texts=source,
            size={k: len(texts[k]) for k in found},
            divergence=apart,
            average_divergence=Sides(*(mean(apart[k] for k in side) for side in (sides.seen, sides.unseen))),
        )

    def _answers(self) -> list[GeneralAnswer]:
        before, after = (language_model.answers(encoder) for encoder in (self.pretrained, self.tuned))
        return [GeneralAnswer(*said) for said in zip(language_model.PROMPTS, before, after, strict=True)]


def _layers(similarity: Similarity) -> dict[str, LayerSimilarity]:
    return {k: LayerSimilarity(mean_cosine(gram), rounded(cosines(gram))) for k, gram in similarity.grams.items()}


class _BeforeAndAfter(TypedDict):
    """The attributes of ``Skill``."""

    pretrained: dict[str, float | None]
    tuned: dict[str, float | None]
    average: Sides[BeforeAfter]


def _before_and_after(
    languages: Sides[list[str]], before: Mapping[str, float], after: Mapping[str, float]
) -> _BeforeAndAfter:
    """Both by language, and their averages over seen and unseen languages."""
    pretrained, tuned = ({k: finite(value) for k, value in values.items()} for values in (before, after))

    def average(names: Sequence[str]) -> BeforeAfter:
        return BeforeAfter(*(mean(values[k] for k in names if k in values) for values in (pretrained, tuned)))

    return {
        "pretrained": pretrained,
        "tuned": tuned,
        "average": Sides(seen=average(languages.seen), unseen=average(languages.unseen)),
    }
