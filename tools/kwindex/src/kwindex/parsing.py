"""From the bytes of a source file to its syntax tree."""

import ast
import io
import tokenize
import warnings

from kwindex.errors import SourceError
from kwindex.render import cut
from kwindex.syntax import syntax_tree


def decode(data: bytes) -> str:
    r"""Returns the text of a source file, by its coding cookie or as UTF-8.

    Raises:
        SourceError: A byte is not of the encoding, the encoding is unknown, or there is a null byte.

    Example:
        >>> decode(b"# coding: latin-1\n# caf\xe9")
        '# coding: latin-1\n# café'
    """
    null = data.find(b"\0")
    if null >= 0:
        raise SourceError(data.count(b"\n", 0, null) + 1, "a null byte: not a Python source")
    try:
        encoding = _encoding(data)
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = data[error.start]
        raise SourceError(line, f"byte 0x{byte:02x} is not {error.encoding}; save the file as UTF-8") from None
    except (SyntaxError, LookupError):
        raise SourceError(1, "the coding comment names no encoding that Python knows") from None
    except ValueError:  # codecs such as idna and punycode say no more than UnicodeError
        raise SourceError(1, f"this is not {encoding}, which the coding comment names") from None


def _encoding(data: bytes) -> str:
    """Returns the encoding by the coding comment, else UTF-8; a bad byte is left for decoding to find."""
    try:
        return tokenize.detect_encoding(io.BytesIO(data).readline)[0]
    except SyntaxError:
        data.decode("utf-8")
        raise


def parse(text: str) -> ast.Module:
    """Returns the syntax tree, without the warnings that parsing may give.

    Raises:
        SourceError: The text is not Python, or is nested too deeply to be read.

    Example:
        >>> parse("def broken(:")
        Traceback (most recent call last):
        ...
        kwindex.errors.SourceError: line 1: invalid syntax
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return syntax_tree(text)
    except SyntaxError as error:
        raise SourceError(error.lineno or 1, cut(error.msg, 120)) from None
    except (RecursionError, MemoryError):
        raise SourceError(1, "nested too deeply for Python's parser") from None
    except ValueError as error:
        raise SourceError(1, cut(str(error), 120)) from None
