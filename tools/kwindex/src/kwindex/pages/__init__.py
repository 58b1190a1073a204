"""Pages for every file and folder of an index: two a file, three a folder, and the keywords of the whole."""

from kwindex.pages.write import FOLDER, page_texts, places_at, tree_of, write_pages

__all__ = ["FOLDER", "page_texts", "places_at", "tree_of", "write_pages"]
