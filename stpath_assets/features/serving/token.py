"""The secret shared by steps and the served encoder: reading and comparing it.

The cluster receives only its SHA-256, so nothing that Ray stores or shows contains the token.
"""

import hashlib
import hmac

from stpath_assets.errors import SettingsError
from stpath_assets.settings import Settings

LEAST = 16
"""Minimum length of a token. A shorter one could be guessed from its digest."""

MAKE_ONE = "make one: openssl rand -hex 32 > FILE; chmod 600 FILE, and set STPATH_ENCODER_TOKEN_FILE=FILE"


def read_token(settings: Settings) -> str | None:
    """Return the token of the settings: `encoder_token`, else the content of `encoder_token_file`, or None if neither is set.

    Raises `SettingsError`, which never shows the token, if the file cannot be read or holds no valid token.
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
    """Return the token of the settings. Raises `SettingsError` if there is none."""
    token = read_token(settings)
    if token is None:
        raise SettingsError(f"the encoder is not served without a token; {MAKE_ONE}")
    return token


def digest_of(token: str) -> str:
    """Return the digest of a token, which is all that the server knows of it."""
    return hashlib.sha256(token.encode()).hexdigest()


def is_allowed(authorization: str | None, digest: str) -> bool:
    """Return whether an `Authorization` header holds the token with this digest, in constant time."""
    given = (authorization or "").removeprefix("Bearer ")
    return hmac.compare_digest(digest_of(given), digest)


def _checked(token: str, where: str) -> str:
    if len(token) < LEAST or not all("!" <= c <= "~" for c in token):
        raise SettingsError(f"{where}: a token has at least {LEAST} ASCII characters and no space; {MAKE_ONE}")
    return token
