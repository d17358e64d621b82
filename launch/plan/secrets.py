"""Finds files that probably hold a password or a key, by their names.

The names are those that OpenSSH, GnuPG, git, curl, pip, npm, PostgreSQL, Docker, Kubernetes, Hugging Face and cloud
command-line tools document for their credentials. Python files never count: a module named secrets.py is code.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import PurePath

FOLDERS = frozenset({".ssh", ".gnupg", ".aws", ".azure", ".kube", ".password-store", ".huggingface"})
PATHS = ("*.config/gcloud/*", "*.config/rclone/*", "*.docker/config.json", "*.config/gh/hosts.yml",
         "*.dbt/profiles.yml", "*.oci/config", "*.snowsql/config")
FILES = (
    ".env", ".env.*", "*.env", ".envrc", ".netrc", "_netrc", ".pgpass", ".my.cnf", ".pypirc", ".npmrc", ".boto",
    ".s3cfg", ".git-credentials", ".htpasswd", ".vault-token", ".dockercfg", "id_rsa*", "id_dsa*", "id_ecdsa*",
    "id_ed25519*", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.gpg", "*.ppk",
    "credentials", "credentials.*", "client_secret*.json", "*service?account*.json", "secrets", "secrets.*", "*.secret",
    "kubeconfig", "token", "*.token",
    "kaggle.json", ".*_history", "secret.*", "password*", "passwd*", "*_token.txt", "*api_key*.txt", "*secrets*.json",
    "*secrets*.y*ml", "private_key*", "private.*", "*.pem.*", ".env?*", "env.prod*", "auth.json", "terraform.tfstate*",
    "terraform.tfvars", "rclone.conf", ".rclone.conf", ".databrickscfg", ".dockerconfigjson", "*credentials*.json",
    ".aws_credentials", "*adminsdk*.json", "*.keytab", "pip.conf", ".condarc", ".pg_service.conf", ".mylogin.cnf",
    ".cdsapirc", ".xauthority", "vault.y*ml", ".vault_pass*")
HARMLESS = ("*.py", "*.example", "*.sample", "*.template", "*.dist")


def is_secret(file: PurePath) -> bool:
    """Whether a file probably holds a password or a key. `file` is relative to the folder of the code."""
    path = PurePath(str(file).lower())
    if any(fnmatchcase(path.name, pattern) for pattern in HARMLESS):
        return False
    return (not FOLDERS.isdisjoint(path.parts) or any(fnmatchcase(path.name, pattern) for pattern in FILES)
            or any(fnmatchcase(str(path), pattern) for pattern in PATHS))
