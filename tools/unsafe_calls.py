"""Names calls that trust a file, for `make lint`: what ruff's rules on pickles do not see.

No `allow_pickle`, no `trust_remote_code`, no `torch.load` without `weights_only=True`, no unpickling, no YAML of any class.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDERS = ("stpath_assets", "tools", "benchmarks")
UNPICKLERS = ("pickle.load", "pickle.loads", "joblib.load", "dill.load", "marshal.loads", "yaml.load")


def unsafe_calls(text: str) -> Iterator[tuple[int, str]]:
    """Yield line and name of each call in Python code that trusts a file."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        said = {k.arg: getattr(k.value, "value", "?") for k in node.keywords}
        trusts = any(said.get(word, False) is not False for word in ("allow_pickle", "trust_remote_code"))
        if trusts or name in UNPICKLERS or (name == "torch.load" and said.get("weights_only") is not True):
            yield node.lineno, name


def main() -> int:
    """Print each such call. Returns 1 if there is one."""
    found = [
        f"{path}:{line}: {name} trusts the file that it reads"
        for folder in FOLDERS
        for path in sorted(Path(folder).rglob("*.py"))
        for line, name in unsafe_calls(path.read_text())
    ]
    print("\n".join(found), end="\n" if found else "")  # noqa: T201
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
