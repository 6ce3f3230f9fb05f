"""The texts of lessons in the person's language: gettext catalogues below ``locale/``.

The language is what was asked for, else what LANGUAGE, LC_ALL, LC_MESSAGES and LANG say, in gettext's own order; a text
that a catalogue lacks, and a language that there is none for, is English.
"""

from __future__ import annotations

import gettext
from collections.abc import Callable
from pathlib import Path

from layerbuild.errors import UsageError

DOMAIN = "lessons"
FOLDER = Path(__file__).parent / "locale"
LANGUAGES = ("en", "de", "fr", "pt")


def translator(language: str | None = None) -> Callable[[str], str]:
    """From an English text to that language's; UsageError for a language that there are no lessons in."""
    if language is None:
        return gettext.translation(DOMAIN, FOLDER, fallback=True).gettext
    wanted = language.replace("-", "_").partition("_")[0].lower()
    if wanted not in LANGUAGES:
        raise UsageError(f"there are no lessons in {language!r}", hint=f"--language {', '.join(LANGUAGES)}")
    if wanted == "en":
        return gettext.NullTranslations().gettext
    return gettext.translation(DOMAIN, FOLDER, languages=[wanted]).gettext
