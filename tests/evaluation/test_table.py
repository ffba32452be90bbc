"""The tables of an evaluation: every number in its column, in 80 columns, whatever names are like."""

import re

import pytest
from rich.cells import cell_len

from rldistill.evaluation.records import Evaluation
from rldistill.evaluation.table import evaluation_table, size_text
from rldistill.verbs.evaluate import evaluate
from tests.kit.cart_pole import hand_made_teacher, short_cart_pole
from tests.kit.evaluations import compare, rows_of
from tests.kit.payout import constant_heads, constant_policy, payout_task, payout_tasks
from tests.kit.push import push_policy

A, B = (f"tests.kit.payout:Payout{letter}-v0" for letter in "AB")


@pytest.fixture(scope="module")
def task():
    """Payouts 2, 6 and 10; random play scores 2."""
    return payout_task()


# One task.


def test_the_table_has_a_line_for_each_policy_and_fits_80_columns():
    task = payout_task(payouts=[-2000.5, 6000.25, 12345], otherwise=-2000, noise=500.0)
    students = [constant_policy(task, 1, "pong-net3-seed1"), constant_policy(task, 0, "a student")]
    teacher = constant_policy(task, 2, "big")
    text = evaluation_table(evaluate(students, task, teacher=teacher, num_episodes=30))
    lines = text.splitlines()
    assert lines[:4] == [
        "tests.kit.payout:Payout-v0: 30 episodes each, seed 0, exploration ε 0,",
        "  all greedy,",
        '  settings {"payouts": [-2000.5, 6000.25, 12345], "otherwise": -2000, "noise": …',
        "",
    ]
    assert max(map(len, lines)) <= 80
    scores, beside, costs = (rows_of(part) for part in text.split("\n\n")[1:])
    assert scores[0] == ["policy", "score [95 %]", "retention [95 %]"]
    names = ["pong-net3-seed1", "a student"]
    assert [row[0] for row in scores[1:]] == ["big (teacher)", *names, "random"]
    assert beside[0] == ["student", "score ÷ teacher's [95 %]", "agreement [95 %]"]
    assert [row[0] for row in beside[1:]] == names
    assert costs[0] == ["policy", "network", "parameters", "MACs", "size", "latency", "per second"]
    assert [row[:2] for row in costs[1:]] == [[name, "mlp:1"] for name in ("big", *names)]


def test_what_rounds_to_a_thousand_is_written_as_one():
    text = evaluation_table(evaluate(constant_policy(task := payout_task(payouts=[999.7]), 0), task, num_episodes=5))
    assert "999.7 [1,000, 1,000]" in text
    text = evaluation_table(evaluate(constant_policy(task := payout_task(payouts=[-999.97]), 0), task, num_episodes=5))
    assert "-1,000 [-1,000, -1,000]" in text


def test_a_table_of_known_scores(task):
    text = evaluation_table(compare(task, student=1))
    assert text.split("\n\n")[1].splitlines() == [
        "policy             score [95 %]      retention [95 %]",
        "teacher (teacher)   10 [10, 10]      -",
        "student              6 [6, 6]    0.500 [0.500, 0.500]",
        "random               2 [2, 2]        -",
    ]
    assert text.split("\n\n")[2].splitlines() == [
        "student  score ÷ teacher's [95 %]  agreement [95 %]",
        "student      0.600 [0.600, 0.600]   0.0% [0.0, 0.0]",
    ]
    assert rows_of(text.split("\n\n")[3])[1][:5] == ["teacher", "mlp:1", "8", "4", "32 B"]


def test_tasks_of_choices_and_of_boxes_share_columns_for_both(task):
    student, teacher = push_policy(), push_policy()
    teacher.network.state_dict()["heads.0.output.bias"].zero_()  # pushes nothing; the student tanh(1) of half the box
    pushed = evaluate(student, teacher=teacher, num_episodes=5)
    text = evaluation_table(Evaluation(0, (*compare(task, student=1).policies, *pushed.policies)))
    assert max(map(len, text.splitlines())) <= 80
    blocks = [rows_of(block) for block in text.split("\n\n")]
    assert blocks[2][0] == blocks[5][0]
    assert blocks[2][0][2:] == ["agreement [95 %]", "action gap [95 %]"]
    assert blocks[2][1] == ["student", "0.600 [0.600, 0.600]", "0.0% [0.0, 0.0]", "-"]
    assert blocks[5][1] == ["push", "-", "-", "38.1% [38.1, 38.1]"]


def test_a_name_that_is_too_long_stands_whole_above_its_row(task):
    long = "a-run-folder-of-a-name-that-is-longer-than-half-of-a-terminal-is-wide"
    text = evaluation_table(evaluate([constant_policy(task, 1, long), constant_policy(task, 0, "b")], num_episodes=5))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[lines.index(long) + 1].split() == ["6", "[6,", "6]", "-"]


def test_names_of_another_script_take_two_columns_each(task):
    text = evaluation_table(evaluate([constant_policy(task, 1, "学生"), constant_policy(task, 0, "b")], num_episodes=5))
    first, second = text.split("\n\n")[1].splitlines()[1:3]
    assert cell_len(first.partition("6")[0]) == cell_len(second.partition("2")[0])


def test_who_acts_how_is_told_once_or_in_a_column():
    task = short_cart_pole()
    student, teacher = hand_made_teacher(kind="logits"), hand_made_teacher(kind="logits", behaviour="sample")
    text = str(evaluate(student, task, teacher=teacher, num_episodes=5))
    assert "all greedy" not in text
    assert [row[:2] for row in rows_of(text.split("\n\n")[1])] == [
        ["policy", "acts"],
        ["hand-made (teacher)", "sample"],
        ["hand-made", "greedy"],
        ["random", "-"],
    ]
    assert "exploration ε 0, all sample" in str(evaluate(teacher, task, num_episodes=5))


def test_control_characters_of_a_files_name_do_not_reach_a_terminal(task, tmp_path):
    constant_policy(task, 1, "odd").save(tmp_path / "\x1b[2Jred\rname.safetensors")
    text = str(evaluate(tmp_path / "\x1b[2Jred\rname.safetensors", task, num_episodes=1))
    assert "\\x1b[2Jred name" in text
    assert "Payout-v0: 1 episode each, seed 0" in text
    assert all(letter.isprintable() or letter == "\n" for letter in text)


def test_printing_an_evaluation_shows_the_table_and_its_representation_is_a_line(task):
    result = compare(task, student=1)
    assert str(result) == evaluation_table(result)
    assert repr(result) == (
        "<Evaluation of tests.kit.payout:Payout-v0, seed 0: <teacher: mean 10 of 8 episodes>, "
        "<student: mean 6 of 8 episodes, retention 0.500>, <random: mean 2 of 8 episodes>>"
    )
    assert repr(compare(task, student=1, num_episodes=1).policies[1]) == (
        "<student: mean 6 of 1 episodes, retention 0.500>"
    )


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (232, "232 B"),
        (1000, "1 kB"),
        (5904, "5.9 kB"),
        (999_499, "999 kB"),
        (999_999, "1 MB"),
        (6_760_000, "6.76 MB"),
        (2 * 10**9, "2 GB"),
        (12 * 10**12, "12,000 GB"),
    ],
)
def test_sizes_are_told_in_the_unit_that_fits(num_bytes, text):
    assert size_text(num_bytes) == text


# Several tasks.


def test_the_table_has_a_block_for_each_task_in_the_same_columns_then_one_over_all_and_fits_80_columns():
    tasks = payout_tasks(a={"noise": 1.0}, b={"payouts": [-2000.5, 6000.25, 12345], "otherwise": -2000, "noise": 500.0})
    teachers = [constant_policy(task, 2, name) for task, name in zip(tasks, ("pong", "big"), strict=True)]
    students = [constant_heads(tasks, (1, 1), "multitask3-seed1"), constant_heads(tasks, (0, 0), "a student")]
    text = evaluation_table(evaluate(students, teacher=teachers, num_episodes=30))
    assert max(map(len, text.splitlines())) <= 80
    parts = [part.splitlines() for part in text.split("\n\n")]
    assert [parts[number][0] for number in (0, 3, 6)] == [
        f"{A}: 30 episodes each, seed 0, exploration ε 0,",
        f"{B}: 30 episodes each, seed 0, exploration ε 0,",
        "all 2 tasks: geometric mean of student ÷ teacher, mean of retention",
    ]
    names = [[line.split("  ")[0] for line in part[1:]] for part in parts]
    both = ["multitask3-seed1", "a student"]
    assert names[1:3] == [["pong (teacher)", *both, "random"], both]
    assert names[4:6] == [["big (teacher)", *both, "random"], both]
    assert [part[0] for part in parts[1:3]] == [part[0] for part in parts[4:6]]
    assert names[7:] == [both, ["pong", *both, "big"]], "what a policy costs is told once"


def test_a_table_of_known_scores_over_all_tasks(result_of_three, student_of_three, three_teachers):
    def last_rows(found):
        return evaluation_table(found).split("\n\n")[-2].splitlines()

    header, row = last_rows(result_of_three)
    assert re.split(r" {2,}", header) == ["policy", "geometric mean [95 %]", "mean retention [95 %]", "lower bound"]
    assert " ".join(row.split()) == "student 0.329 [0.329, 0.329] 0.317 [0.317, 0.317] 0.317"
    partly = evaluate(student_of_three, teacher=three_teachers[:2], num_episodes=5)
    assert " ".join(last_rows(partly)[1].split()) == "student in 2 of 3 in 2 of 3 -"
    assert "(where a task has none: in how many there is one)" in str(partly)


def test_without_a_student_of_all_tasks_there_is_no_block_over_all(student_of_three):
    assert "all 3 tasks" not in evaluation_table(evaluate(student_of_three, teacher=student_of_three, num_episodes=1))
