"""Parses a chat template and puts the counting into it.

Jinja's sandbox lets loops, slices, comparisons and `~` run without a word. So the syntax tree is
rewritten before it is compiled: those become, or are given, calls of filters whose names (`$tick`)
no template can write. Control tokens in literals become marks (`control_marks`) on the same way.

Called once per template, on the loader thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from jinja2 import Environment, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.visitor import NodeTransformer

from leptond.errors import UnsupportedCapability

__all__ = ["CONCAT", "KEY", "SLICE", "TICK", "WEIGH", "GenerationTag", "instrument"]

TICK = "$tick"
"""`units | $tick` pays for one pass through a body, and is true."""
WEIGH = "$weigh"
"""`value | $weigh` pays for a comparison with it."""
SLICE = "$slice"
"""`value | $slice` pays for a slice of it."""
CONCAT = "$concat"
"""`[a, b] | $concat` is `a ~ b`."""
KEY = "$key"
"""`value | $key` is a key of a dict literal, and is checked to be a plain value."""

_NODES_PER_UNIT = 32  # straight code costs little; what costs more is priced where it happens

_REFUSED: dict[type[nodes.Node], str] = {
    nodes.Block: "block",
    nodes.Extends: "extends",
    nodes.FromImport: "from",
    nodes.Import: "import",
    nodes.Include: "include",
    nodes.ScopedEvalContextModifier: "autoescape",
}


class GenerationTag(Extension):
    """`{% generation %}...{% endgeneration %}`: marks an assistant's text for training; no more."""

    tags = {"generation"}  # noqa: RUF012 -- a set, as jinja2 declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return the body as it is."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def instrument(
    environment: Environment, source: str, mark_literal: Callable[[str], str]
) -> nodes.Template:
    """Return the syntax tree of `source` with counting and marks in it.

    Args:
        environment: knows the filters named above.
        source: the template.
        mark_literal: applied to the text and to every string literal of the template.

    Raises:
        TemplateSyntaxError: of jinja2.
        UnsupportedCapability: a tag that chat templates do not have here.
    """
    tree = environment.parse(source)
    for node in tree.find_all(tuple(_REFUSED)):
        tag = _REFUSED[type(node)]
        raise UnsupportedCapability(f"line {node.lineno}: the tag '{tag}' is not supported")
    instrumented = _Instrument(mark_literal).visit(tree)
    instrumented.set_environment(environment)
    return cast(nodes.Template, instrumented)


class _Instrument(NodeTransformer):
    """Rewrites every node of a tree, children first."""

    def __init__(self, mark_literal: Callable[[str], str]) -> None:
        self._mark_literal = mark_literal

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:
        # A constant goes through `finalize`, where output is paid for; plain data does not.
        return nodes.Const(self._mark_literal(node.data), lineno=node.lineno)

    def visit_Const(self, node: nodes.Const) -> nodes.Node:
        if isinstance(node.value, str):
            node.value = self._mark_literal(node.value)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _apply(CONCAT, nodes.List(node.nodes, lineno=node.lineno))

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        # A comparison with a literal takes no longer than the literal is; a search does.
        operands = [node.expr, *(operand.expr for operand in node.ops)]
        searches = any(operand.op in {"in", "notin"} for operand in node.ops)
        if searches or sum(not isinstance(operand, nodes.Const) for operand in operands) > 1:
            node.expr = _weighed(node.expr)
            for operand in node.ops:
                operand.expr = _weighed(operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _apply(SLICE, node.node)
        return node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.key, nodes.Const):
            node.key = _apply(KEY, node.key)
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:
        tick = _tick(node)
        self.generic_visit(node)
        if node.test is not None:  # a pass that the test ends never reaches the body
            node.test = nodes.And(tick, node.test, lineno=node.lineno)
        node.body = [nodes.ExprStmt(tick, lineno=node.lineno), *node.body]
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        tick = _tick(node)
        self.generic_visit(node)
        node.body = [nodes.ExprStmt(tick, lineno=node.lineno), *node.body]
        return node

    visit_CallBlock = visit_Macro  # the body of a call block is a macro, `caller`


def _apply(name: str, value: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(value, name, [], [], None, None, lineno=value.lineno)


def _weighed(operand: nodes.Expr) -> nodes.Expr:
    return operand if isinstance(operand, nodes.Const) else _apply(WEIGH, operand)


def _tick(node: nodes.For | nodes.Macro | nodes.CallBlock) -> nodes.Expr:
    """Return what pays for the straight code of one pass through the body."""
    num_nodes = sum(1 for _ in node.find_all(nodes.Node))
    units = 1 + num_nodes // _NODES_PER_UNIT
    return _apply(TICK, nodes.Const(units, lineno=node.lineno))
