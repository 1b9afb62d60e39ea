"""This is where the dialects we speak are listed; routes, error pages and the contract suite follow from it."""

from qwenbox.dialects.anthropic.dialect import DIALECT as ANTHROPIC
from qwenbox.dialects.base import Dialect
from qwenbox.dialects.dashscope.dialect import DIALECT as DASHSCOPE
from qwenbox.dialects.openai.dialect import DIALECT as OPENAI

DIALECTS: tuple[Dialect, ...] = (OPENAI, DASHSCOPE, ANTHROPIC)
