"""This is where `python -m qwenbox` begins."""

from qwenbox.cli.main import app

app(prog_name="qwenbox")
