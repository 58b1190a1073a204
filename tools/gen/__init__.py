"""The generator: everything in the repository that is derived from code, written before mkdocs runs.

Each module here makes one kind of output and returns it as `Output` values; only `__main__` touches the disk.
Outputs that are committed are compared by `nox -s gen -- --check`; the others are git-ignored.
"""
