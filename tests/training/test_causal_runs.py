"""Runs of tiny causal language models: from the recipe to a shipped model that answers, resumed, refused."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer, GenerationConfig

import multitune as mt
from builders import assert_resumes, lines, numbers, prepared, quick, recipe, run_card
from multitune.cli import probe_tables
from multitune.commands.probe import probe
from multitune.data import sets
from multitune.errors import UserError
from multitune.evaluation.scoring import read_statistics
from multitune.models import encoder as encoders
from multitune.probes import language_model
from multitune.recipe import Recipe
from multitune.reports import page as report
from multitune.results.predictions import read_predictions
from multitune.results.probes import Findings
from multitune.tasks import CausalLM, HeadMap
from multitune.training.loading import load_corpus
from tiny_causal import FAMILIES, TEMPLATE, answer, command, commands, loaded, make, turns


@pytest.fixture(scope="module")
def tiny_causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture
def chat(tiny_causal: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A run of seconds."""
    monkeypatch.setitem(sets.DATASETS, "commands", lambda wanted, bad: commands())
    keys: dict[str, Any] = {"budget": 120, "batch_size": 8, "learning_rate": 5e-3, "max_length": 64}
    options: dict[str, Any] = {"inner_steps": 10, "outer_lr": 1.0}
    return Recipe(model=str(tiny_causal), data="commands", precision="fp32", options=options, **keys)


def test_it_learns_ships_and_scores_alike_afterwards(
    tmp_path: Path, chat: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = mt.train(chat, tmp_path / "run")
    for language in ("aa", "bb"):
        assert result.seen[language]["exact_match"] == 100
        assert result.seen[language]["chrf"] == 100
        assert (result.seen[language]["loss"] or 0) < 0.2
    assert (result.metric, list(result.unseen)) == ("exact_match", ["cc"])
    scores = result.seen | result.unseen
    assert mt.evaluate(tmp_path / "run") == {code: pytest.approx(own, abs=1e-4) for code, own in scores.items()}
    rows = read_statistics(tmp_path / "run")
    assert {code: CausalLM(()).score_rows(own) for code, own in rows.items()} == scores
    run_card(tmp_path / "run", monkeypatch)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    model = loaded(tmp_path / "run" / "model")
    assert tokenizer.chat_template == TEMPLATE
    assert model.lm_head.weight is model.model.embed_tokens.weight
    asked, right = command("bb", 1)["messages"]
    assert answer(model, tokenizer, asked) == right["content"]


@pytest.mark.parametrize("method", ["mixed", "recadam"])
def test_weight_decay_leaves_embeddings_alone(chat: Recipe, method: str) -> None:
    """Whatever a family calls them: here they are ``embed_tokens``, and so is the output layer."""
    one = chat.model_copy(update={"method": method, "options": {}, "weight_decay": 0.5})
    run = prepared(one)
    groups = run.update.state_dict()["optimizer"]["param_groups"]
    free = [group["params"] for group in groups if group["weight_decay"] == 0.0]
    kept = {name for name, weight in run.encoder.parameters() if weight.ndim == 1 or "embed_tokens" in name}
    assert sum(map(len, free)) == len(kept)


def test_new_prompts_are_answered(tmp_path: Path, chat: Recipe) -> None:
    mt.train(chat, tmp_path / "run")
    known = list(read_predictions(tmp_path / "run"))
    given = [{"messages": each.record["messages"][:1], "id": n} for n, each in enumerate(known)]
    found = list(mt.predict(tmp_path / "run", given))
    assert [own["prediction"] for own in found] == [each.prediction["answer"] for each in known]
    assert [own["id"] for own in found] == list(range(len(known)))
    (one,) = mt.predict(tmp_path / "run", ["licht aus flur"])
    assert json.loads(one["prediction"]) == {"intent": "off", "area": "flur"}
    with pytest.raises(UserError, match=r"text 1: has no 'messages'; each is a JSON object with messages or prompt"):
        mt.predict(tmp_path / "run", [{"question": "a"}])
    with pytest.raises(UserError, match=r"text 1: messages\[0\] has the role 'bot'"):
        mt.predict(tmp_path / "run", [{"messages": [{"role": "bot", "content": "a"}]}])


@pytest.mark.parametrize("method", quick(["sequential_reptile", "gradvac", "mixed"], "sequential_reptile"))
def test_it_resumes_to_the_same_bits(
    tmp_path: Path, chat: Recipe, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    options = {"inner_steps": 10} if method == "sequential_reptile" else {}
    keys = {"method": method, "options": options, "budget": 24, "validate_every": 8, "dropout": 0.1, "dev_limit": 2}
    one = chat.model_copy(update=keys)
    assert assert_resumes(one, tmp_path, 11, monkeypatch).drift


def test_what_ships_stops_where_a_turn_ends(tmp_path: Path, chat: Recipe) -> None:
    """A base model (Qwen2.5's) stops at the end of a text, its template ends a turn with another token."""
    folder = make(tmp_path / "base")
    known = GenerationConfig.from_pretrained(folder)
    end, known.eos_token_id = known.eos_token_id, 0
    known.save_pretrained(folder)
    mt.train(chat.model_copy(update={"model": str(folder), "budget": 8}), tmp_path / "run")
    assert GenerationConfig.from_pretrained(tmp_path / "run" / "model").eos_token_id == [0, end]


@pytest.mark.parametrize("family", quick(FAMILIES, "qwen3", "gemma3"))
def test_every_family_trains_and_its_model_loads(tmp_path: Path, chat: Recipe, family: str) -> None:
    folder = make(tmp_path / family, family)
    result = mt.train(chat.model_copy(update={"model": str(folder), "budget": 8}), tmp_path / "run")
    before, model = loaded(folder).state_dict(), loaded(tmp_path / "run" / "model")
    moved = [float((weight.detach() - before[name]).norm()) for name, weight in model.named_parameters()]
    assert math.hypot(*moved) == pytest.approx(result.drift, rel=1e-4)


def write(folder: Path, language: str, rows: list[Any]) -> None:
    folder.mkdir(exist_ok=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / f"{language}.jsonl").write_text(lines, encoding="utf-8")


def of_folder(chat: Recipe, folder: Path, *columns: str, **keys: Any) -> Recipe:
    own = {"data": "folder", "path": str(folder), "columns": {name: name for name in columns}, "task": "causal_lm"}
    return chat.model_copy(update=own | {"budget": 8} | keys)


def pairs(language: str, n: int) -> dict[str, str]:
    said, call = command(language, n)["messages"]
    return {"prompt": f"{said['content']} {n} ", "completion": call["content"]}


def conversation(language: str, n: int) -> dict[str, Any]:
    return {"id": n, "messages": turns(*pairs(language, n).values())}


def test_conversations_completions_and_texts_are_read_from_files_by_language(tmp_path: Path, chat: Recipe) -> None:
    for language in ("aa", "bb"):
        rows = [pairs(language, n) for n in range(40)]
        write(tmp_path / "chat", language, [conversation(language, n) for n in range(40)])
        write(tmp_path / "pairs", language, rows)
        write(tmp_path / "texts", language, [{"text": row["prompt"] + row["completion"]} for row in rows])
    found = {
        "chat": mt.train(of_folder(chat, tmp_path / "chat", "messages"), tmp_path / "one"),
        "pairs": mt.train(of_folder(chat, tmp_path / "pairs", "prompt", "completion"), tmp_path / "two"),
        "texts": mt.train(of_folder(chat, tmp_path / "texts", "text"), tmp_path / "three"),
    }
    for name, result in found.items():
        assert list(result.seen) == ["aa", "bb"]
        answered = {"chrf"} if name != "texts" else set()
        assert result.seen["aa"].keys() == {"exact_match", "loss", "loss_per_byte"} | answered
    for name, field in (("two", "prompt"), ("three", "text")):
        (said,), (same,) = (mt.predict(tmp_path / name, [given]) for given in ("light", {field: "light"}))
        assert said == same
        assert isinstance(said["prediction"], str)


def test_texts_alone_are_for_masked_tokens_where_no_task_is_named(tmp_path: Path, chat: Recipe) -> None:
    write(tmp_path / "texts", "aa", [{"text": f"light {n}"} for n in range(40)])
    assert load_corpus(of_folder(chat, tmp_path / "texts", "text")).task == "causal_lm"
    assert load_corpus(of_folder(chat, tmp_path / "texts", "text", task=None)).task == "masked_language_modelling"


def test_a_bad_record_is_told_with_file_and_line_or_left_out(tmp_path: Path, chat: Recipe) -> None:
    rows: list[Any] = [conversation("aa", n) for n in range(40)]
    rows[7] = {"messages": [{"role": "user", "content": "a"}, {"role": "bot", "content": "b"}]}
    write(tmp_path / "chat", "aa", rows)
    one = of_folder(chat, tmp_path / "chat", "messages")
    with pytest.raises(UserError, match=r"aa\.jsonl:8: messages\[1\] has the role 'bot'; allowed: system, user"):
        mt.train(one, tmp_path / "run")
    assert mt.train(one.model_copy(update={"skip_bad": True}), tmp_path / "run").seen.keys() == {"aa"}


def test_an_encoder_is_no_causal_language_model(tmp_path: Path, chat: Recipe, tiny_lm: Path) -> None:
    with pytest.raises(UserError, match="is a BertForMaskedLM; task: causal_lm needs a causal language model"):
        mt.train(chat.model_copy(update={"model": str(tiny_lm)}), tmp_path / "run")


def test_a_model_too_large_for_memory_is_refused_before_its_weights_are_read(tmp_path: Path, chat: Recipe) -> None:
    make(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    large = {"hidden_size": 2**17, "intermediate_size": 2**19, "num_hidden_layers": 16}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | large))
    with pytest.raises(UserError, match=r"needs [\d,]{17,} bytes for its weights, and [\d,]+ are free on cpu"):
        mt.train(chat.model_copy(update={"model": str(tmp_path / "model")}), tmp_path / "run")


def test_texts_are_replayed_with_the_models_own_head(tmp_path: Path, chat: Recipe) -> None:
    """As one more task among the languages, under no name of theirs; what ships is the one model."""
    texts = [{"text": f"the light in the kitchen is number {n}", "label": "any"} for n in range(60)]
    write(tmp_path / "texts", "aa", texts)
    replay = {"data": "folder", "path": str(tmp_path / "texts"), "languages": ["aa"], "share": 0.3}
    plain, replayed = (Recipe(**(chat.model_dump() | {"replay": own})) for own in (None, replay))
    losses = []
    for name, one in (("plain", plain), ("replayed", replayed)):
        assert mt.train(one, tmp_path / name).seen.keys() == {"aa", "bb"}
        assert loaded(tmp_path / name / "model").config.model_type == "llama"
        head = HeadMap.of_all(CausalLM(()))
        tuned = encoders.load(str(tmp_path / name / "model"), head, layers=None, dropout=None, seed=0)
        losses.append(language_model.changes(tuned, tuned, {"aa": [line["text"] for line in texts[:5]]})["aa"].tuned)
    assert losses[1] < losses[0] / 2


def test_the_assistants_turns_are_replayed_as_texts_where_no_other_data_are_named(tmp_path: Path, chat: Recipe) -> None:
    one = Recipe(**(chat.model_dump() | {"replay": {}, "budget": 8}))
    run = prepared(one)
    assert run.heads.replay == "replay"
    assert len(run.examples["replay"]) == sum(len(run.examples[language]) for language in ("aa", "bb"))
    assert run.examples["replay"][0]["room"] == 0
    assert len(run.heads.tasks) == 1


LORA: dict[str, Any] = {"rank": 4, "alpha": 16, "targets": ["q_proj", "v_proj", "up_proj"], "dropout": 0.0}
NUMBERS = 2 * 4 * ((32 + 32) + (32 + 16) + (32 + 64))
"""Of the adapters in two layers."""


# peft reads a name that transformers has renamed.
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*is deprecated:FutureWarning")
def test_with_lora_slow_weights_are_adapters_and_what_ships_answers(tmp_path: Path, chat: Recipe) -> None:
    keys = {"lora": LORA, "learning_rate": 2e-2, "options": {"inner_steps": 10, "outer_lr": 0.9}, "budget": 100}
    one = Recipe(**(chat.model_dump() | keys))
    run = prepared(one)
    assert sum(weight.numel() for _, weight in run.encoder.parameters()) == NUMBERS
    run.update.advance(1e-3, 0.0)
    run.update.step(run.update.draw(1), (run.loss(number) for number in [0]))
    assert numbers(run.update.state_dict()) == 3 * NUMBERS  # AdamW's moments and the slow weights
    result = mt.train(one, tmp_path / "run")
    before = loaded(Path(one.model)).state_dict()
    model = loaded(tmp_path / "run" / "model")
    moved = [float((weight.detach() - before[name]).norm()) for name, weight in model.named_parameters()]
    assert math.hypot(*moved) == pytest.approx(result.drift, rel=1e-4)
    adapted = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "run" / "adapter").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    known = list(read_predictions(tmp_path / "run"))
    for own in known[:6]:
        said = answer(model, tokenizer, *own.record["messages"][:1])
        assert said == own.prediction["answer"] == answer(adapted, tokenizer, *own.record["messages"][:1])
    began = next(line["loss"] for line in lines(tmp_path / "run") if line["event"] == "train")
    assert (result.seen["aa"]["loss"] or began) < 0.8 * began


def test_a_finished_run_is_probed_with_its_own_head(tmp_path: Path, chat: Recipe) -> None:
    keys = {"lora": LORA, "budget": 40, "learning_rate": 1e-2, "probe_every": 40}
    mt.train(Recipe(**(chat.model_dump() | keys)), tmp_path / "run")
    (tmp_path / "texts").mkdir()
    for name in ("aa", "cc", "zz"):
        (tmp_path / "texts" / f"{name}.txt").write_text("light kitchen\nluz cocina\n")
    with pytest.raises(UserError, match=r"--pairs: is for encoders of text, and .*run is none; leave it out"):
        probe(tmp_path / "run", pairs=tmp_path / "texts")
    found = probe(tmp_path / "run", texts=tmp_path / "texts")
    assert Findings.read(tmp_path / "run") == found
    read = found.next_tokens
    assert read is not None
    assert list(read.tuned) == ["aa", "cc", "zz"]
    assert read.size == {"aa": 2, "cc": 2, "zz": 2}
    assert read.average.seen.tuned == read.tuned["aa"] == read.tuned["zz"] != read.pretrained["aa"]
    assert read.average_divergence.unseen == read.divergence["cc"]
    assert [own.prompt for own in found.answers] == list(language_model.PROMPTS)
    assert (found.masked_lm, found.retrieval) == (None, None)
    assert any(note.startswith("next_tokens: no texts for bb") for note in found.notes)
    page = report.write(tmp_path / "run").read_text(encoding="utf-8")
    assert "What is the capital of France?" in page
    assert "Divergence of the next token" in page
    sheets = probe_tables.probes(found)
    assert [sheet.name for sheet in sheets] == ["cosines", "layers", "retention", "answers"]
    assert len(probe_tables.retention(found).rows) == 4


def test_only_causal_language_models_read_texts(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    mt.train(recipe(tiny_model, tiny_panx, budget=8), tmp_path / "run")
    (tmp_path / "texts").mkdir()
    with pytest.raises(UserError, match=r"--texts: .* is no causal language model"):
        probe(tmp_path / "run", texts=tmp_path / "texts")


def test_another_template_finds_no_old_examples(tmp_path: Path) -> None:
    folder = make(tmp_path / "one")
    hashes = set()
    for template in (TEMPLATE, TEMPLATE.replace("<|im_end|>\n", "<|im_end|>")):
        make(folder, template=template)
        heads = HeadMap.of_all(CausalLM(()))
        hashes.add(encoders.load(str(folder), heads, layers=None, dropout=None, seed=0).tokenizer_hash)
    assert len(hashes) == 2
