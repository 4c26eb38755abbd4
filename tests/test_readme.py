"""The README says only what is true: its commands, options, fields, files and links exist."""

import importlib.metadata
import json
import re
import shlex
import tomllib
from functools import cache

import bootstrap
import click
import pytest

from device_agent import Model
from device_agent.http.schema.table import table
from edgekit import contract
from edgekit.cli import EXIT_CODES
from tests.imports import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced code blocks of one language ("" for none)."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for named, text in found if named == language]


def section(title: str) -> str:
    """The text below a heading, up to the next one of any level."""
    return README.split(f"# {title}\n", 1)[1].split("\n#", 1)[0]


def rows(title: str) -> list[list[str]]:
    """Cells of the first table in a section, without its head. An escaped bar stays inside its cell."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def verb_rows() -> list[list[str]]:
    """Usage, purpose and JSON fields of every verb."""
    return [[row[0].strip("`"), *row[1:]] for row in rows("Commands") if row[0].startswith("`edgekit ")]


@cache
def verb(name: str) -> click.Command:
    (entry,) = importlib.metadata.entry_points(group="edgekit.verbs", name=name)
    command: click.Command = entry.load()
    return command


def options_of(name: str) -> set[str]:
    """A verb's, with those of its commands if it is a group of them."""
    found = verb(name)
    commands = [found, *(found.commands.values() if isinstance(found, click.Group) else ())]
    params = [parameter for command in commands for parameter in command.params]
    return {option for parameter in params for option in parameter.opts if option.startswith("-")}


def edgekit_lines() -> list[str]:
    """Every `edgekit` command of the shell blocks and of the table."""
    shell = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("edgekit ")]
    return shell + [row[0] for row in verb_rows()]


@pytest.mark.parametrize("line", edgekit_lines())
def test_every_verb_and_option_exists(line: str) -> None:
    words = shlex.split(re.sub(r"[\[\]]", " ", line), comments=True)
    assert {word for word in words if re.match(r"--?[a-z]", word)} <= options_of(words[1])


def test_the_table_lists_every_verb_with_every_option() -> None:
    listed = {usage.split()[1]: usage for usage, _, _ in verb_rows()}
    assert set(listed) == {entry.name for entry in importlib.metadata.entry_points(group="edgekit.verbs")}
    for name, usage in listed.items():
        long = {option for option in options_of(name) if option.startswith("--")} - {"--json", "--help"}
        told = set(re.findall(r"--[a-z-]+", usage)) | ({"--output"} if "-o " in usage else set())
        assert told == long, name


def test_every_verb_takes_json_as_promised() -> None:
    without = {usage.split()[1] for usage, _, fields in verb_rows() if not fields}
    for entry in importlib.metadata.entry_points(group="edgekit.verbs"):
        assert ("--json" in options_of(entry.name)) == (entry.name not in without), entry.name


def test_examples_that_can_be_parsed_are() -> None:
    for line in edgekit_lines():
        words = shlex.split(line, comments=True)
        if "[" not in line and "DIR" not in words and words[1] != "families":
            verb(words[1]).make_context(words[1], words[2:], resilient_parsing=False)


def test_exit_codes_are_those_of_the_help() -> None:
    told = re.findall(r"^\| (\d[\d-]*) \|", README, re.MULTILINE)
    assert told
    assert told == re.findall(r"(?:^|\s)(\d+(?:-\d+)?) (?=\w)", EXIT_CODES)


@pytest.mark.parametrize("block", blocks("python"))
def test_python_examples_are_python(block: str) -> None:
    compile(block, "README.md", "exec")


def test_the_in_process_example_uses_what_exists() -> None:
    (example,) = [block for block in blocks("python") if "device_agent" in block]
    used = set(re.findall(r"\b[Mm]odel\.(\w+)\(", example))
    assert used
    assert not [name for name in used if not hasattr(Model, name)]


def test_the_table_of_parameters_is_made_of_the_forms() -> None:
    """When it is not: put what `table` returns between the marks."""
    told = README.split("<!-- parameters", 1)[1].split("-->\n", 1)[1].split("<!-- end of parameters -->")[0]
    assert told == table()


def test_the_curl_example_sends_json() -> None:
    (curl,) = [block for block in blocks("sh") if block.startswith("curl")]
    words = shlex.split(curl)
    assert json.loads(words[words.index("-d") + 1])["messages"]


def test_the_tree_is_the_real_one() -> None:
    (tree,) = [block for block in blocks("") if "edgekit/" in block]
    drawn = {line.split()[0].rstrip("/") for line in tree.splitlines()}
    real = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    assert drawn == real - {"build", "dist", "edgekit.egg-info"}


def test_every_link_inside_the_project_leads_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert not [link for link in links if not (ROOT / link.split("#")[0]).exists()]


def test_the_bundle_table_names_the_files_of_the_format() -> None:
    told = {name for row in rows("The bundle") for name in re.findall(r"`([^`]+)`", row[0])}
    assert told == {value for name, value in vars(contract).items() if name.endswith("_FILE")}


def test_extras_and_python_version_exist_as_told() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(re.findall(r'"\.\[(\w+)\]"', README)) <= set(project["optional-dependencies"])
    assert f"Python {project['requires-python'].removeprefix('>=')} or newer" in README


def test_the_two_commands_and_their_options_are_those_of_the_bootstrap() -> None:
    parse = bootstrap._parser().parse_args
    commands = re.findall(r"bootstrap\.py (\w+)", README)
    assert [parse([command]).command for command in commands] == ["demo", "test"]
    options = re.findall(r"`demo (--\w+)( PATH)?`", README)
    assert len(options) == 4
    for option, value in options:
        parse(["demo", option, *value.split()])
