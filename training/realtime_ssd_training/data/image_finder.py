"""`ImageFinder`: locates the image files that annotations name, whoever wrote the name."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qsl, unquote

from realtime_ssd_training.data.images import EXTENSIONS, list_images

__all__ = ["ImageFinder", "plain_name", "spellings", "split_names"]

_SYNONYMS = (
    ("val", "valid", "validation", "validate"),
    ("train", "training"),
    ("test", "testing"),
)


def split_names(split: str) -> list[str]:
    """Return a split and its other usual names: "val" is also called "valid" or "validation"."""
    group = next((names for names in _SYNONYMS if split.lower() in names), ())
    return list(dict.fromkeys([split, *group]))


def plain_name(text: str) -> str:
    """Return a file name without differences of case and of Unicode composition."""
    return unicodedata.normalize("NFC", text).casefold()


def spellings(text: str) -> list[str]:
    r"""Return the paths that a name may stand for, most literal first.

    Back-slashes become slashes, percent encoding is also decoded, and of a URL the path and the
    values of its query are used (Label Studio writes "/data/local-files/?d=images/a.jpg").

    Args:
        text: Name of an image in an annotation file.

    Example:
        >>> spellings("images\\caf%C3%A9.jpg")
        ['images/caf%C3%A9.jpg', 'images/café.jpg']
    """
    text = text.strip().strip("\"'")
    literal = text.replace("\\", "/")
    forms = [literal]
    if "?" in literal or "://" in literal:
        path, _, query = re.sub(r"^\w+://[^/]*", "", literal).partition("?")
        values = [value.replace("\\", "/") for _, value in parse_qsl(query)]
        forms += [value for value in values if PurePosixPath(value).suffix] + [path]
    forms += [unquote(form) for form in forms]
    return [form for form in dict.fromkeys(forms) if form.strip("/.")]


class ImageFinder:
    """Locates the images of a dataset by the names in its annotations.

    A name is first taken as a path relative to the folder. If there is no such file, the images
    below the folder are searched for the same last part, without regard to case, and then for the
    same last part with any other image suffix or without one. Among several, the one that shares
    the most folders with the name is used, then the one in a folder that belongs to the
    annotations' split; if that leaves several, the name is ambiguous.

    Args:
        folder: Folder that names are relative to, and below which images are searched.
        hints: Names of folders to prefer, for example the split that is read.
    """

    def __init__(self, folder: Path, hints: Iterable[str] = ()) -> None:
        self._folder = folder
        self._hints = {plain_name(name) for hint in hints for name in split_names(hint)}
        self._by_name: dict[str, list[Path]] | None = None
        self._by_stem: dict[str, list[Path]] = {}

    def find(self, *names: str) -> Path:
        """Return the path of an image; for a missing one, the path where it is expected.

        Args:
            *names: Names of the image, the most reliable first; each is searched for everywhere
                before the next one is tried.

        Raises:
            ValueError: If several images match one of the names equally well, and no other name
                decides.
        """
        ambiguous: ValueError | None = None
        for name in names:
            try:
                found = self._find(name)
            except ValueError as error:
                ambiguous = ambiguous or error
                continue
            if found is not None:
                return found
        if ambiguous is not None:
            raise ambiguous
        return self._folder / next(
            (form for name in reversed(names) for form in spellings(name)), names[0]
        )

    def _find(self, name: str) -> Path | None:
        forms = spellings(name)
        for form in forms:
            path = self._folder / form
            # `os.path.isfile` is also false for names that no file can have.
            if path.suffix and os.path.isfile(path):
                return path
        for form in forms:
            found = self._search(PurePosixPath(form))
            if found is not None:
                return found
        return None

    def _search(self, name: PurePosixPath) -> Path | None:
        if self._by_name is None:
            self._index()
        stem = name.stem if name.suffix.lower() in EXTENSIONS else name.name
        matches = (self._by_name or {}).get(plain_name(name.name))
        matches = matches or self._by_stem.get(plain_name(stem), [])
        matches = [path for path in matches if name.name in (path.name, path.stem)] or matches
        if len(matches) > 1:
            parents = [plain_name(part) for part in reversed(name.parts[:-1])]
            matches = _best(matches, lambda path: _shared_folders(path, parents))
        if len(matches) > 1:
            matches = _best(matches, self._is_hinted)
        if len(matches) > 1:
            listed = ", ".join(path.relative_to(self._folder).as_posix() for path in matches[:3])
            raise ValueError(
                f"{len(matches)} images match '{name}' ({listed}); name its folder too, or use the "
                "folder of one of them"
            )
        return matches[0] if matches else None

    def _index(self) -> None:
        self._by_name = {}
        for path in list_images(self._folder):
            self._by_name.setdefault(plain_name(path.name), []).append(path)
            self._by_stem.setdefault(plain_name(path.stem), []).append(path)

    def _is_hinted(self, path: Path) -> int:
        folders = path.relative_to(self._folder).parts[:-1]
        return int(any(plain_name(part) in self._hints for part in folders))


def _best(paths: list[Path], score: Callable[[Path], int]) -> list[Path]:
    scores = [score(path) for path in paths]
    return [path for path, value in zip(paths, scores, strict=True) if value == max(scores)]


def _shared_folders(path: Path, parents: list[str]) -> int:
    """Return how many of the innermost folders of a path have the given names."""
    count = 0
    for part, other in zip(_folders_upwards(path), parents, strict=False):
        if part != other:
            break
        count += 1
    return count


def _folders_upwards(path: Path) -> Iterator[str]:
    return (plain_name(part) for part in reversed(path.parts[:-1]))
