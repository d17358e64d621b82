"""Files that probably hold a password or a key, by their names."""

from __future__ import annotations

from pathlib import PurePath

import pytest

from drumbeat.launch.plan.secrets import is_secret


@pytest.mark.parametrize("file", [".env", ".env.local", "prod.env", ".ssh/known_hosts", "deep/.aws/config", "ID_RSA",
                                  "id_ed25519.pub", "tls/server.key", "credentials.json", "secrets.yaml", "hf/token",
                                  ".SSH/config", ".config/gcloud/access.db", ".docker/config.json", "secret.txt",
                                  "passwords.txt", "hf_token.txt", "terraform.tfstate", "my_secrets.json", ".env-prod",
                                  "key.pem.bak", ".psql_history", "krb5.keytab", ".config/gh/hosts.yml"])
def test_a_secret(file: str) -> None:
    assert is_secret(PurePath(file))


@pytest.mark.parametrize("file", ["secrets.py", ".env.example", "tokenizer.json", "token_ids.json", "keys.yaml",
                                  "env.py", "environment.yml", "monkey.txt", "gcloud/startup.sh", ".docker/Dockerfile"])
def test_no_secret(file: str) -> None:
    assert not is_secret(PurePath(file))
