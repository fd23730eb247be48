"""Scores of languages, and their means."""

from multitune.hf.metrics import with_means


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
