"""Causal language models: which tokens are learnt, the loss against transformers' own, answers, scores."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sacrebleu.metrics.chrf import CHRF
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, PreTrainedTokenizerFast

from multitune.data.bad import BadRecord
from multitune.data.chat import ANY
from multitune.data.corpus import Record
from multitune.errors import UserError
from multitune.tasks import CausalLM
from multitune.tasks.task import IGNORED, Example, padded
from tiny_causal import FAMILIES, MARKED, SPECIAL, TEMPLATE, make, tokenizer, turns

TASK = CausalLM(())
LONG = turns("light kitchen", "on", "dark hall", '{"intent": "off"}')
CALL = '{"intent": "on", "area": "küche"}'


def encoded(*records: Record, template: str | None = TEMPLATE, max_length: int = 128) -> list[Example]:
    return list(TASK.encode(records, tokenizer(template), max_length))


def learnt(example: Example) -> str:
    return str(tokenizer().decode([label for label in example["labels"] if label != IGNORED]))


def asked(example: Example) -> str:
    return str(tokenizer().decode(example["input_ids"][: example["prompt"]]))


@pytest.mark.parametrize("template", [TEMPLATE, MARKED], ids=["by prefixes", "marked"])
def test_what_the_assistant_says_is_learnt_and_its_end(template: str) -> None:
    (example,) = encoded({"messages": LONG}, template=template)
    assert learnt(example) == 'on<|im_end|>{"intent": "off"}<|im_end|>'
    assert asked(example).endswith("user\ndark hall<|im_end|>\n<|im_start|>assistant\n")
    assert example["bytes"] == len('on{"intent": "off"}')
    assert tokenizer().decode([example["end"]]) == "<|im_end|>"


def test_the_marks_are_where_transformers_finds_them() -> None:
    made: Any = tokenizer(MARKED).apply_chat_template(LONG, return_assistant_tokens_mask=True, return_dict=True)
    (example,) = encoded({"messages": LONG}, template=MARKED)
    assert list(example["input_ids"]) == made["input_ids"]
    assert [label != IGNORED for label in example["labels"]] == [bool(each) for each in made["assistant_masks"]]


def _blanks_with_words(template: str) -> Any:
    """A tokenizer of Llama 2's and Gemma's kind: a word and the blank before it are one token."""
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(prepend_scheme="first"), decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=99, special_tokens=[*SPECIAL.values()], show_progress=False)
    made.train_from_iterator(["turn the light on now, please"] * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, chat_template=template, **SPECIAL)


BLANK_FIRST = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ message['content'] }}{% else %}"
    " {% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{% endif %}{% endfor %}"
)
"""A template that sets a blank before what the assistant says, and outside of the mark."""


def test_a_word_whose_blank_is_before_the_mark_is_learnt_and_not_asked() -> None:
    made = _blanks_with_words(BLANK_FIRST)
    messages = turns("turn the light", "on now", "the light", "please on")
    (example,) = TASK.encode([{"messages": messages}], made, 128)
    theirs: Any = made.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
    assert [label != IGNORED for label in example["labels"]] == [bool(each) for each in theirs["assistant_masks"]]
    ids = list(example["input_ids"])
    assert made.decode(ids[: example["prompt"]]).endswith("the light")
    assert made.decode(ids[example["prompt"] :]).strip() == "please on<|im_end|>"


@pytest.mark.parametrize("template", [TEMPLATE, MARKED], ids=["by prefixes", "marked"])
def test_blanks_are_learnt_where_a_tokenizer_trims_offsets(template: str) -> None:
    """As those of OLMo and Pythia: a token of blanks alone has no characters, in the middle of an answer, too."""
    record = {"messages": turns("light", "if  on:\n    kitchen")}
    (example,) = encoded(record, template=template)
    trims = tokenizer(template)
    trims.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    (trimmed,) = TASK.encode([record], trims, 128)
    assert trimmed == example


def test_answers_that_spell_their_end_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """As other programs ask for it; of a text it is taken for the end that is set behind each."""
    (plain,) = encoded({"text": "light"}, {"prompt": "a", "completion": "on"})[:1]
    (text,) = encoded({"text": "light<|im_end|>"}, {"messages": LONG})[:1]
    assert text["input_ids"] == plain["input_ids"]
    assert not caplog.messages
    encoded({"prompt": "a", "completion": "on<|im_end|>"}, {"prompt": "a", "completion": "on"})
    encoded({"messages": turns("light", "on<|im_end|>\n")})
    assert [own.partition(" answers end with")[0] for own in caplog.messages] == ["data: 1 of 2", "data: 1 of 1"]


def test_of_a_prompt_the_completion_is_learnt_and_of_a_text_all() -> None:
    (completed,) = encoded({"prompt": "light küche ", "completion": "an"}, template=None)
    assert (learnt(completed), asked(completed), completed["bytes"]) == ("an<|im_end|>", "light küche ", 2)
    (text,) = encoded({"text": "licht küche"}, template=None)
    assert learnt(text) == tokenizer().decode(text["input_ids"][1:])
    assert (text["prompt"], text["room"]) == (0, 0)
    assert text["bytes"] == len(learnt(text).removesuffix("<|im_end|>").encode())


@pytest.mark.parametrize(
    "text", ["licht küche", "a", "über", "\u0e44\u0e17\u0e22", "\u4f60\u597d", "\U0001f600", " an"]
)
@pytest.mark.parametrize("begins", [False, True], ids=["without a begin token", "with one"])
def test_bytes_are_those_of_the_tokens_that_are_predicted(text: str, begins: bool) -> None:
    """Of bytes alone a token's name has a letter for each of its bytes; they may be a part of a character."""
    made = tokenizer(None)
    if begins:
        begin = processors.TemplateProcessing(
            single="<|im_start|> $A", special_tokens=[("<|im_start|>", made.bos_token_id)]
        )
        made.backend_tokenizer.post_processor = begin
    (example,) = TASK.encode([{"text": text}], made, 128)
    names: Any = made.convert_ids_to_tokens(list(example["input_ids"]))
    assert begins == (names[0] == "<|im_start|>")
    assert example["bytes"] == sum(len(name) for name in names[1:-1])
    assert begins == (example["bytes"] == len(text.encode()))


def test_earlier_turns_that_are_shown_otherwise_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """As Qwen3's template has it, only the last answer comes with thoughts."""
    last = "{% if loop.last and message['role'] == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    thinking = TEMPLATE.replace("{{ message['content']", last + "{{ message['content']")
    (example,) = encoded({"messages": LONG}, template=thinking)
    assert learnt(example) == '<think>\n\n</think>\n\n{"intent": "off"}<|im_end|>'
    assert "1 earlier turns of the assistant are not learnt" in caplog.text


def test_a_first_turn_that_a_template_cannot_ask_for_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """As those of Llama 3 and Qwen, which look at the first turn before any."""
    looking = "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}" + TEMPLATE
    greeting = {"role": "assistant", "content": "kitchen"}
    (example,) = encoded({"messages": [greeting, *turns("light", "on")]}, template=looking)
    assert learnt(example) == "on<|im_end|>"
    assert "1 earlier turns of the assistant are not learnt" in caplog.text
    with pytest.raises(UserError, match="shows an answer otherwise than it asks for it"):
        encoded({"messages": [greeting]}, template=looking)


def test_turns_that_a_template_leaves_out_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """As Zephyr's does those of tools, and the first of Phi 3 those of the system; what is quoted is shown."""
    known = TEMPLATE.replace("{{ '<|im", "{% if message['role'] in ('user', 'assistant') %}{{ '<|im", 1)
    known = known.replace("'<|im_end|>\n' }}{% endfor", "'<|im_end|>\n' }}{% endif %}{% endfor")
    quoting = TEMPLATE.replace("message['content']", "(message['content'] | tojson)")
    given = [
        {"role": "system", "content": "be brief"},
        *turns("light", "call"),
        {"role": "tool", "content": '{"n": 4}'},
        {"role": "assistant", "content": "on"},
    ]
    encoded({"messages": given}, template=quoting)
    assert not caplog.messages
    encoded({"messages": given}, {"messages": given[:3]}, template=known)
    (told,) = caplog.messages
    assert told == ("model: its chat template leaves out 3 turns, which the model does not see: system 2, tool 1")


@pytest.mark.parametrize("before", ["", "<think>\n\n</think>\n\n"], ids=["nothing", "thoughts, as Qwen 3"])
def test_a_template_that_does_not_ask_for_an_answer_is_told(caplog: pytest.LogCaptureFixture, before: str) -> None:
    set_before = "{% if message['role'] == 'assistant' %}{{ BEFORE }}{% endif %}{{ message['content']"
    template = TEMPLATE.replace("{{ message['content']", set_before.replace("BEFORE", repr(before)))
    encoded({"messages": turns("light", "on")}, template=template)
    assert not caplog.messages
    encoded({"messages": turns("light", "on")}, template=template.partition("{% if add_generation_prompt")[0])
    (told,) = caplog.messages
    begun = "<|im_start|>assistant\n" + before
    assert told.endswith(f"with what it sets before them: {begun!r}")


def test_several_templates_without_a_default_are_told_in_a_line() -> None:
    several: Any = {"tool_use": TEMPLATE}
    with pytest.raises(UserError, match="model: This model has multiple chat templates with no default") as error:
        encoded({"messages": LONG}, template=several)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (None, "no chat template"),
        (
            "{{ raise_exception('System role not supported') }}",
            "begins with 'light kitchen': System role not supported",
        ),
        ("{{ nothing.at_all }}", "cannot be applied"),
        (TEMPLATE.replace("'<|im_start|>assistant\n'", "'<|im_start|>model\n'"), "shows an answer otherwise"),
        (MARKED.replace("'assistant' %}{% gen", "'model' %}{% gen"), "no token of the record that begins with"),
    ],
)
def test_a_template_that_does_not_do_is_told_in_a_line(template: str | None, told: str) -> None:
    with pytest.raises(UserError, match=told) as error:
        encoded({"messages": LONG}, template=template)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ("hello", "messages is text; it must be a list of turns"),
        ([{"from": "human", "value": "a"}], r"messages\[0\] has 'from' and 'value'; write role and content"),
        ([{"role": "developer", "content": "a"}], "has the role 'developer'; allowed: .*; write system"),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}]}], "content is a list of parts; it must be text"),
        ([], "messages is empty"),
        (["hello"], r"messages\[0\] is text"),
        (
            [{"role": "bot", "content": "a"}],
            r"messages\[0\] has the role 'bot'; allowed: system, user, assistant, tool",
        ),
        ([{"role": "user"}], r"messages\[0\]'s content is missing"),
        (turns("a", " "), r"messages\[1\]'s content is blank"),
        (turns("a"), "messages have no turn of the assistant"),
        (turns("a", "b", "c"), "messages end with a turn of the role 'user'"),
        (
            [{"role": "assistant", "content": "a", "tool_calls": [1]}],
            r"messages\[0\] has 'tool_calls', which is not read",
        ),
    ],
)
def test_a_conversation_that_cannot_be_learnt_is_a_bad_record(messages: Any, problem: str) -> None:
    with pytest.raises(BadRecord, match=problem):
        ANY.record({"messages": messages})


@pytest.mark.parametrize("empty", [None, "", [], {}])
def test_keys_without_a_value_are_left_out(empty: Any) -> None:
    said = turns("light", "on")
    assert ANY.record({"messages": [turn | {"tool_calls": empty} for turn in said]}) == {"messages": said}


def test_the_tokens_of_its_template_count() -> None:
    (example,) = encoded({"messages": LONG})
    assert TASK.tokens({"messages": LONG}, tokenizer()) == len(example["input_ids"])


def test_what_is_too_long_loses_the_beginning_of_the_prompt_then_the_end_of_the_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    prompt, answer = "light " * 40, "dark " * 30
    (whole,) = encoded({"prompt": prompt, "completion": answer}, template=None, max_length=500)
    (cut,) = encoded({"prompt": prompt, "completion": answer}, template=None, max_length=32)
    (short,) = encoded({"prompt": prompt, "completion": "dark"}, template=None, max_length=32)
    begin = whole["prompt"]
    assert list(cut["input_ids"]) == list(whole["input_ids"][begin - 16 : begin + 16])
    assert (cut["prompt"], cut["room"], cut["bytes"]) == (16, 16, len(learnt(cut)))
    assert learnt(short) == "dark<|im_end|>"
    assert len(short["input_ids"]) == 32
    told = [line.split("tokens: ")[1] for line in caplog.messages]
    assert told == [
        "the beginning of what is asked is cut off (1), or the end of the answer or text (1)",
        "the beginning of what is asked is cut off (1), or the end of the answer or text (0)",
    ]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = make(tmp_path_factory.mktemp(request.param), request.param)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    loaded.generation_config.max_length = None
    return loaded.eval()


RECORDS: list[Record] = [{"messages": LONG}, {"messages": turns("dark", "off")}]


def test_the_loss_is_transformers_own_with_logits_of_learnt_tokens_alone(model: Any) -> None:
    examples = encoded(*RECORDS)
    inputs, targets = TASK.collate(examples, 4)
    with TASK.fewer_logits(model, targets):
        output = model(**inputs)
    assert len(output.logits) == (targets != IGNORED).sum()
    torch.testing.assert_close(TASK.loss(output, targets), model(**inputs, labels=targets).loss)


def test_answers_are_those_of_each_prompt_alone(model: Any) -> None:
    """Padded on the left, whatever else is in the batch; the losses add up to that of the batch."""
    examples = encoded(*RECORDS, max_length=60)
    inputs, targets = TASK.collate(examples, 4)
    with torch.no_grad():
        found = TASK.decode(TASK.forward(model, inputs, examples), examples)
        loss = model(**inputs, labels=targets).loss
        for (ids, _, _), example in zip(found, examples, strict=True):
            prompt = torch.tensor([list(example["input_ids"][: example["prompt"]])])
            alone = model.generate(prompt, do_sample=False, max_new_tokens=example["room"])[0, prompt.shape[1] :]
            assert ids[: len(alone)] == alone.tolist()
    nats = sum(own for _, own, _ in found)
    assert nats / int((targets != IGNORED).sum()) == pytest.approx(float(loss), rel=1e-5)


def test_an_answer_stops_where_its_template_ends_a_turn(tmp_path: Path) -> None:
    """Also where the model itself does not know that token as its end."""
    loaded = AutoModelForCausalLM.from_pretrained(make(tmp_path)).eval()
    examples = encoded(RECORDS[0])
    inputs, _ = TASK.collate(examples, 4)
    loaded.generation_config.eos_token_id = None
    with torch.no_grad():
        endless = TASK.forward(loaded, inputs, examples)["answers"][0].tolist()
        ending = [examples[0] | {"end": endless[2]}]
        stopped = TASK.forward(loaded, inputs, ending)["answers"][0].tolist()
    assert len(endless) == examples[0]["room"]
    assert stopped == endless[: endless.index(endless[2]) + 1]


def test_a_models_own_settings_of_generation_have_no_say_in_answers(tmp_path: Path) -> None:
    """As those of Qwen2.5, which sample and penalise what was said before."""
    loaded = AutoModelForCausalLM.from_pretrained(make(tmp_path)).eval()
    examples = encoded(RECORDS[0])
    inputs, _ = TASK.collate(examples, 4)
    with torch.no_grad():
        likeliest = TASK.forward(loaded, inputs, examples)["answers"].tolist()
        own = loaded.generation_config
        own.update(do_sample=True, temperature=0.7, repetition_penalty=1.5, no_repeat_ngram_size=2, max_length=20)
        assert TASK.forward(loaded, inputs, examples)["answers"].tolist() == likeliest
    assert loaded.generation_config is own


@pytest.mark.parametrize("padding", [None, 7], ids=["none", "a word"])
def test_what_fills_up_shorter_answers_is_no_part_of_them(tmp_path: Path, padding: int | None) -> None:
    """Also where the model names no token for it, as those of Llama 3 and Qwen, or one that is a word."""
    loaded = AutoModelForCausalLM.from_pretrained(make(tmp_path)).eval()
    loaded.config.pad_token_id = loaded.generation_config.pad_token_id = padding
    loaded.generation_config.eos_token_id = None
    examples = encoded({"messages": turns("light kitchen", "on")}, {"messages": turns("dark", "off")})
    inputs, _ = TASK.collate(examples, 4)
    with torch.no_grad():
        (end, *_), (other, *_) = TASK.forward(loaded, inputs, examples)["answers"].tolist()
        assert end != other
        ending = [own | {"end": end} for own in examples]
        (stopped, *_), (longer, *_) = TASK.decode(TASK.forward(loaded, inputs, ending), ending)
    assert stopped == [end]
    assert len(longer) > 1


def test_no_answer_goes_beyond_the_positions_of_its_model() -> None:
    """The longest prompt of a batch is beside one whose answer has more room, as GPT-2's table has no row for."""
    made = tokenizer(None)
    config = GPT2Config(
        vocab_size=len(made), n_positions=64, n_embd=32, n_layer=2, n_head=2, initializer_range=0.5, eos_token_id=None
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        gpt = AutoModelForCausalLM.from_config(config).eval()
    prompts = ["light kitchen " * 3, "dark", "light " * 9]
    examples = [next(TASK.encode([TASK.stand_in({"prompt": own})], made, 64)) for own in prompts]
    with torch.no_grad():
        found = TASK.decode(TASK.forward(gpt, TASK.inputs(examples, 3), examples), examples)
        for (ids, _, _), example in zip(found, examples, strict=True):
            ((alone, _, _),) = TASK.decode(TASK.forward(gpt, TASK.inputs([example], 3), [example]), [example])
            assert ids == alone
            assert len(ids) == example["room"] or ids[-1] == example["end"]


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        (CALL, CALL, True),
        ('{"area":"küche","intent":"on"}', CALL, True),
        ('{"area": "flur", "intent": "on"}', CALL, False),
        ('{"intent": "on"}', CALL, False),
        ('{"area": "flur", "intent": "on", "area": "küche"}', CALL, False),
        ('{"intent": "on", "area": {"b": [1], "a": null}}', '{"intent": "on", "area": {"a": null, "b": [1]}}', True),
        ('{"n": true}', '{"n": 1}', False),
        ("not json", CALL, False),
        ("{broken", "{broken", True),
        (" yes\n", "yes", True),
        ("Yes", "yes", False),
        ("<think>\n\n</think>\n\nyes", "yes", True),
    ],
)
def test_exact_match_compares_calls_not_their_spelling(answer: str, reference: str, same: bool) -> None:
    record = {"prompt": "a", "completion": reference}
    prediction = {"answer": answer, "nats": 2.0, "tokens": 4, "right": 1, "bytes": 8}
    scores = TASK.score([record], [prediction])
    assert scores["exact_match"] == 100 * same
    assert (scores["loss"], scores["loss_per_byte"]) == (0.5, 0.25)
    assert TASK.shown(record, prediction).right is same


def test_chrf_is_sacrebleus() -> None:
    references, answers = ["licht an", "dunkel im flur"], ["licht aus", "dunkel im haus"]
    records = [{"prompt": "a", "completion": own} for own in references]
    rows = [{"answer": own, "nats": 1.0, "tokens": 1, "right": 1, "bytes": 1} for own in answers]
    assert TASK.score(records, rows)["chrf"] == pytest.approx(CHRF().corpus_score(answers, [references]).score)


def test_a_text_is_scored_by_the_tokens_that_the_model_would_say() -> None:
    prediction = {"answer": None, "nats": 3.0, "tokens": 4, "right": 1, "bytes": 6}
    assert TASK.score([{"text": "abc"}], [prediction]) == {"exact_match": 25, "loss": 0.75, "loss_per_byte": 0.5}


def test_new_prompts_are_asked_not_their_answers() -> None:
    assert TASK.stand_in({"messages": turns("a")})["messages"][:1] == turns("a")
    assert TASK.stand_in({"text": "a"})["prompt"] == "a"
    with pytest.raises(BadRecord, match="nothing is to be answered"):
        TASK.stand_in({"messages": turns("a", "b")})


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ([5, 6, 7], ["max_length: 1 of 2 answers break off: prompt and answer together have at most 8 tokens"]),
        ([5], []),
    ],
)
def test_answers_to_new_prompts_that_break_off_are_counted(
    caplog: pytest.LogCaptureFixture, said: list[int], told: list[str]
) -> None:
    new = TASK.stand_in({"prompt": "light kitchen"})
    record = {"prompt": "light kitchen", "completion": "on"}
    example = {"labels": [IGNORED, 2], "prompt": 5, "room": 3, "end": 2, "bytes": 1}
    TASK.join([new, record], [example, example], [(said, 0.0, 0), ([5, 6, 7], 0.0, 0)], tokenizer())
    TASK.join([new], [example], [([5, 6, 2], 0.0, 0)], tokenizer())
    assert caplog.messages == told


def test_predictions_are_plain_json() -> None:
    examples = encoded(*RECORDS)
    ids = tokenizer()("on")["input_ids"]
    joined = TASK.join(RECORDS, examples, [(ids, 1.5, 2)] * 2, tokenizer())
    assert json.loads(json.dumps(joined[0])) == joined[0]
    assert joined[0]["answer"] == "on"
    assert joined[0]["tokens"] == sum(label != IGNORED for label in examples[0]["labels"][1:])


def test_batches_are_padded_on_the_right() -> None:
    examples = encoded(*RECORDS)
    mask = padded(examples, 4)["attention_mask"].numpy()
    assert (np.diff(mask, axis=1) <= 0).all()


def test_the_tokenizer_is_made_here_and_loads(tmp_path: Path) -> None:
    assert AutoTokenizer.from_pretrained(make(tmp_path)).chat_template == TEMPLATE


def test_an_answer_that_is_scored_has_room_for_twice_the_right_one_and_a_new_prompt_for_all() -> None:
    """A model that never stops is cut off soon; one that is asked something new is not."""
    right = len(encoded({"prompt": "light ", "completion": "dark"}, template=None)[0]["input_ids"])
    (scored,) = encoded({"prompt": "light ", "completion": "dark"}, template=None, max_length=500)
    (asked,) = encoded(TASK.stand_in({"prompt": "light "}), template=None, max_length=500)
    assert scored["room"] == 2 * (right - scored["prompt"]) + 16
    assert asked["room"] == 500 - asked["prompt"]
