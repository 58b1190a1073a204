"""`kwindex serve`, driven as a client drives it: one JSON-RPC message a line, over the pipes of a process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from kwindex import build
from kwindex.serving import Server

Tree = Callable[..., Path]
SOURCE = "def all_reduce(x):\n    'Adds up.'\nclass Mesh:\n    def wait(self): ...\n"


class Client:
    """A client of the server in a process of its own."""

    def __init__(self, folder: Path) -> None:
        line = [sys.executable, "-m", "kwindex", "serve", "--index", str(folder)]
        self.process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._number = 0

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        assert answer["jsonrpc"] == "2.0"
        return answer

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        self.say(json.dumps({"jsonrpc": "2.0", "id": self._number, "method": method, "params": parameters}))
        answer = self.hear()
        assert answer["id"] == self._number
        return answer

    def call(self, tool: str, /, **arguments: Any) -> Any:
        result = self.ask("tools/call", name=tool, arguments=arguments)["result"]
        text = result["content"][0]["text"]
        assert result["isError"] or json.loads(text) == result["structuredContent"]
        return text if result["isError"] else result["structuredContent"]


@pytest.fixture
def root(tree: Tree) -> Path:
    return tree({"m.py": SOURCE})


@pytest.fixture
def client(root: Path, tmp_path: Path) -> Iterator[Client]:
    build([root], tmp_path / "out")
    made = Client(tmp_path / "out")
    yield made
    assert made.process.stdin is not None
    assert made.process.stdout is not None
    made.process.stdin.close()
    assert made.process.wait(20) == 0
    made.process.stdout.close()


def test_a_session_of_a_client(client: Client) -> None:
    about = client.ask("initialize", protocolVersion="2025-03-26", capabilities={}, clientInfo={"name": "test"})[
        "result"
    ]
    assert about["protocolVersion"] == "2025-03-26"
    assert about["serverInfo"] == {"name": "kwindex", "version": metadata.version("kwindex")}
    client.say(json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}))
    tools = {tool["name"]: tool for tool in client.ask("tools/list")["result"]["tools"]}
    assert sorted(tools) == ["get_symbol", "outline_file", "search_symbols"]
    assert tools["search_symbols"]["inputSchema"]["required"] == ["query"]
    hits = client.call("search_symbols", query="allreduce", limit=1)["hits"]
    assert [(hit["name"], hit["file"], hit["line"]) for hit in hits] == [("m.all_reduce", "m.py", 1)]
    assert "spelling" in hits[0]["why"]
    assert client.call("get_symbol", name="m.Mesh.wait")["entries"][0]["kind"] == "method"
    assert [entry["name"] for entry in client.call("outline_file", file="m.py")["entries"]] == [
        "m",
        "m.all_reduce",
        "m.Mesh",
        "m.Mesh.wait",
    ]
    assert client.ask("ping")["result"] == {}


def test_an_agent_can_open_what_it_is_told(client: Client, root: Path) -> None:
    (hit,) = client.call("search_symbols", query="allreduce", limit=1)["hits"]
    (entry,) = client.call("get_symbol", name="m.all_reduce")["entries"]
    outline = client.call("outline_file", file="m.py")["entries"]
    assert hit["path"] == entry["path"] == outline[0]["path"] == str(root / "m.py")
    assert client.call("outline_file", file=str(root / "m.py"))["entries"] == outline


def test_a_name_that_is_not_qualified_leads_to_those_that_are(client: Client) -> None:
    assert client.call("get_symbol", name="wait") == {"entries": [], "did_you_mean": ["m.Mesh.wait"]}
    assert client.call("get_symbol", name="Mesh.wait")["did_you_mean"] == ["m.Mesh.wait"]
    assert client.call("get_symbol", name="m.all_redcue")["did_you_mean"] == ["all_reduce"]
    assert client.call("get_symbol", name=' "') == {"entries": [], "did_you_mean": []}


def test_a_name_as_files_import_it_leads_to_where_it_is_defined(tree: Tree, tmp_path: Path) -> None:
    used = "import lib\ndef test_a(): lib.Adam()\n"
    files = {"lib/__init__.py": "from lib.deep import *\n", "lib/deep.py": "class Adam: ...\n", "test_m.py": used}
    build([tree(files)], tmp_path / "out")
    found = Server(tmp_path / "out").symbol({"name": "lib.Adam"})
    assert found == {"entries": [], "did_you_mean": ["lib.deep.Adam"]}


def test_nothing_found_gives_near_names(client: Client) -> None:
    found = client.call("search_symbols", query="reduce_evrything")
    assert found == {"hits": [], "did_you_mean": ["all_reduce"]}


def test_an_index_that_is_built_anew_is_seen(client: Client, root: Path, tmp_path: Path) -> None:
    assert client.call("get_symbol", name="m.broadcast")["entries"] == []
    (root / "m.py").write_text(SOURCE + "def broadcast(): ...\n")
    build([root], tmp_path / "out")
    assert client.call("get_symbol", name="m.broadcast")["entries"][0]["line"] == 5


def test_mistakes_of_a_client_are_answered_and_do_not_end_the_server(client: Client) -> None:
    client.say("no JSON")
    assert client.hear()["error"]["code"] == -32700
    client.say("[1]")
    assert client.hear()["error"]["code"] == -32600
    client.say("")
    assert client.ask("no/such")["error"]["code"] == -32601
    for arguments in (
        {},
        {"query": 3},
        {"query": "x", "limit": "y"},
        {"query": "x", "other": 1},
        {"query": "x", "limit": True},
    ):
        assert client.ask("tools/call", name="search_symbols", arguments=arguments)["error"]["code"] == -32602
    assert client.ask("tools/call", name="no_such")["error"]["code"] == -32602
    assert "names no kind" in client.call("search_symbols", query="kind:colour x")
    assert "the query is empty" in client.call("search_symbols", query=" ")
    assert "no file x.py" in client.call("outline_file", file="x.py")
    assert client.call("search_symbols", query="all", limit=-5)["hits"]


@pytest.mark.parametrize(
    "line", ["[" * 100_000, json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": [1]})]
)
def test_hostile_messages(tmp_path: Path, line: str) -> None:
    assert json.loads(Server(tmp_path).answer(line) or "")["error"]["code"] in (-32700, -32602)


@pytest.mark.parametrize(
    ("number", "code"),
    [("NaN", -32700), ("-Infinity", -32700), ("1e400", -32600), ("[1]", -32600), ("{}", -32600), ("true", -32600)],
)
def test_what_is_no_id_is_refused_in_json_that_every_client_reads(tmp_path: Path, number: str, code: int) -> None:
    def strange(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    answer = Server(tmp_path).answer(f'{{"jsonrpc": "2.0", "id": {number}, "method": "ping"}}')
    told = json.loads(answer or "", parse_constant=strange)
    assert (told["id"], told["error"]["code"]) == (None, code)


@pytest.mark.parametrize("number", ["7", "1.5", '"a"', "null", str(10**30)])
def test_every_id_comes_back(tmp_path: Path, number: str) -> None:
    answer = Server(tmp_path).answer(f'{{"jsonrpc": "2.0", "id": {number}, "method": "ping"}}')
    assert answer == f'{{"jsonrpc": "2.0", "id": {number}, "result": {{}}}}'


def test_no_index_is_an_error_of_the_tool(tmp_path: Path) -> None:
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "get_symbol", "arguments": {"name": "x"}},
    }
    answer = json.loads(Server(tmp_path).answer(json.dumps(call)) or "")
    assert answer["result"]["isError"] is True
    assert "run `kwindex build" in answer["result"]["content"][0]["text"]


def test_the_newest_version_is_offered_to_a_client_of_another() -> None:
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "1999-01-01"}}
    assert json.loads(Server(os.curdir).answer(json.dumps(hello)) or "")["result"]["protocolVersion"] == "2025-06-18"


def test_no_query_ends_the_server(client: Client) -> None:
    assert client.call("search_symbols", query="\ud800zz")["hits"] == []
    assert client.call("get_symbol", name="\ud800")["entries"] == []
    assert client.call("search_symbols", query="allreduce")["hits"][0]["name"] == "m.all_reduce"


def test_whatever_fails_is_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(tmp_path)
    monkeypatch.setattr(server, "searcher", lambda: [].pop())
    call = {"name": "search_symbols", "arguments": {"query": "x"}}
    text = server.answer(json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": call}))
    assert json.loads(text or "")["error"] == {"code": -32603, "message": "IndexError: pop from empty list"}
