"""How many tokens a model has positions for."""

from torch import nn


def positions(model: nn.Module) -> int | None:
    """The most tokens that every table of learnt or fixed positions in ``model`` has room for.

    None where there is no such table: relative and rotary positions have no end. RoBERTa's first position is the one
    after its padding token's number, and BART's tables begin with ``offset`` rows that no token has.
    """
    tables = (module for name, module in model.named_modules() if isinstance(module, nn.Embedding) and _is_table(name))
    rooms = [table.num_embeddings - _first_row(table) for table in tables]
    return min(rooms, default=None)


def count_from_padding(model: nn.Module) -> bool:
    """Whether numbers of positions begin after the padding token's, as in RoBERTa: the token has to keep its number."""
    named = ((name.rpartition(".")[2], module) for name, module in model.named_modules())
    return any("position" in last and getattr(module, "padding_idx", None) is not None for last, module in named)


def _is_table(name: str) -> bool:
    last = name.rpartition(".")[2]
    return last == "wpe" or ("position" in last and "relative" not in last)


def _first_row(table: nn.Embedding) -> int:
    padding = table.padding_idx
    offset = getattr(table, "offset", 0)
    return int(offset) if padding is None or offset else padding + 1
