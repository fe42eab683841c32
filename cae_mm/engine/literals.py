"""The values of settings on a command line."""
import ast
import re
from typing import Any

from mmengine.config import DictAction

WAY_OUT = 'write it as Python does, in quotes for the shell: "custom_hooks=[dict(type=\'EMAHook\')]"'


def parse_value(text: str) -> Any:
    """What a value of ``--cfg-options`` says: a number, a word, a list of them; or a Python literal.

    mmengine's own parser, which knows no dictionaries, reads all that has none. Nothing is run.

    Raises:
        ValueError: for what has dictionaries and is no literal.
    """
    if re.match(r'\s*(\{|dict\(|[\[(].*(\{|dict\())', text, re.S):
        try:
            return _value(ast.parse(text.strip(), mode='eval').body)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f'{text}: {getattr(error, "msg", error)}; {WAY_OUT}') from error
    return DictAction._parse_iterable(text)


def _value(node: ast.expr) -> Any:
    """The value of a literal; a name without quotes is a word, as it is in mmengine's lists."""
    match node:
        case ast.List(elts=parts):
            return [_value(part) for part in parts]
        case ast.Tuple(elts=parts):
            return tuple(_value(part) for part in parts)
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return _dict([_value(key) for key in keys], values)
        case ast.Call(func=ast.Name(id='dict'), args=[], keywords=words) if all(word.arg for word in words):
            return _dict([word.arg for word in words], [word.value for word in words])
        case ast.Name() | ast.Attribute():
            return ast.unparse(node)
        case ast.Constant(value=str() | int() | float() | None) | ast.UnaryOp(operand=ast.Constant()):
            return ast.literal_eval(node)
    raise ValueError(f'{ast.unparse(node)} is no literal')


def _dict(keys: list, values: list[ast.expr]) -> dict:
    if not all(isinstance(key, str) for key in keys) or len(set(keys)) < len(keys):
        raise ValueError('its keys have to be words, each once')
    return {key: _value(value) for key, value in zip(keys, values, strict=True)}
