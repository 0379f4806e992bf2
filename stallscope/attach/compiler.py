"""Run by an interpreter of the target's version, in a process of ours: sources on stdin, code for it on stdout.

Both are marshalled {module name: (path, ...)}; the codes are marshalled each for itself, so that the target can load
them one at a time. Annotations, docstrings and ``from __future__`` go: the target would spend a third of the time
on them. CPython 3.8 and newer.
"""

import __future__

import ast
import marshal
import sys
from types import CodeType


def compiled(path: str, text: str) -> CodeType:
    """The code of one module, without what only readers need."""
    tree = ast.parse(text, path)
    tree.body = [node for node in tree.body if not (isinstance(node, ast.ImportFrom) and node.module == "__future__")]
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
    flags = __future__.annotations.compiler_flag
    code: CodeType = compile(tree, path, "exec", flags=flags, dont_inherit=True, optimize=2)
    return code


if __name__ == "__main__":
    given = marshal.load(sys.stdin.buffer)
    done = {name: (path, marshal.dumps(compiled(path, text))) for name, (path, text) in given.items()}
    sys.stdout.buffer.write(b"done" + marshal.dumps((sys.version_info[:2], done), 2))
