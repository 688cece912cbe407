"""Which names say that what follows them is a secret, and which programs take one behind a short flag."""

import re
from collections.abc import Mapping

__all__ = ["PROGRAM_FLAGS", "is_secret_name"]

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", re.ASCII)

_SECRET_WORDS = frozenset(
    (
        *(
            "password",
            "passwords",
            "passwd",
            "passphrase",
            "passcode",
            "passwort",
            "pass",
            "pwd",
            "passin",
            "passout",
        ),
        *(
            "secret",
            "secrets",
            "token",
            "credential",
            "credentials",
            "creds",
            "apikey",
            "jwt",
            "otp",
            "bearer",
        ),
        *("auth", "oauth", "authorization", "cookie", "sessionid", "signature", "sig"),
    )
)
_SECRET_ENDINGS = (
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "accountkey",
    "authkey",
    "encryptionkey",
    "masterkey",
    "privatekey",
    "secretkey",
    "sharedkey",
    "signingkey",
)
_PLAIN_KEYS = frozenset(("public", "primary", "foreign", "sort", "partition"))
_ABOUT = frozenset(
    (
        *("file", "path", "dir", "folder", "url", "uri", "endpoint", "store", "jar", "stdin", "prompt"),
        *("ttl", "timeout", "expiry", "expires", "age", "length", "len", "size", "min", "max", "count"),
        *("type", "policy", "method", "rotation", "enabled", "required"),
    )
)


def is_secret_name(name: str) -> bool:
    """Whether the value of a variable, flag, header, field or parameter of this name is a secret.

    Names are looked at word by word (``_``, ``-``, ``.`` and capitals part words). What only speaks about a secret
    (``password_file``, ``token_ttl``) is none.

    Example:
        >>> [is_secret_name(name) for name in ("DB_PASSWORD", "--api-key", "x-authToken", "AWS_KEY", "dbpasswd")]
        [True, True, True, True, True]
        >>> [is_secret_name(name) for name in ("monkey", "password_file", "max_tokens", "public_key", "key", "path")]
        [False, False, False, False, False, False]
    """
    words = [word.lower() for word in _WORD.findall(name[-256:])]
    if not words or words[-1] in _ABOUT:
        return False
    if not _SECRET_WORDS.isdisjoint(words) or "".join(words).endswith(_SECRET_ENDINGS):
        return True
    if "key" not in words or not _PLAIN_KEYS.isdisjoint(words):
        return False
    return len(words) > 1 or name == "KEY"


def _table(*rows: tuple[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {program: flags for programs, flags in rows for program in programs.split()}


PROGRAM_FLAGS: Mapping[str, tuple[str, ...]] = _table(
    ("mysql mysqladmin mysqldump mysqlimport mariadb mariadb-admin mariadb-dump mycli", ("-p",)),
    ("mongo mongosh mongodump mongoexport mongoimport mongorestore", ("-p",)),
    ("sshpass rdesktop hydra useradd usermod 7z 7za docker podman", ("-p",)),
    ("crackmapexec netexec nxc evil-winrm", ("-p ", "-H ")),
    ("plink pscp psftp putty", ("-pw ",)),
    ("sqlcmd bcp isql mosquitto_pub mosquitto_sub ipmitool zip unzip", ("-P",)),
    ("ldapsearch ldapadd ldapmodify ldapdelete ldapmodrdn ldapwhoami", ("-w",)),
    ("ldappasswd", ("-w", "-s", "-a")),
    ("redis-cli", ("-a",)),
    ("rar", ("-hp", "-p")),
    ("xfreerdp", ("/p:",)),
    ("az", ("-p ",)),
    ("openssl", ("-k ", "-K ")),
    ("curl", ("-u", "-U", "-b")),
    ("http https", ("-a ",)),
    ("smbclient rpcclient", ("-U",)),
)
"""Programs that take a secret behind a short flag -> these flags: in the same word or the next, or where the flag ends
in a space in the next alone."""
