"""Shape comments are executed: `q = ...  # (B, T, H, Dn)` is compared with the real tensor each time the line runs.

A module's functions are compiled again with a check after every statement that carries such a comment, and get their own code
back at the end. Nothing is traced, so debuggers and coverage still work, and a backward pass that runs in a thread of its own
is checked as well.

What a name in a comment means, in this order: a size that the test gives, a whole number that the function has in a variable of
that name, or, in lower case only, a local size: bound by the first line of a call that uses it, each time that line runs, and
held to by the others.
"""

import ast
import inspect
import io
import re
import tokenize
import types
from pathlib import Path

SHAPES = re.compile(r"#\s*(\([^()]*\)(?:,\s*\([^()]*\))*)")  # the text behind the last bracket is for readers


class ShapeError(AssertionError):
    """A shape comment that is not true, or that nothing can check."""


def shape_comments(source: str) -> dict[int, list[str]]:
    """Line number -> the shapes in its comment, for each comment behind code that begins with a shape."""
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        match = SHAPES.match(token.string) if token.type == tokenize.COMMENT else None
        if match and token.line[:token.start[1]].strip() and _is_shape(match[1]):
            found[token.start[0]] = re.findall(r"\(([^()]*)\)", match[1])
    return found


def _is_shape(text):
    """Names, numbers and arithmetic in brackets are a shape; `(8, 9) is ...` and prose are not."""
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError:
        return False
    allowed = (ast.Expression, ast.Tuple, ast.Name, ast.Constant, ast.BinOp, ast.operator, ast.Load)
    return text == "()" or any(isinstance(n, ast.Name) for n in ast.walk(tree)) and all(isinstance(n, allowed) for n in ast.walk(tree))


class _Instrument(ast.NodeTransformer):
    """Put `__check_shapes__(line, names, locals(), bound)` behind every statement whose last line carries shapes."""

    def __init__(self, comments):
        self.comments, self.checkable = comments, set()

    def visit_FunctionDef(self, node):
        self.generic_visit(node)
        start = 1 if ast.get_docstring(node) is not None else 0
        node.body.insert(start, _statement("__bound__ = {}", node.body[0]))
        return node

    def visit_Assign(self, node):
        return self._with_check(node, node.targets[0])

    def visit_AnnAssign(self, node):
        return self._with_check(node, node.target)

    visit_AugAssign = visit_AnnAssign

    def visit_Return(self, node):
        if node.end_lineno not in self.comments:
            return node
        result = ast.copy_location(ast.Assign([ast.Name("__result__", ast.Store())], node.value), node)
        check = self._with_check(result, ast.Name("__result__"))
        return [*check, _statement("return __result__", node)]

    def _with_check(self, node, target):
        if node.end_lineno not in self.comments:
            return node
        targets = target.elts if isinstance(target, ast.Tuple) else [target]
        if not all(isinstance(t, ast.Name) for t in targets):
            return node  # left uncheckable, which is reported
        self.checkable.add(node.end_lineno)
        names = tuple(t.id for t in targets)
        return [node, _statement(f"__check_shapes__({node.end_lineno}, {names}, locals(), __bound__)", node)]


def _statement(text, place):
    statement = ast.parse(text).body[0]
    for node in ast.walk(statement):
        ast.copy_location(node, place)
    return statement


class ExecutedShapes:
    """`with ExecutedShapes(module, B=2, T=7) as shapes:` checks every shape comment of module that runs inside.

    Raises ShapeError where a tensor has another shape, and at once if a shape comment stands where nothing can check it.
    shapes.missing: the comments that have not run yet, as lines of text.
    """

    def __init__(self, module: types.ModuleType, **sizes: int):
        self.module, self.sizes = module, sizes
        self.path = Path(module.__file__)
        source = self.path.read_text()
        self.comments, self.ran = shape_comments(source), set()
        instrument = _Instrument(self.comments)
        tree = ast.fix_missing_locations(instrument.visit(ast.parse(source)))
        for line in sorted(set(self.comments) - instrument.checkable):
            raise ShapeError(f"{self.path.name}:{line}: a shape comment must end a statement that assigns plain names, or a return")
        self.code = dict(_functions_of(compile(tree, module.__file__, "exec", dont_inherit=True)))

    @property
    def missing(self) -> list[str]:
        lines = self.path.read_text().splitlines()
        return [f"{self.path.name}:{n}: {lines[n - 1].strip()}" for n in sorted(set(self.comments) - self.ran)]

    def __enter__(self):
        self.module.__check_shapes__ = self._check
        self.original = {}
        for function in _defined_in(self.module):
            if function.__code__.co_qualname in self.code:
                self.original[function] = function.__code__
                function.__code__ = self.code[function.__code__.co_qualname]
        return self

    def __exit__(self, *_):
        for function, code in self.original.items():
            function.__code__ = code
        del self.module.__check_shapes__

    def _check(self, line, names, variables, bound):
        texts, where = self.comments[line], f"{self.path.name}:{line}"
        if len(texts) != len(names):
            raise ShapeError(f"{where}: {len(names)} names are assigned, but the comment has {len(texts)} shapes")
        bound[line] = {}  # in a loop, a line binds its local sizes anew
        for name, text in zip(names, texts):
            shape = tuple(variables[name].shape)
            said = self._meaning(text, shape, variables, bound, line)
            if said != shape:
                raise ShapeError(f"{where}: the comment says that {name} is ({text}) = {said}, but it is {shape}")
        self.ran.add(line)

    def _meaning(self, text, shape, variables, bound, line):
        parts = [part.strip() for part in text.split(",") if part.strip()]
        local = {name: size for sizes in bound.values() for name, size in sizes.items()}
        known = local | {name: value for name, value in variables.items() if isinstance(value, int)} | self.sizes
        for part, size in zip(parts, shape):
            if part.islower() and part.isidentifier() and part not in known:
                known[part] = bound[line][part] = size
        try:
            return tuple(eval(part, {"__builtins__": {}}, known) for part in parts)
        except NameError as error:
            raise ShapeError(f"{self.path.name}:{line}: the test gives no size for {error.name} in ({text})") from None


def _functions_of(code):
    """Every function's code inside code, by qualified name; a nested function comes with the one around it."""
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant.co_qualname, constant
            if not constant.co_flags & inspect.CO_OPTIMIZED:  # a class body
                yield from _functions_of(constant)


def _defined_in(owner, module=None):
    """Every function that is defined in a module, those of its classes included."""
    module = module or owner.__name__
    for value in list(vars(owner).values()):
        for function in (value.fget, value.fset) if isinstance(value, property) else (value,):
            function = getattr(function, "__func__", function)  # of a classmethod or staticmethod
            function = inspect.unwrap(function) if callable(function) else None
            if isinstance(function, types.FunctionType) and function.__module__ == module:
                yield function
            elif isinstance(function, type) and function.__module__ == module:
                yield from _defined_in(function, module)
