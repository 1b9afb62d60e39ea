"""These run where the extra qwenbox[images] is installed: `make test-images`."""

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("diffusers") and importlib.util.find_spec("torch") else ["*"]
