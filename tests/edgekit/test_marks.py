import pytest

from edgekit.marks import MARKS, marks_in

THINK = MARKS[0]
SPEAKS = "{{ '<think>' + reasoning }}"


@pytest.mark.parametrize(
    ("prompt", "template", "opening"),
    [
        ("<|im_start|>assistant\n", SPEAKS, "<think>\n\n</think>\n\n"),
        ("<|im_start|>assistant\n<think>\n", SPEAKS, "</think>\n\n"),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", SPEAKS, ""),
        ("<|im_start|>assistant\n", "{{ content.split('</think>')[-1] }}", ""),
        ("<|im_start|>assistant\n", "{{ content }}", ""),
    ],
    ids=["reasons", "opened by the template", "closed by the template", "takes old marks out", "knows none"],
)
def test_what_an_answer_begins_with_so_that_there_is_no_reasoning(prompt: str, template: str, opening: str) -> None:
    assert THINK.skipping(prompt, template=template) == opening


def test_a_template_speaks_of_a_models_marks() -> None:
    assert marks_in(SPEAKS) == THINK
    assert marks_in("[/THINK]") == MARKS[1]
    assert marks_in("{{ messages }}") is None
