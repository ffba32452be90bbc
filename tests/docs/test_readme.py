"""README, docs/, zoo/ and bench/ say only what works: snippets run, commands parse, links lead somewhere.

The Python blocks of a page run from top to bottom in one namespace, in an empty folder that has `zoo/` and `configs/`
as the repository does. A comment before a block, invisible to readers, makes it small or leaves it out:

    <!-- run: num_steps=500, `student="net3"` => `student="net3", num_updates=20` -->
    <!-- skip: needs a robot -->

`name=value` gives another value to every keyword argument of that name; the form with backticks replaces text. Either
must find something to replace. A skipped Python block is still compiled. `rldistill …` in console and bash blocks is
run with --dry-run, `make …` with -n; in a console block a command is what follows `$ `.
"""

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [
    path for pattern in ("*.md", "docs/**/*.md", "zoo/*.md", "bench/*.md") for path in sorted(REPOSITORY.glob(pattern))
]
# What is said of a file or folder that the reader has and the test has not.
IS_MISSING = re.compile(r"it does not exist|found nothing there|Nothing to inspect: ")
# These only read or explain, and have no --dry-run.
RUN_AS_THEY_ARE = {"inspect", "--help", "--version"}

FENCE = re.compile(r"\s*(```+)\s*(\w*)")
DIRECTIVE = re.compile(r"\s*<!-- (run|skip): (.+) -->\s*")
TEXT_REPLACEMENT = re.compile(r"`(?P<old>[^`]+)` => `(?P<new>[^`]*)`")
VALUE_REPLACEMENT = re.compile(r"(?P<name>\w+)=(?P<value>[^,`]+)")
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
HEADING = re.compile(r"#+ +(.+?) *#*")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it starts, its language, its text, and the comment before it (`run`, `skip` or none)."""

    page: Path
    line: int
    language: str
    text: str
    directive: str | None
    argument: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(REPOSITORY) if self.page.is_relative_to(REPOSITORY) else self.page}:{self.line}"


def find_blocks(page: Path, text: str) -> list[Block]:
    blocks, directive, lines = [], None, enumerate(text.splitlines(), start=1)
    for number, line in lines:
        if opening := FENCE.match(line):
            body = []
            for _, inner in lines:
                if inner.strip() == opening[1]:
                    break
                body.append(inner)
            kind, argument = directive.groups() if directive else (None, "")
            blocks.append(Block(page, number + 1, opening[2], "\n".join(body), kind, argument))
        if line.strip():
            directive = DIRECTIVE.fullmatch(line)
    return blocks


def shrunk(block: Block) -> str:
    """Return the block's text with the replacements of its `run` comment."""
    code = block.text
    rest = block.argument
    for match in TEXT_REPLACEMENT.finditer(block.argument):
        assert match["old"] in code, (
            f"{block.place}: the comment replaces {match['old']!r}, which the block does not say"
        )
        code = code.replace(match["old"], match["new"])
        rest = rest.replace(match[0], "")
    for item in filter(None, (item.strip() for item in rest.split(","))):
        match = VALUE_REPLACEMENT.fullmatch(item)
        assert match, f"{block.place}: cannot read {item!r} in the comment before the block"
        code, count = re.subn(rf"\b{match['name']}=[^,)\n]+", f"{match['name']}={match['value']}", code)
        assert count, f"{block.place}: the comment sets {match['name']}, which the block does not pass"
    return code


def find_commands(block: Block) -> list[list[str]]:
    """Return the commands of a console or bash block as words, one list per command of a pipe or chain."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language == "console":
        lines = [line.strip().removeprefix("$ ") for line in lines if line.strip().startswith("$ ")]
    commands: list[list[str]] = []
    for line in lines:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        commands.append([])
        for word in lexer:
            if set(word) <= set("();<>|&"):
                commands.append([])
            else:
                commands[-1].append(word)
    return commands


def find_anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    headings = filter(None, map(HEADING.fullmatch, page.read_text().splitlines()))
    return {re.sub(r"[^\w\- ]", "", heading[1].lower()).replace(" ", "-") for heading in headings}


def page_id(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


BLOCKS = [block for page in PAGES for block in find_blocks(page, page.read_text())]
PYTHON_PAGES = sorted({block.page for block in BLOCKS if block.language == "python"})
COMMANDS = {
    shlex.join(words): block
    for block in BLOCKS
    if block.language in {"console", "bash", "sh", "shell"} and block.directive != "skip"
    for words in find_commands(block)
    if words and words[0] in {"rldistill", "make"}
}


@pytest.fixture
def reader_folder(tmp_path, monkeypatch):
    """Where a reader stands: a folder with the teachers and configurations of the repository and nothing else."""
    for name in ("zoo", "configs"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=page_id)
def test_python_blocks_run_from_top_to_bottom(page, reader_folder):
    namespace = {"__name__": "__main__"}
    for block in (block for block in BLOCKS if block.page == page and block.language == "python"):
        source = shrunk(block) if block.directive == "run" else block.text
        # Empty lines in front give a traceback the page's own line numbers.
        code = compile("\n" * (block.line - 1) + source, str(page), "exec")
        if block.directive != "skip":
            exec(code, namespace)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_accepted(command, reader_folder):
    program, *arguments = shlex.split(command)
    if program == "make":
        full_command = ["make", "-n", "-C", str(REPOSITORY), *arguments]
    else:
        only_reads = RUN_AS_THEY_ARE & set(arguments) and "--verify" not in arguments
        dry_run = [] if only_reads else ["--dry-run"]
        full_command = [sys.executable, "-m", "rldistill", *arguments, *dry_run]
    completed = subprocess.run(full_command, capture_output=True, text=True, check=False, timeout=120)
    message = f"{COMMANDS[command].place}: {command}\n{completed.stderr}"
    # A file of the reader's, or a folder that earlier commands would have made: exit 1 and one line about it.
    is_one_line = completed.returncode == 1 and program != "make" and len(completed.stderr.splitlines()) == 1
    assert completed.returncode == 0 or (is_one_line and IS_MISSING.search(completed.stderr)), message


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page):
    prose = re.sub(r"^\s*(```+).*?^\s*\1$|`[^`\n]*`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    links = [first or second for first, second in LINK.findall(prose)]
    for link in (link for link in links if not re.match(r"\w+:", link)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(REPOSITORY), f"{link} leads out of the repository"
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in find_anchors(target), f"{link}: {target.name} has no such heading"


def block_of(text: str) -> Block:
    (block,) = find_blocks(Path("page.md"), text)
    return block


def test_a_run_comment_shrinks_the_block_after_it():
    block = block_of(
        "Text.\n<!-- run: num_steps=500, `out=\"a\"` => `out=\"b\", seed=1` -->\n\n"
        "```python\nf(num_steps=50_000, out=\"a\")\n```\n"
    )  # fmt: skip
    assert (block.line, block.directive) == (5, "run")
    assert shrunk(block) == 'f(num_steps=500, out="b", seed=1)'


@pytest.mark.parametrize(
    ("comment", "complaint"),
    [
        ("num_updates=5", "sets num_updates, which the block does not pass"),
        ("`g(` => `f(`", r"replaces 'g\(', which the block does not say"),
        ("smaller please", "cannot read 'smaller please'"),
    ],
)
def test_a_run_comment_that_changes_nothing_is_an_error(comment, complaint):
    block = block_of(f"<!-- run: {comment} -->\n```python\nf(num_steps=3)\n```")
    with pytest.raises(AssertionError, match=complaint):
        shrunk(block)


def test_a_comment_concerns_only_the_next_block():
    first, second = find_blocks(Path("page.md"), "<!-- skip: slow -->\n```bash\na\n```\n\n```bash\nb\n```")
    assert (first.directive, second.directive) == ("skip", None)


def test_commands_are_found_in_chains_and_after_prompts():
    console = block_of("```console\n$ rldistill collect a \\\n    --seed 0 | tee log\nrldistill says hello\n```")
    assert find_commands(console) == [["rldistill", "collect", "a", "--seed", "0"], ["tee", "log"]]
    bash = block_of("```bash\nmake quickstart && rldistill inspect zoo/pong.safetensors > out.txt  # look\n```")
    assert find_commands(bash)[:2] == [["make", "quickstart"], ["rldistill", "inspect", "zoo/pong.safetensors"]]
