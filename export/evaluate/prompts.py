"""Questions -> prompts, by the model's own chat template or as plain text to be continued."""

from collections.abc import Sequence

import tokenizers

from edgekit import contract
from edgekit.bundle import Bundle
from edgekit.chat import Message, bundle_template
from edgekit.errors import CorruptBundle, UsageError
from edgekit.marks import marks_in
from export.evaluate.questions import Question

_MAX_TOKENIZER_BYTES = 256 << 20


class Prompts:
    """Prompts of one model. `raw` leaves the chat template out.

    Raises CorruptBundle if the bundle's tokenizer or template is not one.
    """

    def __init__(self, bundle: Bundle, *, raw: bool) -> None:
        tokens = bundle.manifest.tokens
        self.tokenizer = read_tokenizer(bundle)
        self.eos = frozenset(tokens.eos)
        self._template = None if raw else bundle_template(bundle, self.tokenizer.id_to_token)
        self._marks = None if self._template is None else marks_in(self._template.source)
        self._start = [] if tokens.bos is None else [tokens.bos]

    def prompt(self, question: Question, shots: Sequence[Question]) -> str:
        """Everything before the answer: solved examples and the question, as turns or as paragraphs."""
        if self._template is None:
            solved = [f"{self._asked(each)}{self.lead(each)}{each.answer}\n\n" for each in shots]
            return "".join((*solved, self._asked(question)))
        return self._template.render(self.conversation(question, shots))

    def conversation(self, question: Question, shots: Sequence[Question]) -> list[Message]:
        """Solved examples and the question, as turns."""
        turns = []
        for each in shots:
            turns += [Message(role="user", content=each.request + each.instruction)]
            turns += [Message(role="assistant", content=each.opening + each.answer)]
        return [*turns, Message(role="user", content=question.request + question.instruction)]

    def rendered(self, messages: Sequence[Message]) -> str:
        """Turns as the model reads them, up to where it answers; it is kept from reasoning by itself.

        Raises TemplateError, and UsageError where there is no template.
        """
        if self._template is None:
            raise UsageError("Strategies are conversations: they need a model with a chat template, and no --raw.")
        prompt = self._template.render(messages)
        return prompt + (self._marks.skipping(prompt, template=self._template.source) if self._marks else "")

    def _asked(self, question: Question) -> str:
        return question.request + question.cue + question.opening

    def given(self, question: Question) -> str:
        """How much of the answer the prompt holds already: its opening, in plain text."""
        return question.opening if self._template is None else ""

    def lead(self, question: Question) -> str:
        """What stands between prompt and answer: a space in plain text, unless a line ended."""
        return "" if self._template is not None or question.opening else " "

    def ids(self, text: str) -> list[int]:
        """Ids of a prompt, with or without an answer behind it."""
        # A template writes control tokens, and its own BOS; in plain text they are text.
        self.tokenizer.encode_special_tokens = self._template is None
        start = self._start if self._template is None else []
        return [*start, *self.tokenizer.encode(text, add_special_tokens=False).ids]


def read_tokenizer(bundle: Bundle) -> tokenizers.Tokenizer:
    """The bundle's tokenizer. Raises CorruptBundle."""
    raw = bundle.read(contract.TOKENIZER_FILE, limit_bytes=_MAX_TOKENIZER_BYTES)
    try:
        tokenizer = tokenizers.Tokenizer.from_buffer(raw)
    except Exception as error:  # the library raises plain Exception
        raise CorruptBundle(str(bundle.folder), f"{contract.TOKENIZER_FILE}: {error}") from error
    tokenizer.no_truncation()  # a tokenizer.json may ask for both, with lengths of its author's own
    tokenizer.no_padding()
    return tokenizer
