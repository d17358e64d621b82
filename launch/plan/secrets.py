"""Which files probably hold a password or a key, judging by their names.

The names are those that OpenSSH, GnuPG, git, curl, pip, npm, PostgreSQL, Docker, Kubernetes, Hugging Face and cloud
command-line tools document for their credentials. Python files are never among them: a module named secrets.py is
code.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import PurePath

FOLDERS = frozenset({".ssh", ".gnupg", ".aws", ".azure", ".kube", ".password-store", ".huggingface"})
PATHS = ("*.config/gcloud/*", "*.config/rclone/*", "*.docker/config.json")
FILES = (
    ".env", ".env.*", "*.env", ".envrc", ".netrc", "_netrc", ".pgpass", ".my.cnf", ".pypirc", ".npmrc", ".boto",
    ".s3cfg", ".git-credentials", ".htpasswd", ".vault-token", ".dockercfg", "id_rsa*", "id_dsa*", "id_ecdsa*",
    "id_ed25519*", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.gpg", "*.ppk",
    "credentials", "credentials.*", "client_secret*.json", "*service?account*.json", "secrets", "secrets.*", "*.secret",
    "kubeconfig", "token", "*.token",
    "kaggle.json", ".bash_history", ".zsh_history", ".python_history")
HARMLESS = ("*.py", "*.example", "*.sample", "*.template", "*.dist")


def is_secret(file: PurePath) -> bool:
    """Whether a file, relative to the folder it belongs to, probably holds a password or a key."""
    path = PurePath(str(file).lower())
    if any(fnmatchcase(path.name, pattern) for pattern in HARMLESS):
        return False
    return (not FOLDERS.isdisjoint(path.parts) or any(fnmatchcase(path.name, pattern) for pattern in FILES)
            or any(fnmatchcase(str(path), pattern) for pattern in PATHS))
