"""TRL's SFTTrainer with a LoRA of PEFT's and GradVac, on a tiny random Llama and three languages."""

import tempfile
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed
from trl import SFTConfig, SFTTrainer

from multitune.hf import MultitaskMixin

TEXTS = {"de": "de guten tag liebe welt", "fi": "fi hyvaa paivaa maailma", "sw": "sw habari dunia"}


class MultitaskSFTTrainer(MultitaskMixin, SFTTrainer):  # type: ignore[misc]
    """SFTTrainer with any of multitune's methods."""


set_seed(0)
words = ["<pad>", "<eos>", *sorted({word for text in TEXTS.values() for word in text.split()})]
made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<pad>"))
made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<eos>")
data = {name: Dataset.from_list([{"text": f"{text} <eos>", "language": name}] * 20) for name, text in TEXTS.items()}
shape: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
config = LlamaConfig(
    vocab_size=len(words), pad_token_id=0, eos_token_id=1, bos_token_id=None, initializer_range=0.5, **shape
)

with tempfile.TemporaryDirectory() as folder:
    trainer = MultitaskSFTTrainer(
        LlamaForCausalLM(config),
        SFTConfig(
            folder,
            max_steps=120,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=3,  # GradVac: the languages of a step, one of each micro-batch
            learning_rate=3e-2,
            disable_tqdm=True,
            report_to=[],
            use_cpu=True,
            bf16=False,
        ),
        train_dataset=Dataset.from_list([row for rows in data.values() for row in rows]),
        eval_dataset=data,
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=8, target_modules="all-linear", modules_to_save=["embed_tokens"], task_type="CAUSAL_LM"
        ),
        task_column="language",
        method="gradvac",
    )
    trainer.train()
    scores = trainer.evaluate()
print({name: round(scores[f"eval_{name}_loss"], 4) for name in TEXTS})
