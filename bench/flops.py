"""How many floating-point operations a ray costs, counted from the source of the kernel that traces it.

The code of a ray is straight: no branch is taken or left, a select evaluates both sides. So its source is
walked once, into every kernel function that it calls, and each +, -, *, / and square root between floats
counts one (a fused multiply-add counts two, as in the peak that it is compared with). Minima, maxima,
absolute values, roundings, selects and comparisons are counted apart, integer and bit operations too: they
take time and are no FLOP. What does not change along a line of rays (the model's unpacking, scale factors)
lies outside the loop and is not counted.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from arcforge.kernels import adaptive, lens_sie, lenses, ray

_FLOAT_OPERATIONS = {ast.Add: "add", ast.Sub: "add", ast.Mult: "multiply", ast.Div: "divide"}
_INTEGER_OPERATIONS = (ast.LShift, ast.RShift, ast.BitAnd, ast.BitOr, ast.BitXor, ast.FloorDiv, ast.Mod)
_OTHER_CALLS = ("min", "max", "abs", "np.floor")
_INTEGER_CALLS = ("np.int32", "np.uint32")
_FREE_CALLS = ("F", "range")  # conversions, loop headers
FLOP = ("add", "multiply", "divide", "square_root")


@dataclass(frozen=True)
class RayCost:
    """Operations of one ray.

    Attributes
    ----------
    counts : dict of str to int
        By kind: "add", "multiply", "divide", "square_root", "other" (minima, selects, roundings), "integer".
    """

    counts: dict[str, int]

    @property
    def flop(self) -> int:
        """Floating-point operations."""
        return sum(self.counts[kind] for kind in FLOP)


class _Walker:
    """Counts a function's operations, those of the kernel functions that it calls included."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys((*FLOP, "other", "integer"), 0)

    def function(self, function: Any, constants: dict[str, bool], loop_only: bool = False) -> None:
        python = inspect.unwrap(getattr(function, "py_func", function))
        tree = ast.parse(textwrap.dedent(inspect.getsource(python))).body[0]
        assert isinstance(tree, ast.FunctionDef)
        body = _in_loops(tree.body, constants) if loop_only else tree.body
        self._statements(body, python.__globals__, constants)

    def _statements(self, body: list[ast.stmt], names: dict[str, Any], constants: dict[str, bool]) -> None:
        for node in body:
            if isinstance(node, ast.If) and _truth(node.test, constants) is None:
                # a select, as the compiler makes of a value that is replaced where a comparison holds
                assert not node.orelse, ast.dump(node)
                self._expression(node.test, names, constants)
                self._statements(node.body, names, constants)
            elif isinstance(node, ast.If):
                # a compile-time constant chooses one side; no other branch stands in the code of a ray
                chosen = node.body if _truth(node.test, constants) else node.orelse
                self._statements(chosen, names, constants)
                if chosen and isinstance(chosen[-1], ast.Return):
                    return
            elif isinstance(node, ast.AugAssign):
                self._operation(node.op)
                self._expression(node.value, names, constants)
            elif isinstance(node, ast.Assign | ast.Return | ast.Expr) and node.value is not None:
                self._expression(node.value, names, constants)
            else:
                raise TypeError(f"no rule to count {type(node).__name__} in the code of a ray")

    def _operation(self, operation: ast.operator) -> None:
        if isinstance(operation, _INTEGER_OPERATIONS):
            self.counts["integer"] += 1
        else:
            self.counts[_FLOAT_OPERATIONS[type(operation)]] += 1

    def _expression(self, node: ast.expr, names: dict[str, Any], constants: dict[str, bool]) -> None:
        if isinstance(node, ast.BinOp):
            if not _is_constant(node):
                integer = _is_integer(node.left) or _is_integer(node.right)
                if integer:
                    self.counts["integer"] += 1
                else:
                    self._operation(node.op)
        elif isinstance(node, ast.Compare | ast.IfExp) or (
            isinstance(node, ast.UnaryOp) and not isinstance(node.operand, ast.Constant)
        ):
            self.counts["other"] += 1
        elif isinstance(node, ast.Call):
            self._call(node, names, constants)
            return
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self._expression(child, names, constants)

    def _call(self, node: ast.Call, names: dict[str, Any], constants: dict[str, bool]) -> None:
        called = ast.unparse(node.func)
        if _is_constant(node):
            return
        for argument in node.args:
            self._expression(argument, names, constants)
        if called == "np.sqrt":
            self.counts["square_root"] += 1
        elif called in _OTHER_CALLS:
            self.counts["other"] += 1
        elif called in _INTEGER_CALLS or called.endswith(".view"):
            self.counts["integer"] += 1
        elif called not in _FREE_CALLS:
            function = _resolve(called, names)
            arguments = node.args
            if function is lenses.deflect:  # chosen by type when a kernel is compiled: here, the timed one
                function, arguments = lens_sie.deflect, node.args[1:]
            parameters = list(inspect.signature(getattr(function, "py_func", function)).parameters)
            passed = {}
            for name, argument in zip(parameters, arguments, strict=True):
                if isinstance(argument, ast.Constant) and isinstance(argument.value, bool):
                    passed[name] = argument.value
                elif isinstance(argument, ast.Name) and argument.id in constants:
                    passed[name] = constants[argument.id]
            self.function(function, passed)


def _truth(test: ast.expr, constants: dict[str, bool]) -> bool | None:
    """Return what a test of compile-time constants comes to; None for any other."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        inner = _truth(test.operand, constants)
        return None if inner is None else not inner
    return constants[test.id] if isinstance(test, ast.Name) else None


def _in_loops(body: list[ast.stmt], constants: dict[str, bool]) -> list[ast.stmt]:
    """Return what stands in the loops of a function, one after the other: a ray goes through all of them."""
    found: list[ast.stmt] = []
    for node in body:
        if isinstance(node, ast.For):
            found += node.body
        elif isinstance(node, ast.If):
            found += _in_loops(node.body if _truth(node.test, constants) else node.orelse, constants)
    return found


def _resolve(called: str, names: dict[str, Any]) -> Callable[..., Any]:
    found: Any = names[called.partition(".")[0]]
    for part in called.split(".")[1:]:
        found = getattr(found, part)
    return found  # type: ignore[no-any-return]


def _is_constant(node: ast.expr) -> bool:
    """Return whether an expression is made of literals alone: the compiler folds it."""
    named = (child for child in ast.walk(node) if isinstance(child, ast.Name | ast.Attribute))
    return all(ast.unparse(child) in ("F", "np", *_INTEGER_CALLS) for child in named)


def _is_integer(node: ast.expr) -> bool:
    """Return whether an expression is an integer by its own form (bits of a float, an int32 conversion)."""
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        return called in _INTEGER_CALLS or called.endswith(".view(np.int32)")
    return isinstance(node, ast.Name) and node.id == "bits"


@lru_cache(maxsize=4)
def ray_cost(adaptive_kernel: bool, exponential: bool) -> RayCost:
    """Return what a ray costs in the uniform kernel, or in the adaptive one with its error bound.

    Parameters
    ----------
    adaptive_kernel : bool
    exponential : bool
        Source of n = 1, which needs neither the log nor the second exp.
    """
    walker = _Walker()
    loop = adaptive._sample_all if adaptive_kernel else ray._line
    walker.function(loop, {"exponential": exponential}, loop_only=True)
    return RayCost(walker.counts)
