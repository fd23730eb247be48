"""Families of models that differ from BERT: dropout, layers, heads, padding, types of tokens, ends of texts."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    DistilBertConfig,
    DistilBertModel,
    FunnelConfig,
    FunnelForMaskedLM,
    GPT2Config,
    GPT2Model,
    GPTNeoConfig,
    GPTNeoModel,
    LlamaConfig,
    LlamaModel,
    LongformerConfig,
    LongformerModel,
    M2M100Config,
    M2M100ForConditionalGeneration,
    ModernBertConfig,
    ModernBertForMaskedLM,
    ModernBertModel,
    MT5Config,
    MT5Model,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProphetNetConfig,
    Qwen3Config,
    Qwen3Model,
    RobertaConfig,
    RobertaModel,
    SwinConfig,
    SwinModel,
    XLNetConfig,
    XLNetModel,
)

from multitune.errors import UserError
from multitune.models import encoder as encoders
from multitune.models import masked_lm
from multitune.models.dropout import set_dropout, set_dropout_of_modules
from multitune.models.encoder import Encoder
from multitune.models.pretrained import configuration, keep_layers
from multitune.tasks import (
    CausalLM,
    Classification,
    HeadMap,
    ImageClassification,
    MaskedLanguageModelling,
    Ranking,
    Tagging,
    Task,
)

SPECIAL: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
SIZES: dict[str, Any] = {
    "vocab_size": 20,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
GROUPED: dict[str, Any] = SIZES | {"num_key_value_heads": 1, "head_dim": 8, "bos_token_id": 2, "eos_token_id": 3}
BOTH: dict[str, Any] = {
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
}
GPT2: dict[str, Any] = {"vocab_size": 20, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 64}
GPT_NEO: dict[str, Any] = {
    "vocab_size": 20,
    "hidden_size": 16,
    "num_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 64,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
FAMILIES: dict[str, tuple[type[PreTrainedModel], PretrainedConfig]] = {
    "ModernBERT": (ModernBertForMaskedLM, ModernBertConfig(**SIZES, **SPECIAL)),
    "ModernBERT's body": (ModernBertModel, ModernBertConfig(**SIZES, **SPECIAL)),
    "Qwen3": (Qwen3Model, Qwen3Config(**GROUPED)),
    "Llama": (LlamaModel, LlamaConfig(**GROUPED, pad_token_id=7)),
    "GPT-2": (GPT2Model, GPT2Config(**GPT2, pad_token_id=7, bos_token_id=3, eos_token_id=3)),
    "mT5": (MT5Model, MT5Config(vocab_size=20, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2, **SPECIAL)),
    "DistilBERT": (DistilBertModel, DistilBertConfig(vocab_size=20, dim=16, n_layers=2, n_heads=2, hidden_dim=16)),
    "RoBERTa": (RobertaModel, RobertaConfig(**SIZES, type_vocab_size=1)),
    "Funnel": (
        FunnelForMaskedLM,
        FunnelConfig(vocab_size=20, block_sizes=[1, 1], d_model=16, n_head=2, d_head=8, d_inner=16),
    ),
    "GPT-Neo": (GPTNeoModel, GPTNeoConfig(**GPT_NEO, num_layers=4, attention_types=[[["global", "local"], 2]])),
    "Longformer": (LongformerModel, LongformerConfig(**SIZES, **SPECIAL, attention_window=[4, 4, 4])),
    "XLNet": (XLNetModel, XLNetConfig(vocab_size=20, d_model=16, n_layer=1, n_head=2, d_inner=16, **SPECIAL)),
}
PAIRS = [
    {"text": "w5 w6 w7 w8", "text_pair": "w9", "label": "a"},
    {"text": "w5", "text_pair": "w7", "label": "b"},
]
ONE = [{"text": "w5 w6 </s> w8", "label": "a"}, {"text": "w9", "label": "b"}]


def saved(folder: Path, name: str) -> Path:
    """A model of a family, and a tokenizer that gives types of tokens and pads with token 0."""
    make, config = FAMILIES[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        make(config).save_pretrained(folder)
    names = ["<pad>", "<unk>", "<s>", "</s>", *(f"w{number}" for number in range(4, 20))]
    words = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    PreTrainedTokenizerFast(tokenizer_object=words, model_input_names=inputs, **special).save_pretrained(folder)
    return folder


def loaded(folder: Path, task: Task | None = None, **keys: Any) -> Encoder:
    given: dict[str, Any] = {"layers": None, "dropout": None, "seed": 0, "device": "cpu"}
    heads = HeadMap.of_all(task or Classification(("a", "b")))
    return encoders.load(str(folder), heads, **(given | keys))


def logits(encoder: Encoder, records: list[dict[str, str]]) -> torch.Tensor:
    task = encoder.heads.tasks[0]
    inputs, _ = task.collate(list(task.encode(records, encoder.tokenizer, 32)), encoder.pad_id)
    with encoder.evaluating():
        found: torch.Tensor = encoder.model(**inputs).logits
        return found


@pytest.mark.parametrize("name", ["mT5", "GPT-2", "DistilBERT", "ModernBERT", "Llama"])
def test_no_dropout_is_none_in_any_family(name: str) -> None:
    """T5 calls it dropout_rate, GPT-2 pdrop; classifiers of a decoder's tokens have 0.1 that no configuration names."""
    config = type(FAMILIES[name][1])(**FAMILIES[name][1].to_diff_dict())
    set_dropout(config, 0.25)
    assert {module.p for module in dropouts(config)} <= {0.25}
    set_dropout(config, 0.0)
    made = AutoModelForTokenClassification.from_config(config).train()
    set_dropout_of_modules(made, 0.0)
    ids = torch.arange(4, 16).view(2, 6)
    assert torch.equal(made(input_ids=ids).logits, made(input_ids=ids).logits)


def dropouts(config: PretrainedConfig) -> list[nn.Dropout]:
    model = AutoModelForSequenceClassification.from_config(config)
    return [module for module in model.modules() if isinstance(module, nn.Dropout)]


def test_without_dropout_no_layer_is_left_out_either() -> None:
    config = M2M100Config(vocab_size=20, d_model=16, encoder_layerdrop=0.5, decoder_layerdrop=0.5, **BOTH, **SPECIAL)
    set_dropout(config, 0.1)
    assert (config.dropout, config.encoder_layerdrop) == (0.1, 0.5)
    set_dropout(config, 0.0)
    made, ids = M2M100ForConditionalGeneration(config).train(), torch.arange(4, 16).view(2, 6)
    found = [made(input_ids=ids, decoder_input_ids=ids).logits for _ in range(4)]
    assert all(torch.equal(each, found[0]) for each in found)


def test_a_classifier_that_the_configuration_follows_or_names_has_the_dropout() -> None:
    config = RobertaConfig(**SIZES)
    set_dropout(config, 0.0)
    assert config.classifier_dropout is None, "that of the rest"
    config = RobertaConfig(**SIZES, classifier_dropout=0.3)
    set_dropout(config, 0.0)
    assert config.classifier_dropout == 0.0


@pytest.mark.parametrize("name", ["ModernBERT", "Qwen3", "mT5", "GPT-2", "GPT-Neo", "Longformer"])
def test_a_model_with_fewer_layers_is_saved_and_read_again(tmp_path: Path, name: str) -> None:
    """Some configurations say of each layer what it is."""
    encoder = loaded(saved(tmp_path / "whole", name), layers=1)
    assert [*encoder.parts().layers["layers"]] == [0]
    encoder.save(tmp_path / "cut")
    again = loaded(tmp_path / "cut")
    torch.testing.assert_close(logits(again, ONE[1:]), logits(encoder, ONE[1:]))


def test_the_head_of_masked_tokens_is_cut_to_the_layers_of_the_encoder_that_is_put_in(tmp_path: Path) -> None:
    folder = saved(tmp_path, "ModernBERT")
    cut = masked_lm.load(str(folder), layers=1)
    assert cut is not None
    masked_lm.put_in(cut, loaded(folder, layers=1).head("any"))
    assert cut.config.layer_types == (ModernBertConfig(**SIZES, **SPECIAL).layer_types or [])[:1]


def test_what_only_the_head_of_masked_tokens_reads_stays_below_it(tmp_path: Path) -> None:
    """Funnel's classifiers have no decoder."""
    folder = saved(tmp_path, "Funnel")
    model, encoder = masked_lm.load(str(folder), layers=None), loaded(folder)
    assert model is not None
    before = {name: weight.clone() for name, weight in model.base_model.state_dict().items()}
    with torch.no_grad():
        for weight in encoder.model.parameters():
            weight.add_(1)
    masked_lm.put_in(model, encoder.head("any"))
    moved = {name for name, weight in model.base_model.state_dict().items() if not torch.equal(weight, before[name])}
    assert before.keys() - moved == {name for name in before if name.startswith("decoder.")} != set()


def test_a_replay_through_another_body_than_the_tasks_is_refused(tmp_path: Path) -> None:
    heads = HeadMap.of_all(Classification(("a", "b"))).with_replay(MaskedLanguageModelling(()), ["any"])
    with pytest.raises(UserError, match="reads a text by a FunnelBaseModel for one task and by a FunnelModel for"):
        encoders.load(str(saved(tmp_path, "Funnel")), heads, layers=None, dropout=None, seed=0)


def test_a_cut_gpt_neo_says_the_same_of_its_layers_in_both_ways(tmp_path: Path) -> None:
    """Readers other than transformers expand the patterns, and count them."""
    loaded(saved(tmp_path / "whole", "GPT-Neo"), layers=3).save(tmp_path / "cut")
    config = json.loads((tmp_path / "cut" / "config.json").read_text())
    assert (
        config["attention_layers"]
        == ["global", "local", "global"]
        == GPTNeoConfig.expand_attention_types_params(config["attention_types"])
    )


def test_layers_that_a_model_cannot_do_without_are_told(tmp_path: Path) -> None:
    """Gemma 4 has settings of its own for some layers, by their number."""
    gemma4 = pytest.importorskip("transformers.models.gemma4")  # the lowest version of transformers has none
    gemma4.Gemma4TextConfig(vocab_size=20).save_pretrained(tmp_path)
    with pytest.raises(
        UserError, match=r"^layers: .* \(a gemma4_text\) cannot be cut to 2: .*per_layer_config.*range \[0, 2"
    ):
        configuration(str(tmp_path), CausalLM(()), 2)


def test_two_numbers_of_layers_are_not_cut() -> None:
    with pytest.raises(UserError, match=r"^layers: x \(a prophetnet\) has no one row of layers to cut; leave it out$"):
        keep_layers("x", ProphetNetConfig(), 2)


def test_layers_in_stages_are_not_cut() -> None:
    with pytest.raises(UserError, match=r"^layers: x \(a swin\) has no one row of layers to cut; leave it out$"):
        keep_layers("x", SwinConfig(depths=[2, 2, 2, 2]), 2)
    assert SwinModel(SwinConfig(depths=[1, 1], num_heads=[1, 1], embed_dim=8)).config.num_hidden_layers == 2


@pytest.mark.parametrize("task", [Classification(("a", "b")), Tagging(("B-X", "I-X", "O"))])
def test_what_a_new_head_has_of_pretrainings_own_is_kept(
    tmp_path: Path, task: Task, caplog: pytest.LogCaptureFixture
) -> None:
    folder = saved(tmp_path, "ModernBERT")
    encoder, before = loaded(folder, task), ModernBertForMaskedLM.from_pretrained(folder)
    assert torch.equal(encoder.model.get_parameter("head.dense.weight"), before.head.dense.weight)
    assert {name for name, _ in encoder.parameters()} - {name for name, _ in encoder.pretrained_parameters()} == {
        "classifier.weight",
        "classifier.bias",
    }
    assert caplog.text == ""


def test_a_new_square_layer_without_bias_lets_the_state_through(tmp_path: Path) -> None:
    encoder = loaded(saved(tmp_path, "ModernBERT's body"))
    assert torch.equal(encoder.model.get_parameter("head.dense.weight"), 3 * torch.eye(16))


@pytest.mark.parametrize("name", ["Llama", "GPT-2", "Qwen3"])
@pytest.mark.parametrize("trim", [False, True])
def test_a_classifier_of_the_last_token_finds_it_whatever_its_configuration_pads_with(
    tmp_path: Path, name: str, trim: bool
) -> None:
    encoder = loaded(saved(tmp_path / "whole", name))
    if trim:
        encoder.trim(range(9))
    torch.testing.assert_close(logits(encoder, PAIRS)[1:], logits(encoder, PAIRS[1:]))
    encoder.save(tmp_path / "saved")
    torch.testing.assert_close(logits(loaded(tmp_path / "saved"), PAIRS), logits(encoder, PAIRS))


@pytest.mark.parametrize("name", ["DistilBERT", "RoBERTa", "mT5", "GPT-2"])
def test_types_of_tokens_go_to_models_that_have_them(tmp_path: Path, name: str) -> None:
    """Others fail at them, or add the states of the words with those numbers."""
    encoder = loaded(saved(tmp_path, name))
    assert encoder.tokenizer.model_input_names == ["input_ids", "attention_mask"]
    assert logits(encoder, PAIRS).shape == (2, 2)


def test_a_text_may_spell_the_end_token_that_a_head_looks_for(tmp_path: Path) -> None:
    encoder = loaded(saved(tmp_path, "mT5"))
    without = [ONE[0] | {"text": "w5 w6 w8"}, ONE[1]]
    assert torch.equal(logits(encoder, ONE), logits(encoder, without))


def test_a_head_that_reads_the_end_of_a_row_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, "XLNet")
    with pytest.raises(UserError, match="XLNetForSequenceClassification, which reads the end of a row"):
        loaded(folder)
    loaded(folder, Tagging(("B-X", "I-X", "O")))


def test_a_family_without_such_a_head_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a xlnet, which has no ModelForImageClassification in transformers; choose"):
        loaded(saved(tmp_path, "XLNet"), ImageClassification(("a", "b")))


def test_ranking_by_a_decoders_states_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it reads with one half and writes with the other"):
        loaded(saved(tmp_path, "mT5"), Ranking(()))


@pytest.mark.parametrize("task", [Classification(("a", "b")), Tagging(("B-X", "I-X", "O"))])
def test_means_are_of_an_encoders_states(tmp_path: Path, task: Task) -> None:
    folder = saved(tmp_path, "mT5")
    encoder = loaded(folder, task)
    inputs = encoder.tokenizer(["w5 w6", "w7"], padding=True, return_tensors="pt")
    with encoder.evaluating():
        body: Any = encoder.model.base_model
        states = body.get_encoder()(**inputs).last_hidden_state
        torch.testing.assert_close(encoder.mean_states(inputs)[0], states[0].mean(0))
