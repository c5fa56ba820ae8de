"""What is secret in a text, wherever the text came from: errors, log records, pages, tags.

Three rules. The values that the settings and the environment hold as secrets are left out wherever
they stand. So is what stands before the `@` of an address, and each value of its query. And so is
a value whose name says that it is secret, in every spelling of names and values that programs use.
"""

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final
from urllib.parse import quote, quote_plus, unquote

_HIDDEN: Final = "***"
_ENDS: Final = "'\")]},.:"
"""Signs after a value that are of the text around it."""

_KEY = (
    "(?:(?:api|access|account|app|client|encryption|functions?|master|private|secret|shared|signing"
    "|subscription)[-_ ]?)+key(?:[-_]?id)?"
)
_SECRET = (
    r"(?:pass(?:word|wd|phrase|code)?|pwd|secret|token|credentials?|signature|sig|sas|jwt|cookie"
    rf"|auth(?:[-_]?string)?|{_KEY})"
)
_IN_CAMEL = "(?:Password|Pwd|Secret|Token|Key|Signature|Credential)"
_NAME = rf"(?:(?<![A-Za-z])(?i:{_SECRET})|(?<=[a-z]){_IN_CAMEL})\d*(?![\w-])"
"""The last part of a name, such as of `db_password`; `token_type` names no secret."""
_SCHEMES = r"(?i:bearer|basic|digest|negotiate|apikey|token|aws4-hmac-sha256)"

_BEFORE_AT = re.compile(r"(?<=://)[^\s\"<>]{0,4096}@")
_BEFORE_AT_ALONE = re.compile(
    r"(?<![\w.+%/-])(?!mailto:|[\dT:.+-]{1,40}@)([\w.+%-]+:)"
    r"[^\s\"'<>=/][^\s\"<>]{0,512}@(?!sha\d)(?=[\w\[])"
)
"""An address without its scheme; neither a mail address, nor a time, nor a digest of an image."""
_QUERY = re.compile(r"([?&][^\s\"<>=&]+=)[^\s\"<>&]+")
_QUOTED = re.compile(
    rf"({_NAME}\\?[\"']?\s*(?::|=(?!=)|,(?=\s*b?\\?[\"']))\s*b?)"
    r"(\\?[\"'])(?:(?!\2)(?:\\.|[^\n]))+(\2|$)",
    re.MULTILINE,
)
_ASSIGNED = re.compile(
    rf"({_NAME}\s*=(?!=)\s*|(?<![\w-])--[\w-]{{0,40}}?{_NAME}\s+)(\{{[^}}\n]*\}}|[^\s;&\"'<>\\][^\s;&\"<>]*)"
)
_SAID = re.compile(rf"({_NAME}\\?[\"']?:\s*)([^\s\"'<>\\][^\s\"<>]*)(?=[\"']?\s*$)", re.MULTILINE)
"""A word that ends its line: of a header, or of YAML. A sentence after a name is none."""
_HEADER = re.compile(
    rf"((?i:authorization|cookie)[\"']?\s*[:=,]\s*(?:b?[\"'])?)"
    rf"(?!{_SCHEMES}\s*<)([^\s\"'<][^\"'\n]*)"
)
_CREDENTIALS = re.compile(r"(\b(?i:bearer|basic)\s+)(?![a-z]+\b)([\w.~+/-]{6,}=*)")
_TOKENS = re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*")
"""JSON web tokens, which show by themselves what they are."""

_SHORTEST: Final = 8
_STORES: Final = {"sqlite", "postgresql", "postgres", "mysql", "mariadb", "mssql", "oracle", "file"}
"""Schemes of addresses whose paths are not secret, as those of webhooks are."""
_known: Final[set[str]] = set()
_any_known = re.compile(r"(?!)")


def redacted(text: str) -> str:
    """Replace all that is secret in a text.

    Examples
    --------
    >>> redacted("no answer from https://me:s3cret@host/rows?token=s3cret&part=1")
    'no answer from https://***@host/rows?token=***&part=***'
    >>> redacted("Server=db;Uid=me;Pwd=s3cret;Timeout=5")
    'Server=db;Uid=me;Pwd=***;Timeout=5'
    """
    text = _any_known.sub(_HIDDEN, text)
    text = _BEFORE_AT.sub(f"{_HIDDEN}@", text)
    text = _BEFORE_AT_ALONE.sub(rf"\1{_HIDDEN}@", text)
    text = _QUERY.sub(rf"\1{_HIDDEN}", text)
    text = _HEADER.sub(_without_ends, text)
    text = _QUOTED.sub(rf"\1\2{_HIDDEN}\3", text)
    for pattern in (_ASSIGNED, _SAID, _CREDENTIALS):
        text = pattern.sub(_without_ends, text)
    return _TOKENS.sub(_HIDDEN, text)


def _without_ends(found: re.Match[str]) -> str:
    name, value = found.groups()
    kept = value[len(value.rstrip(_ENDS)) :]
    return f"{name}{_HIDDEN}{kept}"


def remember(secrets: Iterable[str], environment: Mapping[str, str]) -> None:
    """Leave secrets out of all texts of this process from now on.

    Parameters
    ----------
    secrets : iterable of str
        Values of settings that are secret. Of an address: its password, the values of its query,
        and its path, unless it is the address of a database.
    environment : mapping of str to str
        Variables, of which those are taken whose names say that they are secret, and what stands
        before the `@` of an address.
    """
    global _any_known  # noqa: PLW0603 -- a process has one set of secrets
    found = {part for secret in secrets for part in _parts(secret)}
    for name, value in environment.items():
        if name != "PWD" and re.search(rf"{_NAME}$", name):  # PWD is the folder of the shell
            found.update(_parts(value))
        for before in re.findall(r"(?<=://)[^\s\"<>]*(?=@)", value):
            found.update(_spelled(before.partition(":")[2]))
    if new := {one for one in found if _is_telling(one)} - _known:
        _known.update(new)
        longest_first = sorted(_known, key=len, reverse=True)
        whole = r"(?<![A-Za-z0-9])(?:{})(?![A-Za-z0-9])"
        _any_known = re.compile(whole.format("|".join(map(re.escape, longest_first))))


def _parts(secret: str) -> set[str]:
    """A secret and, of an address, those of its parts that are secret as well."""
    scheme, is_address, rest = secret.partition("://")
    if not is_address:
        user, _, password = secret.partition(":")  # of an account, as user:password
        return _spelled(secret) | (_spelled(password) if user.isidentifier() else set())
    before, _, after = rest.rpartition("@")
    found = _spelled(before.partition(":")[2])
    if scheme.partition("+")[0] in _STORES:  # the path is that of a database, or of its file
        after = f"?{after.partition('?')[2]}"
    for part in re.split(r"[/?&#]", after)[1:]:
        found |= _spelled(part.rpartition("=")[2])
    return found


def _spelled(secret: str) -> set[str]:
    """The spellings of a secret in addresses, in Python and in JSON."""
    spell: list[Callable[[str], str]] = [str, unquote, quote, quote_plus]
    plain = {one(secret) for one in spell} | {quote(secret, safe="")}
    return plain | {one(unquote(secret)) for one in spell} | {quote(unquote(secret), safe="")}


def _is_telling(secret: str) -> bool:
    """Whether no honest text is likely to hold a secret, as it holds the password `postgres`."""
    return len(secret) >= _SHORTEST and not re.fullmatch(r"[A-Za-z]?[a-z_ -]*|\d*", secret)


class RedactedRecord(logging.LogRecord):
    """A log record without secrets, in its message and in its traceback.

    `logging.setLogRecordFactory(RedactedRecord)` makes all records of a process so, whichever
    library logs them and wherever they go.
    """

    def getMessage(self) -> str:  # noqa: N802 -- the name in logging
        """The message, redacted."""
        return redacted(super().getMessage())

    @property
    def exc_text(self) -> str | None:
        """The traceback as a formatter wrote it, redacted."""
        return self._traceback

    @exc_text.setter
    def exc_text(self, text: str | None) -> None:
        self._traceback = text and redacted(text)
