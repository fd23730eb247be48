"""The README.md of a shipped model: its metadata for the Hugging Face Hub, its scores, its recipe, how to load it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, ModelCardData, metadata_load, try_to_load_from_cache

from multitune.data.languages import RENEWED, is_iso_639
from multitune.data.sets import hub_sets
from multitune.models import scratch
from multitune.models.offline_models import OFFLINE
from multitune.plans import find
from multitune.recipe import Recipe
from multitune.recipe_files import to_yaml
from multitune.results.decimals import decimals
from multitune.results.run import SIDES, RunResult, Score, Scores, average
from multitune.storage.atomic import write_text
from multitune.storage.hub import is_repository
from multitune.tasks import HeadMap, Task
from multitune.training.loading_code import loading_code

FILE = "README.md"
_LANGUAGE = re.compile(r"([a-z]{2,3})(?:[-_][A-Z][a-z]{3})?(?:[-_](?:[A-Za-z]{2}|\d{3}))?")
"""ISO 639's code, and what BCP 47 lets follow: a script, a region."""
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|&#~])")


@dataclass(frozen=True)
class Training:
    """What the cards of a run speak of.

    Attributes:
        recipe: the run's, resolved.
        heads: which language has which head.
        languages: those that it trained on, or the tasks that stand for them.
        examples: language -> its test records.
        gradients: gradient computations that the weights have seen.
        result: its scores; None where it was stopped before there were any.
        split: the split that the scores are of: "test", or "dev" where the data set reports that.
    """

    recipe: Recipe
    heads: HeadMap
    languages: Sequence[str]
    examples: Mapping[str, int]
    gradients: int
    result: RunResult | None = None
    split: str = "test"

    @property
    def base(self) -> str | None:
        """The Hub's name of the model that was fine-tuned; None where it is not known to come from there."""
        name = self.recipe.model
        if name in OFFLINE:
            return OFFLINE[name].source
        if name.startswith(scratch.PREFIX) or Path(name).exists():
            return None
        return name if is_repository(name) else None

    @property
    def title(self) -> str:
        """The model in a few words, as its model-index calls it."""
        recipe = self.recipe
        return f"{_last(self.base or recipe.model)}-{recipe.data_name}-{recipe.method}"

    @property
    def data_sets(self) -> list[str]:
        """The Hub's names of the data sets that were trained on, where these came from there."""
        return hub_sets.repositories(self.recipe.data) if self.recipe.path is None else []

    def scores(self, languages: Sequence[str]) -> list[tuple[str, Scores]]:
        """Scores of these languages: "seen" (trained on) and "unseen" ones; empty without results."""
        if self.result is None:
            return []
        sides = ((side, self.result.scores[side]) for side in SIDES)
        return [(side, {k: own for k, own in scores.items() if k in languages}) for side, scores in sides]


def write(model: Path, training: Training) -> None:
    """Write a card beside each model in ``model/``, and one at the top, which the Hub shows.

    Args:
        model: a folder with the models of ``training.heads``, each in its place.
    """
    heads, alone = training.heads, find(training.recipe.method).one_model_per_task
    for number, own in heads.groups([*dict.fromkeys([*training.languages, *training.examples])]).items():
        folder = heads.folder(own[0])
        _write(model / folder, card(training, heads.tasks[number], own, own[0] if alone else folder))
    if heads.shared is None and not alone:
        write_index(model, training)


def write_index(model: Path, training: Training) -> None:
    """Write the card of a folder that has a folder for the model of each language (or task)."""
    first = training.languages[0]
    _write(model, card(training, training.heads.task(first), list(training.examples), first, training.languages))


def card(
    training: Training, task: Task, languages: Sequence[str], folder: str = "", folders: Sequence[str] = ()
) -> str:
    """The text of a card.

    Args:
        training: the run that the model is of.
        task: the kind of the model, with its labels.
        languages: those that it is for.
        folder: where the model is, below ``model/``.
        folders: the names of all models, where the card is that of several.
    """
    trained = [language for language in languages if language in training.languages]
    parts = [
        f"# {_text(training.title)}",
        _introduction(training, trained),
        *([_list_of_models(folders)] if folders else []),
        "## How do I load it?",
        _fenced(loading_code(task, folder), "python"),
        *([] if folders or not task.labels else [f"Its labels: {', '.join(map(_text, task.labels))}."]),
        "## What does it score?",
        _scores(training, languages),
        "## How was it trained?",
        *_recipe(training),
    ]
    metadata = _metadata(training, trained, languages).to_yaml(line_break="\n")
    return f"---\n{metadata.strip()}\n---\n\n" + "\n\n".join(parts) + "\n"


def _write(folder: Path, text: str) -> None:
    write_text(folder / FILE, text)


def _metadata(training: Training, trained: Sequence[str], languages: Sequence[str]) -> ModelCardData:
    recipe, heads = training.recipe, training.heads
    results = _results(training, languages)
    codes = [] if heads.shared is None else list(dict.fromkeys(filter(None, map(_code, trained))))
    kinds = {heads.task(language).pipeline_tag for language in languages}
    return ModelCardData(
        language=codes or None,
        license=_license(recipe),
        library_name="transformers",
        pipeline_tag=kinds.pop() if len(kinds) == 1 else None,
        base_model=training.base,
        datasets=training.data_sets or None,
        tags=["multitune", recipe.method.replace(":", "-")],
        metrics=list(dict.fromkeys(each.metric_type for each in results)) or None,
        model_name=training.title if results else None,
        eval_results=results or None,
    )


def _results(training: Training, languages: Sequence[str]) -> list[EvalResult]:
    """The model-index: a score for each language and metric, but for those that are not finite."""
    data_sets = training.data_sets
    return [
        EvalResult(
            task_type=training.heads.task(language).pipeline_tag or "other",
            dataset_type=data_sets[0] if len(data_sets) == 1 else training.recipe.data_name,
            dataset_name=training.recipe.data_name,
            dataset_config=language,
            dataset_split=training.split,
            metric_type=metric,
            metric_value=round(score, 4),
        )
        for _, scores in training.scores(languages)
        for language, own in scores.items()
        for metric, score in own.items()
        if score is not None
    ]


def _introduction(training: Training, trained: Sequence[str]) -> str:
    recipe, base = training.recipe, training.base
    origin = f"[{base}](https://huggingface.co/{base})" if base else _text(_last(recipe.model))
    if recipe.model.startswith(scratch.PREFIX):
        done = f"A new model ({_text(recipe.model)}), trained"
    else:
        done = f"{origin}, fine-tuned"
    names = ", ".join(map(_text, trained))
    return f"{done} on {_text(recipe.data_name)} ({names}) with multitune's {_text(recipe.method)}."


def _list_of_models(folders: Sequence[str]) -> str:
    return "It is several models, each in a folder of its own: " + ", ".join(map(_text, folders)) + "."


def _scores(training: Training, languages: Sequence[str]) -> str:
    """A row for each language, and the means of both sides."""
    if training.result is None:
        return (
            f"Nothing was measured: training was stopped after {training.gradients} of {training.recipe.budget} "
            f"gradient computations, so the model is half-trained."
        )
    tables = training.scores(languages)
    metrics = list(dict.fromkeys(metric for _, scores in tables for own in scores.values() for metric in own))
    rows = [["language", "trained on", "examples", *metrics], ["---", "---", *["---:"] * (1 + len(metrics))]]
    for side, scores in tables:
        yes = "yes" if side == "seen" else "no"
        for language, own in scores.items():
            rows.append([language, yes, str(training.examples[language]), *(_number(own.get(m), m) for m in metrics)])
        if len(scores) > 1 and training.heads.shared is not None:
            rows.append(["mean", yes, "", *(_number(average(_all(scores, m), m), m) for m in metrics)])
    table = "\n".join(
        f"| {' | '.join(cell if n == 1 else _text(cell) for cell in row)} |" for n, row in enumerate(rows)
    )
    return f"{table}\n\nOn the {training.split} split. Scores are in percent, a loss in nats."


def _all(scores: Scores, metric: str) -> Scores:
    return {language: {metric: own.get(metric)} for language, own in scores.items()}


def _number(score: Score, metric: str) -> str:
    return "–" if score is None else f"{score:.{max(2, decimals(metric))}f}"


def _recipe(training: Training) -> list[str]:
    """The recipe as YAML, and what the results say beside scores."""
    recipe = training.recipe
    folders = {name: _last(path) for name, path in recipe.path.items()} if isinstance(recipe.path, dict) else None
    path = folders or (_last(recipe.path) if isinstance(recipe.path, str) else None)
    replay = recipe.replay and recipe.replay.model_copy(
        update={"path": recipe.replay.path and _last(recipe.replay.path)}
    )
    model = _last(recipe.model) if Path(recipe.model).exists() else recipe.model
    shown = to_yaml(recipe.model_copy(update={"path": path, "model": model, "replay": replay}))
    text = "`multitune train` repeats it with this recipe, once its folders, cut to their last names, are yours:"
    return [text, _fenced(shown, "yaml"), *_facts(training)]


def _facts(training: Training) -> list[str]:
    result = training.result
    if result is None:
        return []
    drift = "" if result.drift is None else f", {result.drift:.4g} away from the pretrained weights (L2)"
    place = "" if result.device is None else f" on {_text(result.device)} in {_text(result.precision or '')}"
    best = f" (the best on dev of {result.spent})" if result.shipped.select == "best" else ""
    whole = " in all" if best else ""
    steps = f"{result.shipped.gradients} gradient computations{best}, {result.steps} steps{whole}{place}{drift}."
    versions = ", ".join(f"{_text(name)} {_text(version)}" for name, version in result.versions.items())
    return [steps, *map(_text, result.notes), f"Versions: {versions}."]


def _code(language: str) -> str | None:
    """ISO 639's code of a language by the name that a user gives it; None where the name is not one."""
    match = _LANGUAGE.fullmatch(language)
    code = RENEWED.get(match[1], match[1]) if match else ""
    return code if is_iso_639(code) else None


def _license(recipe: Recipe) -> str | None:
    """The licence of the pretrained model, as its own card names it; None where that is not at hand."""
    if recipe.model in OFFLINE:
        return OFFLINE[recipe.model].license
    own = Path(recipe.model) / FILE
    cached = try_to_load_from_cache(recipe.model, FILE) if is_repository(recipe.model) else None
    file = own if own.is_file() else cached
    if not isinstance(file, str | Path):
        return None
    try:
        license = (metadata_load(file) or {}).get("license")
    except (OSError, ValueError, yaml.YAMLError):  # whatever a stranger's card holds
        return None
    return license if isinstance(license, str) and _LICENSE.fullmatch(license) else None


def _last(path: str) -> str:
    """The last name of a path: a card that is published says nothing of somebody's folders."""
    return Path(path).name or path


def _text(text: str) -> str:
    """A user's words as Markdown shows them as they are, in one line."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return _MARKDOWN.sub(r"\\\1", line)


def _fenced(code: str, language: str) -> str:
    """A block of code in a fence that nothing in it can close."""
    longest = max((len(ticks) for ticks in re.findall("`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{code.strip()}\n{fence}"
