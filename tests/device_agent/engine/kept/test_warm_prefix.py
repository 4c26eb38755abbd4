"""Which tokens a system prompt has in every chat, whatever the template does and the user says."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from device_agent.engine.kept.warm import system_prefix
from device_agent.engine.text.prompt import PromptEncoder
from device_agent.loader import read_tokenizer
from edgekit.bundle import open_bundle
from edgekit.chat import Message, bundle_template
from edgekit.errors import TemplateError
from tests.device_agent import bundles


def chat_of(folder: Path) -> Callable[[Sequence[Message]], Sequence[int]]:
    bundle = open_bundle(folder)
    tokenizer = read_tokenizer(bundle)
    template = bundle_template(bundle, tokenizer.id_to_token)
    return PromptEncoder(tokenizer, template, bos=bundle.manifest.tokens.bos).chat


@pytest.mark.parametrize("user", ["a", "hello and then", "  spaces", "\n\nlines", "<|im_end|>", "7", "ä", ""])
def test_every_chat_with_the_system_prompt_begins_with_the_prefix(user: str) -> None:
    chat = chat_of(bundles.TINY)
    prefix = system_prefix(chat, "You and the hello man are helpful.")
    whole = chat(
        [Message(role="system", content="You and the hello man are helpful."), Message(role="user", content=user)]
    )
    assert tuple(whole[: len(prefix)]) == prefix
    without = chat([Message(role="user", content=user)])
    assert len(prefix) > len(whole) - len(without) - 5  # the system turn, and where the user's begins


def words(text: str) -> list[int]:
    return list(text.encode())


def by(render: Callable[[str, str], str]) -> Callable[[Sequence[Message]], Sequence[int]]:
    def encode(messages: Sequence[Message]) -> Sequence[int]:
        system, user = messages
        assert (system.role, user.role) == ("system", "user")
        return words(render(system.content, user.content))

    return encode


ODD = {
    "system inside the user's turn": (by(lambda system, user: f"[{system}|{user}]"), "[be kind|"),
    "user first": (by(lambda system, user: f"{user}{system}"), ""),
    "no system": (by(lambda _, user: f"<{user}>"), "<"),
    "system last": (by(lambda system, user: f"#{user}#{system}"), "#"),
    "empty": (by(lambda _system, _user: ""), ""),
    "always the same": (by(lambda system, _: system), "be kind"),
}


@pytest.mark.parametrize(("encode", "expected"), ODD.values(), ids=ODD)
def test_odd_templates_give_what_their_chats_have_in_common(
    encode: Callable[[Sequence[Message]], Sequence[int]], expected: str
) -> None:
    assert system_prefix(encode, "be kind") == tuple(words(expected))


def test_a_template_that_writes_something_else_each_time_gives_nothing() -> None:
    count = iter(range(100))
    assert system_prefix(by(lambda system, user: f"{next(count)} {system} {user}"), "be kind") == ()


def test_a_token_that_joins_the_prompt_and_the_user_is_left_out() -> None:
    def joining(messages: Sequence[Message]) -> Sequence[int]:
        system, user = (message.content for message in messages)
        return [*words(system + ":"), 1000] if user == "\n" else words(f"{system}:\n{user}")

    assert system_prefix(joining, "be kind") == tuple(words("be kind:"))


def test_a_template_that_refuses_system_prompts_gives_nothing() -> None:
    def refuse(_messages: Sequence[Message]) -> Sequence[int]:
        raise TemplateError("System role not supported")

    assert system_prefix(refuse, "be kind") == ()


def test_no_system_prompt_is_no_prefix() -> None:
    assert system_prefix(by(lambda system, user: f"same {system}{user}"), "") == ()
