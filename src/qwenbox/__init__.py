"""qwenbox: the Qwen API on your own machine."""

__version__ = "0.1.0"
