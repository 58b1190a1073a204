"""`kwindex serve`: the index for editors and agents, by the Model Context Protocol on stdin and stdout.

One JSON-RPC message a line. Written here and not taken from the `mcp` package, which brings a web server, a settings
reader and a validator with it: three tools over stdio need none of them.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from kwindex.cli import OK
from kwindex.cli import version as own_version
from kwindex.errors import KwindexError
from kwindex.finding import located
from kwindex.kinds import USED
from kwindex.ready import open_searcher
from kwindex.searcher import Searcher
from kwindex.spelling import short
from kwindex.store import INDEX, paths_of

VERSIONS = ("2025-06-18", "2025-03-26", "2024-11-05")
"""The versions of the protocol that are spoken, the newest first."""
_PARSE, _INVALID, _UNKNOWN, _PARAMETERS, _INTERNAL = -32700, -32600, -32601, -32602, -32603
_MOST = 100


class Refused(Exception):
    """A request that cannot be answered: a code of JSON-RPC, and why."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


class Tool(NamedTuple):
    """What a client may call: its description, its arguments (name, type, what it is, whether needed), its work."""

    description: str
    arguments: tuple[tuple[str, str, str, bool], ...]
    run: Callable[["Server", dict[str, Any]], Any]

    def schema(self) -> dict[str, Any]:
        """Returns the JSON schema of the arguments."""
        properties = {name: {"type": kind, "description": text} for name, kind, text, _ in self.arguments}
        needed = [name for name, _, _, is_needed in self.arguments if is_needed]
        return {"type": "object", "properties": properties, "required": needed, "additionalProperties": False}


class Server:
    """Answers the messages of one client about one index, which is opened anew whenever it was built anew.

    Example:
        >>> Server("/no/such/folder").answer('{"jsonrpc": "2.0", "id": 1, "method": "ping"}')
        '{"jsonrpc": "2.0", "id": 1, "result": {}}'
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._stamp: tuple[int, int] | None = None
        self._searcher: Searcher | None = None
        self._paths: dict[str, str] = {}

    def answer(self, line: str) -> str | None:
        """Returns the answer to a message, None where it asks for none."""
        number = None
        try:
            message = _message(line)
            number = message.get("id")
            result = self._result(message)
            if "id" not in message:
                return None
            return json.dumps({"jsonrpc": "2.0", "id": number, "result": result})
        except Refused as refused:
            return _failed(number, refused.code, str(refused))
        except Exception as error:  # whatever it is, the client keeps its server
            return _failed(number, _INTERNAL, f"{type(error).__name__}: {error}")

    def _result(self, message: dict[str, Any]) -> Any:
        method, parameters = message["method"], message.get("params") or {}
        if "id" not in message:
            return None  # a notification: nothing that clients tell changes what is here
        if not isinstance(parameters, dict):
            raise Refused(_PARAMETERS, "params is not an object")
        if method == "initialize":
            asked = parameters.get("protocolVersion")
            version = asked if asked in VERSIONS else VERSIONS[0]
            about = {"name": "kwindex", "version": own_version()}
            return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": about}
        if method == "ping":
            return {}
        if method == "tools/list":
            return {
                "tools": [
                    {"name": name, "description": tool.description, "inputSchema": tool.schema()}
                    for name, tool in TOOLS.items()
                ]
            }
        if method == "tools/call":
            return self._call(parameters)
        raise Refused(_UNKNOWN, f"no method {method}")

    def _call(self, parameters: dict[str, Any]) -> dict[str, Any]:
        tool = TOOLS.get(str(parameters.get("name")))
        if tool is None:
            raise Refused(_PARAMETERS, f"no tool {parameters.get('name')}; there are {', '.join(TOOLS)}")
        given = parameters.get("arguments") or {}
        _check(tool, given)
        try:
            made = tool.run(self, given)
        except KwindexError as error:
            return {"content": [{"type": "text", "text": str(error)}], "isError": True}
        text = json.dumps(made, ensure_ascii=False, indent=1)
        return {"content": [{"type": "text", "text": text}], "structuredContent": made, "isError": False}

    def searcher(self) -> Searcher:
        """Returns the searcher of the index as it is now.

        Raises:
            KwindexError: There is no index.
        """
        try:
            status = (self._folder / INDEX).stat()
            stamp = (status.st_mtime_ns, status.st_ino)
        except OSError:
            stamp = None
        if self._searcher is None or stamp != self._stamp:
            self._searcher, self._stamp = open_searcher(self._folder), stamp
            self._paths = paths_of(self._folder)
        return self._searcher

    def search(self, given: dict[str, Any]) -> Any:
        """Returns the hits of a query, or near names where there are none."""
        query, limit = str(given["query"]).strip(), min(max(1, given.get("limit", 10)), _MOST)
        if not query:
            raise KwindexError("the query is empty; give a name, such as all_reduce")
        hits = self.searcher().search(query, limit)
        near = [] if hits else self.searcher().suggest(query)
        return {"hits": located([hit.as_dict() for hit in hits], self._paths), "did_you_mean": near}

    def symbol(self, given: dict[str, Any]) -> Any:
        """Returns all entries of one qualified name; where there is none, the names that end in it, or near ones."""
        searcher, name = self.searcher(), str(given["name"])
        found = [searcher.linked(searcher.entries[number]) for number in searcher.exactly(name)]
        entries = [entry.as_dict() for entry in found if entry.name == name]
        near: list[str] = []
        if not entries and name.strip():
            near = _named(name, searcher) or searcher.suggest(name)
        return {"entries": located(entries, self._paths), "did_you_mean": near}

    def outline(self, given: dict[str, Any]) -> Any:
        """Returns the entries of one file, in the order of its lines."""
        tables, file = self.searcher().tables, str(given["file"])
        if file not in tables.files:
            asked = os.path.abspath(file)
            file = next((label for label, path in self._paths.items() if path == asked), file)
        if file not in tables.files:
            raise KwindexError(f"no file {file} in the index; give a hit's file or path")
        number = tables.files.index(file)
        numbers = range(tables.entry_base[number], tables.entry_base[number + 1])
        return {"entries": located([tables.entry(one).as_dict() for one in numbers], self._paths)}


TOOLS = {
    "search_symbols": Tool(
        "Finds symbols, operators, error messages, settings and types in the indexed Python sources. Takes names in "
        "any spelling (allreduce, agit), names of other libraries (psum), types (Tensor, str -> Tensor), pasted error "
        "messages, operator names (_c10d_functional::all_reduce_), words, and filters (kind:class in:path pkg:name).",
        (
            ("query", "string", "what is looked for", True),
            ("limit", "integer", f"how many hits at most, up to {_MOST}; 10 if not given", False),
        ),
        Server.search,
    ),
    "get_symbol": Tool(
        "Returns every entry of a qualified name, such as torch.distributed.distributed_c10d.all_reduce; where there "
        "is none, the qualified names that it may mean: what an import of it leads to, and what ends in it.",
        (("name", "string", "the qualified name", True),),
        Server.symbol,
    ),
    "outline_file": Tool(
        "Returns all entries of one indexed file, in the order of its lines.",
        (("file", "string", "the file as entries carry it, or its path on this machine", True),),
        Server.outline,
    ),
}

_TYPES = {"string": str, "integer": int}


def _check(tool: Tool, given: Any) -> None:
    """Refuses arguments that a tool does not take."""
    known = {name: kind for name, kind, _, _ in tool.arguments}
    if not isinstance(given, dict):
        raise Refused(_PARAMETERS, "arguments is not an object")
    for name, value in given.items():
        if name not in known:
            raise Refused(_PARAMETERS, f"no argument {name}; there are {', '.join(known)}")
        if not isinstance(value, _TYPES[known[name]]) or isinstance(value, bool):
            raise Refused(_PARAMETERS, f"{name} is not of type {known[name]}")
    missing = [name for name, _, _, needed in tool.arguments if needed and name not in given]
    if missing:
        raise Refused(_PARAMETERS, f"no {missing[0]}")


def _named(name: str, searcher: Searcher) -> list[str]:
    """Returns the qualified names that a name may mean: what an import of it leads to, then what ends in it."""
    ends = searcher.search(f'"{name}"', 5) if '"' not in name else []
    last = name.rpartition(".")[2]
    found = [hit.entry for hit in searcher.search(name, 5) if short(hit.entry.name) == last] if "." in name else []
    found += [hit.entry for hit in ends]
    return list(dict.fromkeys(entry.name for entry in found if entry.kind not in USED))


def _failed(number: Any, code: int, why: str) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": why}})


def _message(line: str) -> dict[str, Any]:
    try:
        message = json.loads(line, parse_constant=_no_number)
    except ValueError as error:
        raise Refused(_PARSE, f"not JSON: {error}") from None
    except RecursionError:
        raise Refused(_PARSE, "nested too deeply") from None
    if not isinstance(message, dict) or not isinstance(message.get("method"), str):
        raise Refused(_INVALID, "not a request of JSON-RPC 2.0 with a method")
    number = message.get("id")
    is_finite = isinstance(number, str | int | None) or (isinstance(number, float) and isfinite(number))
    if not is_finite or isinstance(number, bool):
        raise Refused(_INVALID, "id is neither a string nor a number")
    return message


def _no_number(text: str) -> None:
    """Refuses what Python reads and writes as a number, and JSON does not have."""
    raise ValueError(f"{text} is no number")


def serve(folder: str | Path, lines: Iterable[str], out: TextIO) -> None:
    """Answers messages, one a line, until there are no more."""
    server = Server(folder)
    for line in lines:
        answer = server.answer(line) if line.strip() else None
        if answer is not None:
            out.write(answer + "\n")
            out.flush()


def run_serve(options: argparse.Namespace) -> int:
    """Answers the client on stdin and stdout until it hangs up."""
    sys.stdin.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    serve(options.index, sys.stdin, sys.stdout)
    return OK
