"""What the page shows of code, prose and numbers."""

from __future__ import annotations

from nogaps.report import duration, summarize
from nogaps.report.cells import Prose, gist, titles


def test_titles_and_gists_are_read_off_the_code() -> None:
    source = 'import a\nshow_rows({"k": x}, "Two\\n words", columns=8)\nplt.suptitle(f"at {n} %")\n'
    assert titles(source) == ["Two words", "at … %"]
    assert titles("%matplotlib inline\nplt.title('x')") == titles("-" * 40_000) == []
    assert titles("show_mask(mask, y)") == []
    assert gist("from a import (\n  b)\n\nx = 1\ny = 2") == "x = 1"
    assert gist("x = 1\nclass A: pass\ndef f(): pass") == "A, f"
    assert gist("\n!pip install x\n") == "!pip install x" and gist("# only this") == "# only this"
    assert gist("\n" * 200_000 + "x") == "" and gist("import (\n" * 99_999).startswith("i")


def test_prose_keeps_what_markdown_means() -> None:
    prose = Prose()
    table = "| x | y |\n|:-:|--:|\n| 1 | $a<b$ |"
    html = prose.render(f"# Top\n## Part *a*\n## Part a\n## Part a\n\n{table}")
    assert prose.title == "Top" and "Top" not in html
    assert [(h.text, h.anchor) for h in prose.headings] == [
        ("Part a", "Part-a"),
        ("Part a", "Part-a-2"),
        ("Part a", "Part-a-3"),
    ]
    assert '<td class="right">$a&lt;b$</td>' in html and '<div class="wide"><table>' in html
    image = "data:image/png;base64," + "A" * 30_000
    assert image in prose.render(f"![p]({image}) [file](docs/a.md) [web](https://a.org)")
    assert prose.render("x <script>1</script>").count("<") == 2  # the paragraph's own
    assert prose.render("![gone](attachment:a.png)").startswith("<pre>")


def test_numbers_are_written_for_people() -> None:
    assert [duration(s) for s in (9.4, 129, 7260)] == ["9 s", "2 min 9 s", "2 h 1 min"]
    values = {"n": 2048000, "hole RMSE": {"a": 0.089, "ours": 0.0574}, "f": {"k": "v", "l": [1]}}
    summary = summarize(values | {"set": {"sha256": "ab", "shape": [2, 64]}})
    assert summary == {
        "facts": {"n": "2,048,000", "f, k": "v", "f, l": "1"},
        "scores": [["filling", "hole RMSE"], ("a", "0.0890"), ("ours", "0.0574")],
        "times": {},
        "files": [("set", "2 × 64", "ab")],
    }
