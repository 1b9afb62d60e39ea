"""This is where it is said which of the OpenAI-compatible API's endpoints qwenbox does not serve, and why."""

from qwenbox.dialects.unserved import Unserved

FAMILIES = (
    Unserved(
        name="Audio",
        paths=("/audio",),
        why="it reads and writes text and pictures, no sound",
    ),
    Unserved(
        name="Realtime and live sessions",
        paths=("/realtime", "/live"),
        why="it reads and writes text and pictures, no sound",
    ),
    Unserved(
        name="Videos",
        paths=("/videos",),
        why="it has no engine for videos",
    ),
    Unserved(
        name="Edits and variations of pictures",
        paths=("/images/edits", "/images/variations"),
        why="pictures are edited at /api/v1/services/aigc/image2image/image-synthesis",
        is_planned=True,
    ),
    Unserved(
        name="Fine-tuning",
        paths=("/fine_tuning",),
        why="it runs weights and trains none; weights tuned elsewhere are named in a [[model]] of its configuration",
    ),
    Unserved(
        name="Moderations",
        paths=("/moderations",),
        why="it has no model that judges texts",
    ),
    Unserved(
        name="Assistants and threads",
        paths=("/assistants", "/threads", "/chatkit"),
        why="OpenAI has given this API up; Responses with previous_response_id keep a conversation",
    ),
    Unserved(
        name="Conversations",
        paths=("/conversations",),
        why="Responses with previous_response_id keep a conversation",
        is_planned=True,
    ),
    Unserved(
        name="Stored chat completions",
        paths=("/chat/completions/{id}",),
        why="chats are not kept; Responses are, with store",
    ),
    Unserved(
        name="Background and compacted responses",
        paths=("/responses/{id}/cancel", "/responses/compact"),
        why="responses are made while their caller waits",
        is_planned=True,
    ),
    Unserved(
        name="Vector stores",
        paths=("/vector_stores",),
        why="it searches no documents; /embeddings and /reranks are what a store of your own needs",
    ),
    Unserved(
        name="Uploads in parts",
        paths=("/uploads",),
        why="files are uploaded whole at /files",
    ),
    Unserved(
        name="Evaluations",
        paths=("/evals",),
        why="it runs none",
    ),
    Unserved(
        name="Containers, skills and agents",
        paths=("/containers", "/skills", "/agents", "/vaults"),
        why="it runs no tools, only models",
    ),
    Unserved(
        name="Administration of an organization",
        paths=("/organization", "/projects", "/webhook_endpoints"),
        why="accounts, keys and usage are administered at /admin/v1",
    ),
)
