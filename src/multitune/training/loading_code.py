"""The lines of Python that load a shipped model and ask it something; tests run them."""

from multitune.tasks import MultiLabel, Task

LOADED_FROM = 'name = "model"'
"""Where the code finds the model beside the run; ``multitune push`` writes the Hub's name there."""

_LABELS = "print([model.config.id2label[n] for n in outputs.logits.argmax(-1).flatten().tolist()])"
_SEVERAL_LABELS = "print([model.config.id2label[n] for n in (outputs.logits[0] > 0).nonzero().flatten().tolist()])"
_NUMBER = "print(outputs.logits.item())"
_ASKED: dict[str, tuple[str, ...]] = {
    "AutoModel": (
        'inputs = processor(["A text", "Another text"], padding=True, return_tensors="pt")',
        'states, mask = model(**inputs).last_hidden_state, inputs["attention_mask"][..., None]',
        "means = (states * mask).sum(1) / mask.sum(1)",
        "embeddings = means / means.norm(dim=-1, keepdim=True)",
        "print((embeddings[0] @ embeddings[1]).item())",
    ),
    "AutoModelForCausalLM": (
        'text, chat = "A text", processor.chat_template is not None',
        "if chat:",
        '    turns = [{"role": "user", "content": text}]',
        "    text = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)",
        'inputs = processor(text, add_special_tokens=not chat, return_tensors="pt")',
        "outputs = model.generate(**inputs, max_new_tokens=40, do_sample=False)",
        'print(processor.decode(outputs[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))',
    ),
    "AutoModelForImageClassification": (
        'image = np.zeros((32, 32, 3), dtype="uint8")  # height, width, colours',
        'outputs = model(**processor(images=image, return_tensors="pt"))',
        _LABELS,
    ),
    "AutoModelForMaskedLM": (
        'inputs = processor(f"A {processor.mask_token} text", return_tensors="pt")',
        'guess = model(**inputs).logits[inputs["input_ids"] == processor.mask_token_id].argmax(-1)',
        "print(processor.decode(guess))",
    ),
    "AutoModelForQuestionAnswering": (
        'inputs = processor("A question?", "A text with its answer.", return_tensors="pt")',
        "outputs = model(**inputs)",
        "first, last = outputs.start_logits.argmax(), outputs.end_logits.argmax()",
        'print(processor.decode(inputs["input_ids"][0, first : last + 1]))',
    ),
    "AutoModelForSeq2SeqLM": (
        'outputs = model.generate(**processor("A text", return_tensors="pt"), max_new_tokens=40)',
        "print(processor.decode(outputs[0], skip_special_tokens=True))",
    ),
    "AutoModelForSequenceClassification": ('outputs = model(**processor("A text", return_tensors="pt"))',),
    "AutoModelForTokenClassification": ('outputs = model(**processor("A text", return_tensors="pt"))', _LABELS),
}
"""Auto class -> how a model that it loads is asked."""


def loading_code(task: Task, folder: str) -> str:
    """Python that loads the model of a kind of task with the Auto classes, and asks it where that is known.

    Args:
        folder: below ``model/``; "" for ``model/`` itself.
    """
    auto, processor = task.auto_model.__name__, task.auto_processor.__name__
    where = f"name, subfolder={folder!r}" if folder else "name"
    asked = list(_ASKED.get(auto, ()))
    if auto == "AutoModelForSequenceClassification":
        asked.append(_NUMBER if not task.labels else _SEVERAL_LABELS if isinstance(task, MultiLabel) else _LABELS)
    return "\n".join(
        [
            *(["import numpy as np"] if any("np." in line for line in asked) else []),
            f"from transformers import {', '.join(sorted((auto, processor)))}",
            "",
            LOADED_FROM,
            f"processor = {processor}.from_pretrained({where})",
            f"model = {auto}.from_pretrained({where})",
            *asked,
        ]
    )
