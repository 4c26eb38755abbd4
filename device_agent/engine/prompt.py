"""From text to ids, so that nobody but the template can speak in special tokens.

A chat template writes control tokens such as <|im_start|>; so might a user's message. In the rendered
prompt both look alike, and a tokenizer would let the user open a system turn. Here control tokens
are only looked for outside of the messages: those inside are encoded as the plain text that they are.
"""

import re
from collections.abc import Sequence

import tokenizers

from edgekit.chat import ChatTemplate, Message

_MARKS = tuple(chr(0xF0000 + i) for i in range(64))
"""Private characters (Unicode plane 15): one that no message contains is put inside control tokens to hide them."""


class PromptEncoder:
    """Ids of chats and of plain text. `bos` is put first only where the model's files ask for it."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, template: ChatTemplate | None, *, bos: int | None) -> None:
        tokenizer.encode_special_tokens = True  # control tokens in text are text; we place the real ones by id
        self._tokenizer = tokenizer
        self._template = template
        self._bos = bos
        added = tokenizer.get_added_tokens_decoder()
        self._controls = {token.content: token_id for token_id, token in added.items() if token.special}
        longest_first = sorted(self._controls, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    @property
    def has_template(self) -> bool:
        """Whether the model knows chats."""
        return self._template is not None

    def text(self, text: str) -> tuple[int, ...]:
        """Ids of plain text."""
        first = [] if self._bos is None else [self._bos]
        return (*first, *self._encode(text))

    def chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Ids of a rendered chat; without a template, of the messages one after the other.

        Raises TemplateError if the template refuses the messages.
        """
        if self._template is None:
            return self.text("\n".join(message.content for message in messages) + "\n")
        if self._pattern is None:
            return tuple(self._encode(self._template.render(messages)))
        contents = "".join(message.content for message in messages)
        mark = next((mark for mark in _MARKS if mark not in contents), None)
        if mark is None:  # a message with all of them: give up marking, not safety
            messages, mark = [_without_marks(message) for message in messages], _MARKS[0]
        hidden = [Message(role=m.role, content=self._hide(m.content, mark)) for m in messages]
        return tuple(self._encode_rendered(self._template.render(hidden), mark))

    def _hide(self, content: str, mark: str) -> str:
        assert self._pattern is not None
        return self._pattern.sub(lambda match: match[0][0] + mark + match[0][1:], content)

    def _encode_rendered(self, rendered: str, mark: str) -> list[int]:
        """Control tokens by id, what stands between them as text: a tokenizer splits there anyway."""
        assert self._pattern is not None
        ids: list[int] = []
        at = 0
        for match in self._pattern.finditer(rendered):
            ids += self._encode(rendered[at : match.start()].replace(mark, ""))
            ids.append(self._controls[match[0]])
            at = match.end()
        return ids + self._encode(rendered[at:].replace(mark, ""))

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids) if text else []


def _without_marks(message: Message) -> Message:
    plain = message.content.translate(dict.fromkeys(map(ord, _MARKS)))
    return Message(role=message.role, content=plain)
