"""`config.yml` and `args.yml` are read as data, whatever Python they hold."""

import sys

import pytest

from rldistill.adapters.sb3.beside import ZooFiles, read_zoo_files
from rldistill.errors import PolicyFileError

yaml = pytest.importorskip("yaml")

ORDERED = "!!python/object/apply:collections.OrderedDict\n- - - {key}\n    - {value}\n"


@pytest.fixture
def read(tmp_path):
    def read_files(config=None, arguments=None):
        for name, text in (("config.yml", config), ("args.yml", arguments)):
            if text is not None:
                (tmp_path / name).write_text(text)
        return read_zoo_files([tmp_path / "absent", tmp_path])

    return read_files


def test_a_folder_without_them(read):
    assert read() == ZooFiles()


def test_files_as_the_zoo_writes_them(shared_teachers):
    files = read_zoo_files([shared_teachers / "sb3" / "ppo" / "Ant-v3"])
    assert files == ZooFiles("Ant-v3", "ppo", observations_normalised=True, time_feature=True)


@pytest.mark.parametrize(
    "text", ["policy: MlpPolicy\nnormalize: true\n", ORDERED.format(key="normalize", value="true")]
)
def test_plain_mappings_and_ordered_ones(read, text):
    assert read(text).observations_normalised is True


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("true", True),
        ("false", False),
        ("null", False),
        ("dict(norm_obs=True, norm_reward=False)", True),
        ("dict(norm_obs=False, norm_reward=True)", False),
        ("\"{'norm_obs': False, 'norm_reward': True}\"", False),
        ("{norm_obs: false}", False),
        ("dict(gamma=0.9)", True),
        ("'False'", False),
        ("print(1)", True),  # no literal: something is normalised, nobody runs it to see what
    ],
)
def test_how_observations_were_normalised(read, value, expected):
    assert read(f"normalize: {value}\n").observations_normalised is expected


@pytest.mark.parametrize(
    ("text", "time_feature", "steps", "wrappers"),
    [
        ("sb3_contrib.common.wrappers.TimeFeatureWrapper", True, None, ()),
        ("utils.wrappers.TimeFeatureWrapper", True, None, ()),
        ("\n- rl_zoo3.wrappers.HistoryWrapper:\n    horizon: 5\n- a.TimeFeatureWrapper:\n    max_steps: 300",
         True, 300, ("HistoryWrapper",)),
        ("null", False, None, ()),
        ("\n- gym_minigrid.wrappers.FlatObsWrapper", False, None, ("FlatObsWrapper",)),
    ],
)  # fmt: skip
def test_wrappers(read, text, time_feature, steps, wrappers):
    files = read(f"env_wrapper: {text}\n")
    assert (files.time_feature, files.time_feature_steps, files.wrappers) == (time_feature, steps, wrappers)


def test_arguments(read):
    files = read("frame_stack: 4\n", "env: PongNoFrameskip-v4\nalgo: dqn\nenv_kwargs: {size: 4}\n")
    assert (files.environment, files.algorithm, files.environment_kwargs) == ("PongNoFrameskip-v4", "dqn", {"size": 4})
    assert files.frame_stack == 4


@pytest.mark.parametrize(
    "tag",
    [
        "object/apply:os.system",
        "object/new:subprocess.Popen",
        "name:os.system",
        "module:os",
        "tuple",
        "object/apply:eval",
    ],
)
def test_python_in_them_is_not_executed(read, tmp_path, tag):
    target = tmp_path / "broken in"
    value = f"!!python/{tag} ['touch {target}']" if tag[0] in "ot" else f"!!python/{tag} ''"
    files = read(f"normalize: {value}\npolicy_kwargs: {value}\nenv_wrapper: {value}\n", f"env: {value}\n")
    assert files.environment is None
    assert not target.exists()


def test_source_code_in_them_is_not_executed(read, tmp_path):
    target = tmp_path / "broken in"
    for source in (
        f"dict(norm_obs=open({str(target)!r}, 'w'))",
        f"open({str(target)!r}, 'w')",
        f"dict(**open({str(target)!r}, 'w'))",
    ):
        assert read(f'normalize: "{source}"\n').observations_normalised is True
    assert not target.exists()


@pytest.mark.parametrize(
    "text",
    ["[", "a: [1", "\x00", "a: !unknown 1", "- 1\n- 2\n", "just text", "a: &x 1\n<<: *x\n", "[" * 3000, "? [a]: b"],
)
def test_what_is_no_yaml_of_settings_is_one_line(read, tmp_path, text):
    with pytest.raises(PolicyFileError) as caught:
        read(text)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(str(tmp_path / "config.yml"))
    assert line.endswith("Move it away to load without it.")


def test_aliases_do_not_multiply(read):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)]
    line = (
        r"config\.yml is not YAML of plain data: it holds more than 10,000 values\. Move it away to load without it\.$"
    )
    with pytest.raises(PolicyFileError, match=line):
        read("\n".join(lines))


def test_a_few_aliases_are_read(read):
    files = read("a: &a [x, x]\nb: *a\nframe_stack: 2")
    assert (files.observations_normalised, files.frame_stack) == (False, 2)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("normalize: !!bool maybe", r"is not YAML of plain data: 'maybe' is no value of its tag\."),
        ("normalize: !!int ''", r"is not YAML of plain data: "),
        ("frame_stack: 1" + ":59" * 1000, r"frame_stack is a number of too many digits, expected at most 1,000\."),
        ("a: " + "[" * 10_000, r"is not YAML of plain data: "),
    ],
)
def test_values_that_are_none_of_their_tag_are_one_line(read, text, reason):
    with pytest.raises(PolicyFileError, match=reason):
        read(text)


@pytest.mark.parametrize(
    ("config", "arguments", "names"),
    [
        ("gamma: 0.9\nuse_sde: true\nframe_stack: null\n", "env: a\nalgo: ppo\nseed: 1\nenv_kwargs: null\n", ()),
        ("frame_stack: four\n", None, ("frame_stack (config.yml)",)),
        ("env_wrapper:\n- a.TimeFeatureWrapper:\n    max_steps: all\n    from: end\n", None,
         ("from of TimeFeatureWrapper (config.yml)", "max_steps of TimeFeatureWrapper (config.yml)")),
        (None, "env: !!python/name:os.system ''\nenv_kwargs: dict(a=1)\n", ("env (args.yml)", "env_kwargs (args.yml)")),
        ('"\\e[2J": 1\n', None, ("\\x1b[2J (config.yml)",)),
    ],
)  # fmt: skip
def test_what_nobody_understands_is_listed(read, config, arguments, names):
    assert read(config, arguments).not_understood == names


def test_too_large_a_file(read, tmp_path):
    with pytest.raises(PolicyFileError, match=r"is refused: it takes 2,097,152 bytes, at most 32,768 are read\."):
        read("#" * (2 << 20))


def test_without_pyyaml_the_message_names_the_file_and_the_extra(read, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert read() == ZooFiles()
    with pytest.raises(
        PolicyFileError,
        match=r"config\.yml says how .*/pip install -c constraints\.txt -e '\.\[sb3\]' in the checkout of \w+\.$",
    ):
        read("normalize: true\n")
