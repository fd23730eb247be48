"""One run: from its recipe to the loop, with all that keeps it from being lost."""
