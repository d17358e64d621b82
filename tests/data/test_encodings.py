"""Files that are not UTF-8: the command that is told converts them."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from drumbeat.data.tables import Table

TEXTS = {
    "latin1": "Das Café führt über die Straße nach Österreich; a naïve résumé.",
    "cp1252": "He said \u201cthe café is closed\u201d \u2013 and left.",
    "cp1251": "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "koi8-r": "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "gb18030": "这部电影非常精彩。演员的表演令人印象深刻。我强烈推荐给大家。",
    "shift_jis": "この映画はとても面白かったので、もう一度見たいと思います。",
    "euc-jp": "この映画はとても面白かったので、もう一度見たいと思います。",
    "euc-kr": "이 영화는 정말 재미있어서 다시 보고 싶습니다. 배우들의 연기도 훌륭했습니다.",
    "utf-16": "plain text", "utf-16le": "plain text", "utf-16be": "plain text",
}


@pytest.mark.parametrize("encoding", TEXTS)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_the_command_that_is_told_converts_the_file(name: str, encoding: str, tmp_path: Path) -> None:
    rows = [TEXTS[encoding]] * 20
    lines = ["text,n", *(f'"{row}",1' for row in rows)] if name == "a.csv" else [f'{{"text": "{row}"}}' for row in rows]
    (tmp_path / name).write_bytes("\n".join([*lines, ""]).encode(encoding))
    with pytest.raises(ValueError, match=r"is (UTF-16\w*, and )?not UTF-8; convert it.*: iconv") as caught:
        list(Table(tmp_path / name).blocks(["text"]))
    command = str(caught.value).rpartition(": ")[2]
    assert shlex.split(command)[0] == "iconv"
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)  # noqa: S602
    ((read,),) = Table(tmp_path / name.replace("a.", "a.utf8.")).blocks(["text"])
    assert read == rows
