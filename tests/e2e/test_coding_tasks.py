"""Ten small coding tasks through both SDKs on real weights: how many of the generated functions pass their tests."""

import re
import resource
import subprocess
import sys
from dataclasses import dataclass

import pytest

from boxes import Box
from sdk import forms

pytestmark = pytest.mark.e2e

# Of the processor, and of a machine that is busy with something else.
RUN_S, WAIT_S = 2, 30
# Tasks, where counts are not full.
FEW = 6
MEMORY_BYTES = 1 << 30


@dataclass(frozen=True)
class Task:
    """What is asked for, and assertions about the function `name`."""

    name: str
    wish: str
    tests: str


TASKS = [
    Task("is_even", "is_even(n) returns True if the integer n is even", "assert is_even(4) and is_even(0) and not is_even(7)"),
    Task("reverse", "reverse(s) returns the string s reversed", "assert reverse('abc') == 'cba' and reverse('') == ''"),
    Task(
        "factorial",
        "factorial(n) returns n! for an integer n >= 0",
        "assert [factorial(n) for n in range(6)] == [1, 1, 2, 6, 24, 120]",
    ),
    Task(
        "fibonacci",
        "fibonacci(n) returns the n-th Fibonacci number, fibonacci(0) == 0 and fibonacci(1) == 1",
        "assert [fibonacci(n) for n in range(8)] == [0, 1, 1, 2, 3, 5, 8, 13]",
    ),
    Task(
        "is_prime",
        "is_prime(n) returns True if the integer n is a prime number",
        "assert [n for n in range(20) if is_prime(n)] == [2, 3, 5, 7, 11, 13, 17, 19]",
    ),
    Task(
        "count_vowels",
        "count_vowels(s) returns how many vowels (aeiou, either case) the string s has",
        "assert count_vowels('Hello World') == 3 and count_vowels('xyz') == 0 and count_vowels('AEIOU') == 5",
    ),
    Task(
        "is_palindrome",
        "is_palindrome(s) returns True if the string s reads the same backwards, ignoring case and everything but letters and digits",
        "assert is_palindrome('A man, a plan, a canal: Panama') and not is_palindrome('hello')",
    ),
    Task(
        "flatten",
        "flatten(items) returns a flat list of all values in arbitrarily nested lists",
        "assert flatten([1, [2, [3, [4]]], []]) == [1, 2, 3, 4] and flatten([]) == []",
    ),
    Task(
        "two_sum",
        "two_sum(numbers, target) returns the indices (i, j), i < j, of two numbers that add up to target, or None",
        "assert tuple(two_sum([2, 7, 11, 15], 9)) == (0, 1) and two_sum([1, 2], 9) is None",
    ),
    Task(
        "roman",
        "roman(n) returns the integer n (1 to 3999) as a Roman numeral",
        "assert [roman(n) for n in (4, 9, 40, 1994)] == ['IV', 'IX', 'XL', 'MCMXCIV']",
    ),
]


def code_in(answer: str) -> str:
    """The first fenced block, else the answer from its first `def` or import on."""
    if fenced := re.search(r"```(?:python|py)?\n(.*?)(?:```|\Z)", answer, re.S):
        return fenced[1]
    begun = re.search(r"^(?:def|import|from) .*", answer, re.S | re.M)
    return begun[0] if begun else ""


def limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (RUN_S, RUN_S))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def passes(task: Task, answer: str) -> bool:
    """Whether the generated function passes its tests in a process of its own: isolated, nothing inherited, bounded."""
    program = f"{code_in(answer)}\n\n{task.tests}\n"
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", program],
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=WAIT_S,
            preexec_fn=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def test_judge_tells_good_from_bad_functions():
    task = TASKS[0]

    assert passes(task, "Sure!\n```python\ndef is_even(n):\n    return n % 2 == 0\n```\nDone.")
    assert passes(task, "def is_even(n):\n    return n % 2 == 0\n")
    assert not passes(task, "```python\ndef is_even(n):\n    return True\n```")
    assert not passes(task, "```python\ndef is_even(n):\n    while True: pass\n```")
    assert not passes(task, "I can't.")


@pytest.mark.parametrize(("model", "least"), [("qwen-turbo", 0.6), ("qwen-plus", 0.7)])
def test_generated_functions_pass_their_tests(both_weights_box: Box, model: str, least: float, is_full: bool):
    """Greedy, each task through the next of both SDKs' forms in turn; `least`, a share, is well below what was measured: nine of ten."""
    tasks = TASKS if is_full else TASKS[:FEW]
    asking = [forms.generation, forms.openai_whole, forms.generation_stream, forms.openai_stream]
    results: dict[str, bool] = {}
    for place, task in enumerate(tasks):
        messages = [
            {"role": "system", "content": "You are a Python programmer. Answer with one Python code block and nothing else."},
            {"role": "user", "content": f"Write a Python function: {task.wish}."},
        ]
        outcome = asking[place % len(asking)](both_weights_box, messages, model=model, temperature=0, max_tokens=300)
        results[task.name] = passes(task, outcome.first.text)
    failed = [name for name, is_passed in results.items() if not is_passed]
    print(f"\n{model}: {sum(results.values())} of {len(tasks)} generated functions pass; failed: {', '.join(failed) or 'none'}")

    assert sum(results.values()) >= least * len(tasks)
