"""From a file to its accepted picture, each looked at once however many rows name it."""

from collections import OrderedDict
from pathlib import Path

from closedloop import image
from closedloop.errors import ClosedloopError, EmptyUpload, UnusableFile, UploadTooLarge
from closedloop.image import Picture
from closedloop.importing.notebook import Notebook
from closedloop.importing.paths import Found
from closedloop.importing.refusals import quoted

AT_HAND = 24  # pictures: two of the largest sets


class Files:
    """The pictures of an import's files."""

    def __init__(self, notebook: Notebook) -> None:
        self._notebook = notebook
        self._at_hand: OrderedDict[Path, tuple[Found, Picture]] = OrderedDict()

    def id_of(self, file: Found) -> str:
        """The id of the picture in a file. Raises UnusableFile, OSError."""
        return self._notebook.picture(file) or self.picture(file).id

    def picture(self, file: Found) -> Picture:
        """The picture in a file. Raises UnusableFile, OSError."""
        known, picture = self._at_hand.get(file.real, (None, None))
        if picture is None or known is None or (known.size, known.changed) != (file.size, file.changed):
            picture = read(file.real, file.name)
            self._at_hand[file.real] = (file, picture)
            self._notebook.note_picture(file, picture.id)
        self._at_hand.move_to_end(file.real)
        if len(self._at_hand) > AT_HAND:
            self._at_hand.popitem(last=False)
        return picture


def read(path: Path, name: str) -> Picture:
    """The picture in one file, of which no more is read than a picture may have. Raises UnusableFile, OSError."""
    try:
        with path.open("rb") as file:
            return image.accept(file.read(image.MAX_BYTES + 1))
    except ClosedloopError as fault:
        raise UnusableFile(path=quoted(name), reason=_of_file(fault)) from None


def _of_file(fault: ClosedloopError) -> str:
    """What is wrong with a file: an upload's fault, without the advice to send it again."""
    if isinstance(fault, EmptyUpload):
        return "the file is empty"
    if isinstance(fault, UploadTooLarge):
        return f"the file is larger than {image.MAX_BYTES // 10**6} MB"
    return str(fault).split(". ")[0].removesuffix(".")
