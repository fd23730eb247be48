"""The masked language model that an encoder was pretrained as, where its head came along."""

import torch
from torch import nn
from transformers import MODEL_FOR_MASKED_LM_MAPPING, AutoConfig, AutoModelForMaskedLM, PreTrainedModel

from multitune.models.fetching import fetched
from multitune.models.pretrained import keep_layers
from multitune.models.quiet import quiet


def load(name: str, layers: int | None) -> PreTrainedModel | None:
    """The model with its pretrained head, in fp32, ready to evaluate; None where no such head is shipped.

    The head's word embeddings are a copy of the encoder's: fine-tuned ones may be put into the encoder alone.

    Args:
        name: of the model, or the folder of one whose head was trained on the frozen encoder.
        layers: keep the first so many encoder layers.

    Raises:
        UserError: no such model.
    """
    config = fetched(name, AutoConfig.from_pretrained)
    if type(config) not in MODEL_FOR_MASKED_LM_MAPPING:
        return None
    if layers is not None:
        keep_layers(name, config, layers)
    with quiet(), torch.random.fork_rng(devices=[]):
        model, info = fetched(
            name, AutoModelForMaskedLM.from_pretrained, config=config, dtype=torch.float32, output_loading_info=True
        )
    if info["missing_keys"]:
        return None
    head = model.get_output_embeddings()
    head.weight = nn.Parameter(head.weight.detach().clone())
    masked_lm: PreTrainedModel = model.eval()
    return masked_lm


def put_in(masked_lm: PreTrainedModel, encoder: PreTrainedModel) -> None:
    """Give the language model the weights of ``encoder``'s body, and keep its head.

    What a body has for its head alone stays as pretrained, too, where ``encoder``'s has another head and goes without:
    Funnel's decoder, a pooler.
    """
    own, given = masked_lm.base_model.state_dict(), encoder.base_model.state_dict()
    assert own.keys() & given.keys(), "the fine-tuned model is of another family"
    masked_lm.base_model.load_state_dict(own | given, strict=False)
