"""This is where it is said which of Anthropic's endpoints qwenbox does not serve, and why."""

from qwenbox.dialects.unserved import Unserved

FAMILIES = (
    Unserved(
        name="Message batches",
        paths=("/v1/messages/batches",),
        why="batches are run at /compatible-mode/v1/batches",
        is_planned=True,
    ),
    Unserved(
        name="Files",
        paths=("/v1/files",),
        why="files are stored at /compatible-mode/v1/files",
        is_planned=True,
    ),
    Unserved(
        name="Text completions",
        paths=("/v1/complete",),
        why="Anthropic has given this API up; use /v1/messages",
    ),
    Unserved(
        name="Agents, skills and sessions",
        paths=("/v1/agents", "/v1/skills", "/v1/sessions", "/v1/environments", "/v1/deployments", "/v1/memory_stores", "/v1/vaults"),
        why="it runs no tools, only models",
    ),
    Unserved(
        name="Administration of an organization",
        paths=("/v1/organizations",),
        why="accounts, keys and usage are administered at /admin/v1",
    ),
)
