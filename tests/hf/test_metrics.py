"""Scores of languages, and their means."""

import pytest

from multitune.hf.metrics import name_after, with_means


def test_means_are_of_metrics_that_all_data_sets_have() -> None:
    """Also of those that a trainer logs without the data set's name."""
    metrics, means = with_means(
        {
            "en": {"eval_en_loss": 1.0, "eval_en_runtime": 3.0, "eval_entropy": 4.0, "epoch": 2.0},
            "en_x": {
                "eval_en_x_loss": 2.0,
                "eval_en_x_runtime": 5.0,
                "eval_entropy": 6.0,
                "eval_en_x_f1": 0.5,
                "epoch": 2.0,
            },
        },
        "eval",
    )
    assert means == {"eval_loss": 1.5, "eval_entropy": 5.0}
    assert (metrics["eval_en_entropy"], metrics["eval_en_x_entropy"]) == (4.0, 6.0)
    assert (metrics["eval_en_loss"], metrics["eval_en_x_f1"], metrics["epoch"]) == (1.0, 0.5, 2.0)


@pytest.mark.parametrize("other", [{"PER": {"f1": 0.5}}, [[1, 2], [3, 4]], None, "good"], ids=str)
def test_what_is_no_number_stays_and_has_no_mean(other: object) -> None:
    """As the entities of seqeval, a confusion matrix, a text."""
    metrics, means = with_means(
        {name: {f"eval_{name}_f1": f1, f"eval_{name}_more": other} for name, f1 in (("de", 1.0), ("sw", 0.5))}, "eval"
    )
    assert means == {"eval_f1": 0.75}
    assert metrics["eval_de_more"] == metrics["eval_sw_more"] == other


@pytest.mark.parametrize("prefix", ["eval", "test", "eval_final"])
def test_what_a_trainer_logs_under_its_own_prefix_is_named_too(prefix: str) -> None:
    """TRL's say ``eval_`` whatever ``metric_key_prefix`` is."""
    metrics = {f"{prefix}_de_loss": 1.0, "eval_entropy": 2.0, "epoch": 3.0}
    name_after(metrics, prefix, "de")
    assert metrics == {f"{prefix}_de_loss": 1.0, f"{prefix}_de_entropy": 2.0, "epoch": 3.0}
