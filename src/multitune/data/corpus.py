"""What a data set of one's own is made of: records by language and split, and what a recipe asks of them."""

from multitune.data.records.corpus import Corpus, Head, Place, Placed, Record, Wanted

__all__ = ["Corpus", "Head", "Place", "Placed", "Record", "Wanted"]
