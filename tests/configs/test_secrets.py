"""Which names are those of secrets, and that a config is shown with stars in place of their values."""

from __future__ import annotations

import pytest

from drumbeat.configs.secrets import hidden, is_secret_name, literal_secrets, shown
from drumbeat.configs.yaml_text import dump, parse

SECRET = """WANDB_API_KEY HF_TOKEN AWS_SECRET_ACCESS_KEY AWS_ACCESS_KEY_ID PGPASSWORD GITHUB_PAT api_key apiKey token
auth_token hubToken secret client_secret password db_password DATABASE_DSN credentials GOOGLE_APPLICATION_CREDENTIALS
SECRET huggingface-token DB_PASS MYSQL_PWD OPENAI_KEY STRIPE_KEY API_KEY_1 HF_TOKENS hf_tokens HFToken HF_TOKEN_2
authorization connection_string webhook_url passcode jwt otp"""
HARMLESS = """pad_token eos_token mask_token token_embedding max_tokens tokens tokenizer key keys monkey path PWD PATH
bypass n_keys key_dim secretary compat PICTURES BS target name image_key sort_key
pass passes pass_through"""


@pytest.mark.parametrize(("names", "secret"), [(SECRET, True), (HARMLESS, False)])
def test_names_of_secrets(names: str, secret: bool) -> None:
    assert [name for name in names.split() if is_secret_name(name) != secret] == []


def test_references_and_switches_are_shown() -> None:
    values = {"token": "abc", "a": [{"api_key": 17, "x": 1}], "credentials": {"user": "me", "on": True, "none": None},
              "password": "${oc.env:PASSWORD}", "secret": ""}
    assert hidden(values) == {
        "token": "***", "a": [{"api_key": "***", "x": 1}], "credentials": {"user": "***", "on": True, "none": None},
        "password": "${oc.env:PASSWORD}", "secret": ""}
    assert literal_secrets(values) == ["token", "a", "credentials.user"]


def test_a_config_keeps_its_comments_and_loses_its_secrets() -> None:
    values = {"name": "x", "model": {"api_key": "abc # def", "size": 3, "text": "two\nlines", "long": "y" * 60,
                                     "list": [{"token": "ghi"}]}}
    comments = {"name": "a.yaml:1", "model.api_key": "a.yaml:2", "model.size": "command line", "model.long": "a.yaml:4"}
    text = shown(dump(values, comments))
    expected = dump(hidden(values), {key: comment for key, comment in comments.items() if key != "model.api_key"})
    assert text == expected
    assert parse(text)[0]["model"]["api_key"] == "***"
    assert not any(word in text for word in ("abc", "def", "ghi"))
