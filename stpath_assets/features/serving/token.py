"""The secret between a step and the served encoder: where it is read, and how it is compared.

The cluster is given only its SHA-256, so that nothing that Ray stores or shows holds the token itself.
"""

import hashlib
import hmac

from stpath_assets.errors import SettingsError
from stpath_assets.settings import Settings

LEAST = 16
"""Fewest characters of a token: fewer could be guessed from the digest."""

MAKE_ONE = "make one: openssl rand -hex 32 > FILE; chmod 600 FILE, and set STPATH_ENCODER_TOKEN_FILE=FILE"


def read_token(settings: Settings) -> str | None:
    """The token of the settings: `encoder_token`, else the content of `encoder_token_file`. None where neither is set.

    Raises `SettingsError`, which never shows the token, where the file cannot be read or holds none.
    """
    if settings.encoder_token is not None and settings.encoder_token.get_secret_value():
        return _checked(settings.encoder_token.get_secret_value(), "STPATH_ENCODER_TOKEN")
    path = settings.encoder_token_file
    if path is None:
        return None
    try:
        text = path.expanduser().read_text("ascii")
    except (OSError, ValueError) as e:
        raise SettingsError(f"STPATH_ENCODER_TOKEN_FILE={path}: cannot be read ({type(e).__name__}); {MAKE_ONE}") from e
    return _checked(text.strip(), str(path))


def require_token(settings: Settings) -> str:
    """The token of the settings. Raises `SettingsError` where there is none."""
    token = read_token(settings)
    if token is None:
        raise SettingsError(f"the encoder is not served without a token; {MAKE_ONE}")
    return token


def digest_of(token: str) -> str:
    """What the server knows of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def is_allowed(authorization: str | None, digest: str) -> bool:
    """Whether the value of an `Authorization` header is that of the token with this digest, in constant time."""
    given = (authorization or "").removeprefix("Bearer ")
    return hmac.compare_digest(digest_of(given), digest)


def _checked(token: str, where: str) -> str:
    if len(token) < LEAST or not all("!" <= c <= "~" for c in token):
        raise SettingsError(f"{where}: a token has at least {LEAST} ASCII characters and no space; {MAKE_ONE}")
    return token
