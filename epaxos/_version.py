"""The release, in one place: the package, the data directories and the packaging read it here."""

from typing import Final

VERSION: Final = "0.1.0"
