"""Counters in a template's syntax tree, before it is compiled."""

from collections.abc import Sequence
from typing import cast

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.visitor import NodeTransformer

STEP, WEIGHED, SLICED, CONCAT = "count steps", "weigh a value", "copy a part", "put texts together"
"""Filters that only this module can name: a template's own have no spaces."""

MAX_NODES = 30_000
"""The largest templates of known models have a few thousand; compiling takes a second for 20,000."""

_NODES_A_STEP = 16


def metered(tree: nodes.Template, environment: Environment) -> nodes.Template:
    """The same template, counted.

    Raises TemplateSyntaxError for what needs other files, or switches escaping on, or has more than MAX_NODES parts.
    """
    if sum(1 for _ in tree.find_all(nodes.Node)) > MAX_NODES:
        raise TemplateSyntaxError(f"it has more than {MAX_NODES:,} parts", 1)
    tree = cast("nodes.Template", _Meter().visit(tree))
    return cast("nodes.Template", tree.set_environment(environment))


def _filtered(name: str, node: nodes.Expr) -> nodes.Filter:
    return cast("nodes.Filter", nodes.Filter(node, name, [], [], None, None).set_lineno(node.lineno))


def _steps(count: int, lineno: int) -> nodes.Filter:
    return _filtered(STEP, cast("nodes.Expr", nodes.Const(count).set_lineno(lineno)))


def _statement(count: int, lineno: int) -> nodes.ExprStmt:
    return cast("nodes.ExprStmt", nodes.ExprStmt(_steps(count, lineno)).set_lineno(lineno))


class _Meter(NodeTransformer):
    """Counts loops' passes and macros' bodies by their size, text by its length; weighs what is made or compared."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        count = _size(node.body)
        self.generic_visit(node)
        if node.test is not None:
            node.test = nodes.And(_steps(_size([node.test]), node.lineno), node.test).set_lineno(node.lineno)
        node.body.insert(0, _statement(count, node.lineno))
        return node

    def _counted_body(self, node: nodes.Macro | nodes.CallBlock | nodes.Block) -> nodes.Node:
        count = _size(node.body)
        self.generic_visit(node)
        node.body.insert(0, _statement(count, node.lineno))
        return node

    visit_Macro = visit_CallBlock = visit_Block = _counted_body

    def visit_Output(self, node: nodes.Output) -> nodes.Node | list[nodes.Node]:
        size = sum(len(child.data) for child in node.nodes if isinstance(child, nodes.TemplateData))
        self.generic_visit(node)
        return [_statement(1 + size // 1024, node.lineno), node] if size else node

    def _weighed(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(WEIGHED, node)

    visit_List = visit_Dict = _weighed

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        return self._weighed(node) if node.ctx == "load" else node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        parts = cast("nodes.List", nodes.List(node.nodes).set_lineno(node.lineno))
        return _filtered(CONCAT, parts)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _filtered(SLICED, node.node)
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _unless_constant(node.expr)
        for operand in node.ops:
            operand.expr = _unless_constant(operand.expr)
        return node

    def visit_Test(self, node: nodes.Test) -> nodes.Node:
        self.generic_visit(node)
        if node.args:  # "is in", "is eq": the others look at a type or a number
            node.node = _unless_constant(node.node)
            node.args = [_unless_constant(arg) for arg in node.args]
        return node

    def _refused(self, node: nodes.Node) -> nodes.Node:
        raise TemplateSyntaxError(f"{type(node).__name__} is not for chat templates", node.lineno)

    visit_Include = visit_Import = visit_FromImport = visit_Extends = _refused
    visit_ScopedEvalContextModifier = visit_EvalContextModifier = _refused


def _unless_constant(node: nodes.Expr) -> nodes.Expr:
    return node if isinstance(node, nodes.Const) else _filtered(WEIGHED, node)


def _size(body: Sequence[nodes.Node]) -> int:
    """Steps that a body costs, by its parts."""
    return 1 + sum(1 for node in body for _ in node.find_all(nodes.Node)) // _NODES_A_STEP
