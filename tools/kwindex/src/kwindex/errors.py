"""What kwindex raises for its users' mistakes and for sources it cannot read."""


class KwindexError(Exception):
    """A request that cannot be carried out; the message says what to try.

    Example:
        >>> raise KwindexError("no index in kwindex-out; run `kwindex build SRC` first")
        Traceback (most recent call last):
        ...
        kwindex.errors.KwindexError: no index in kwindex-out; run `kwindex build SRC` first
    """


class SourceError(KwindexError):
    """A source file that cannot be read or parsed, with the line where reading stopped."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line}: {why}")
        self.line = line
        self.why = why
