"""The committed prompts still have the ids that transformers' CLIPTokenizer gives them."""

from parity import FIXTURES, Report

from make_tokenizer_corpus import lines


def main() -> None:
    committed = (FIXTURES / "tokenizer" / "corpus.jsonl").read_text(encoding="utf-8")
    report = Report()
    report.require("tokenizer corpus", committed.split("\n") == [*lines(), ""])
    report.finish()


if __name__ == "__main__":
    main()
