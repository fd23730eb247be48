"""What ``multitune probe`` measures on a finished run: probes.json."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from multitune.results.json_files import JsonFile
from multitune.results.run import Language, Sides

FILE = "probes.json"

Layer = Annotated[str, "layer"]
Matrix = list[list[float]]


@dataclass(frozen=True, kw_only=True)
class GradientSimilarity:
    """Languages' gradients on a held-out batch each; with pseudo-tasks, these are the languages.

    Attributes:
        languages: the training languages, ordered by family.
        families: the family of each, in the same order; null where it is not known.
        cosine: the mean of ``cosines`` over pairs of different languages.
        cosines: pairwise cosine of the gradients of all shared weights; the diagonal is 1.
        norms: the L2 norm of each language's gradient.
        losses: each language's loss on its batch.
    """

    languages: list[str]
    families: list[str | None]
    cosine: float
    cosines: Matrix
    norms: list[float]
    losses: list[float]


@dataclass(frozen=True)
class LayerSimilarity:
    """The gradients of one layer's weights.

    Attributes:
        cosine: the mean over pairs.
        cosines: pairwise cosine, in the order of the languages.
    """

    cosine: float
    cosines: Matrix


@dataclass(frozen=True, kw_only=True)
class LayeredSimilarity(GradientSimilarity):
    """Languages' gradients on a held-out batch each, layer by layer.

    Attributes:
        layers: those of each layer, from the input to the head.
    """

    layers: dict[Layer, LayerSimilarity]

    @property
    def cosine_by_layer(self) -> dict[str, float]:
        """Layer -> the mean over pairs."""
        return {layer: similarity.cosine for layer, similarity in self.layers.items()}


@dataclass(frozen=True)
class LanguagePair:
    """Two languages.

    Attributes:
        languages: both of them.
        distance: their genealogical distance: 0 for one language, 1 for unrelated ones.
        cosine: of their gradients.
    """

    languages: list[str]
    distance: float
    cosine: float


@dataclass(frozen=True)
class Proximity:
    """Whether related languages have similar gradients.

    Attributes:
        spearman: Spearman's correlation of genealogical distance with the cosines.
        p: its two-sided p-value under permutation of the languages (a Mantel test).
        permutations: how many were drawn.
        distance: how distances are computed.
        pairs: every pair of languages whose family is known.
    """

    spearman: float
    p: float
    permutations: int
    distance: str
    pairs: list[LanguagePair]


@dataclass(frozen=True)
class BeforeAfter:
    """An average over languages; null without such languages, or where a value is not finite.

    Attributes:
        pretrained: with the encoder that the run began with.
        tuned: with the run's.
    """

    pretrained: float | None
    tuned: float | None


@dataclass(frozen=True, kw_only=True)
class Skill:
    """What the encoder could do before fine-tuning, and still can.

    Attributes:
        pretrained: by language, with the encoder that the run began with; null where it is not finite.
        tuned: by language, with the run's; null where it is not finite.
        average: of either over seen and over unseen languages.
    """

    pretrained: dict[Language, float | None]
    tuned: dict[Language, float | None]
    average: Sides[BeforeAfter]


@dataclass(frozen=True, kw_only=True)
class MaskedTokens(Skill):
    """The loss of masked tokens, in nats a token.

    Attributes:
        head: ``pretrained`` for the model's own, or the model whose head was trained on the frozen encoder.
    """

    head: str


@dataclass(frozen=True, kw_only=True)
class Retrieval(Skill):
    """How often the translation of a text is the nearest of all, in percent.

    Attributes:
        pairs: which texts.
        size: how many of each language.
    """

    pairs: str
    size: dict[Language, int]


@dataclass(frozen=True, kw_only=True)
class NextTokens(Skill):
    """The loss of texts under a causal language model's own head, in nats a byte of UTF-8.

    Attributes:
        texts: which.
        size: how many of each language; those that the run does not have count as unseen.
        divergence: KL(pretrained || tuned) of the distributions of the next token on these texts, in nats, by language;
            the mean over tokens; null where it is not finite.
        average_divergence: of it over seen and over unseen languages; null without such languages.
    """

    texts: str
    size: dict[Language, int]
    divergence: dict[Language, float | None]
    average_divergence: Sides[float | None]


@dataclass(frozen=True)
class GeneralAnswer:
    """What a causal language model says to a prompt that no run trains on; greedy, at most 48 tokens.

    Attributes:
        prompt: what it is asked.
        pretrained: the answer of the model that the run began with.
        tuned: that of the run's.
    """

    prompt: str
    pretrained: str
    tuned: str


@dataclass(frozen=True)
class Drift:
    """How far fine-tuning moved the pretrained weights, new heads and poolers excluded; null where not finite.

    Attributes:
        total: L2 distance of all of them.
        layers: L2 distance of each layer's; the root of the sum of their squares is ``total``.
    """

    total: float | None
    layers: dict[Layer, float | None]


@dataclass(frozen=True)
class ProbedRun:
    """Which run was probed.

    Attributes:
        method: its name.
        seed: the run's.
        budget: gradient computations spent.
    """

    method: str
    seed: int
    budget: int


@dataclass(frozen=True, kw_only=True)
class Findings(JsonFile):
    """What the probes of a finished run measured; null where one could not, and ``notes`` says why.

    Attributes:
        run: which run.
        seen: the languages that it trained on.
        unseen: those that it was only tested on.
        gradient_similarity: whether the languages' gradients point the same way; null for a single language.
        proximity: whether related languages have similar gradients; null below four languages whose family is known.
        masked_lm: the loss of masked tokens; null where the model ships no such head and none was given.
        retrieval: translations found; null without pairs of texts.
        next_tokens: the loss of texts and the divergence from the pretrained model; null where this is no causal
            language model.
        answers: to general prompts; none where this is no causal language model.
        drift: how far the weights moved.
        notes: what is null, and why.
        seconds: that each probe took.
        versions: as in results.json.
    """

    NAME: ClassVar[str] = FILE
    SCHEMA: ClassVar[int] = 1

    run: ProbedRun
    seen: list[str]
    unseen: list[str]
    gradient_similarity: LayeredSimilarity | None
    proximity: Proximity | None
    masked_lm: MaskedTokens | None
    retrieval: Retrieval | None
    drift: Drift
    notes: list[str]
    seconds: dict[Annotated[str, "probe"], float]
    versions: dict[Annotated[str, "name"], str]
    next_tokens: NextTokens | None = None
    answers: list[GeneralAnswer] = field(default_factory=list)
