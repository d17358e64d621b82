"""How a user's mistake is shown on the terminal."""

from __future__ import annotations

from drumbeat.configs.errors import ConfigError, Fault, RunError, UserError, headline, nearest


def test_a_fault_says_what_where_given_and_fix() -> None:
    fault = Fault(what="unknown key 'epoch' in 'phases.head'", where="a.yaml:5", given="phases.head.epoch: 2",
                  remedy="Did you mean 'epochs'?")
    assert str(fault) == ("error: unknown key 'epoch' in 'phases.head'\n"
                          "  where  a.yaml:5\n"
                          "  given  phases.head.epoch: 2\n"
                          "  fix    Did you mean 'epochs'?")
    assert str(Fault(what="no phases")) == "error: no phases"


def test_long_lines_are_wrapped_and_line_breaks_kept() -> None:
    text = str(Fault(what="w " * 60, remedy="first line\nsecond line"))
    assert max(map(len, text.splitlines())) <= 80
    assert text.endswith("  fix    first line\n         second line")


def test_a_path_is_never_broken() -> None:
    path = "/" + "a-b/" * 40
    assert path in str(Fault(what="gone", where=path))


def test_few_faults_are_shown_in_full_and_many_briefly() -> None:
    fault = Fault(what="data.workers must be at least 0", where="a.yaml:12", given="data.workers: -1", remedy="Use 0.")
    assert str(ConfigError(fault, fault)) == f"{fault}\n\n{fault}"
    assert str(ConfigError(*[fault] * 6)).splitlines() == [
        "error: 6 things are wrong", "  a.yaml:12: data.workers must be at least 0, not -1. Use 0.",
        *["  a.yaml:12: data.workers must be at least 0, not -1."] * 5]


def test_very_many_faults_still_fit_a_screen() -> None:
    text = str(ConfigError(*(Fault(what=f"fault {number} " + "x " * 50) for number in range(100))))
    assert len(text.splitlines()) <= 24
    assert text.endswith("  ... and 90 more")


def test_one_long_fault_is_never_shortened() -> None:
    fault = Fault(what="no", remedy="\n".join(map(str, range(40))))
    assert str(UserError(fault)) == str(fault)


def test_nearest() -> None:
    assert nearest("nope.yaml", ["lstm_news.yaml", "mine.yaml"]) == "Valid names: lstm_news.yaml, mine.yaml."
    assert nearest("lstm_nwes.yaml", ["lstm_news.yaml", "mine.yaml"]) == "Did you mean 'lstm_news.yaml'?"
    assert nearest("epoch", ["epochs", "freeze"]) == "Did you mean 'epochs'?"
    assert nearest("zzz", ["b", "a", "a"]) == "Valid names: a, b."
    assert nearest("zzz", []) == "There are no valid names here."


def test_the_headline_of_a_wrapped_error_is_whole() -> None:
    what = "the best weights, of step 12, cannot be used (the digest differs), and there is no older checkpoint"
    error = RunError(Fault(what=what, where="/runs/a" * 20, given="b", remedy="c"))
    assert str(error).count("\n") > 3
    assert headline(str(error)) == what
    assert headline(str(RunError(Fault(what="short")))) == "short"
    assert headline("ValueError: boom\n       more") == "ValueError: boom"
    assert headline("") == ""
