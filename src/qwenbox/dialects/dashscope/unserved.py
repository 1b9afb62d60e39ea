"""This is where it is said which of the native API's endpoints qwenbox does not serve, and why."""

from qwenbox.dialects.unserved import Unserved

FAMILIES = (
    Unserved(
        name="Fine-tuning",
        paths=("/fine-tunes",),
        why="it runs weights and trains none; weights tuned elsewhere are named in a [[model]] of its configuration",
    ),
    Unserved(
        name="Deployments",
        paths=("/deployments",),
        why="which engine runs a model is said in its configuration, [[engine]] and [[model]]",
    ),
    Unserved(
        name="Applications and agents",
        paths=("/apps", "/agentstudio", "/systemone"),
        why="they live on the platform that built them; call the model they use instead",
    ),
    Unserved(
        name="Assistants and threads",
        paths=("/assistants", "/threads"),
        why="the service has given this API up; Responses with previous_response_id keep a conversation",
    ),
    Unserved(
        name="Video generation",
        paths=("/services/aigc/video-generation", "/services/aigc/image2video"),
        why="it has no engine for videos",
    ),
    Unserved(
        name="Speech recognition",
        paths=("/services/audio/asr",),
        why="it reads and writes text and pictures, no sound",
    ),
    Unserved(
        name="Speech synthesis",
        paths=("/services/audio/tts",),
        why="it reads and writes text and pictures, no sound",
    ),
    Unserved(
        name="Language understanding (NLU)",
        paths=("/services/nlp", "/nlp"),
        why="the service has given this API up; ask a chat model",
    ),
    Unserved(
        name="Embeddings of pictures and videos",
        paths=("/services/embeddings/multimodal-embedding",),
        why="it makes vectors of texts only, at /api/v1/services/embeddings/text-embedding/text-embedding",
        is_planned=True,
    ),
    Unserved(
        name="Picture effects",
        paths=(
            "/services/vision",
            "/services/aigc/virtualmodel",
            "/services/aigc/background-generation",
            "/services/aigc/image2image/out-painting",
        ),
        why="it has no engine for them; pictures are edited at /api/v1/services/aigc/image2image/image-synthesis",
    ),
    Unserved(
        name="Rate limits of models",
        paths=("/models/limits",),
        why="the head of every answer has them as x-ratelimit-*",
        is_planned=True,
    ),
)
