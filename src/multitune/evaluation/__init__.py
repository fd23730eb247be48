"""Examples of a corpus, predictions of a model, scores and their intervals."""
