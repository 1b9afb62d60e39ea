"""This is where the DashScope native dialect is put together."""

from qwenbox.dialects.base import Dialect, FilesWire, Route, TasksWire, UploadsWire, Verb, WireRequest
from qwenbox.dialects.dashscope import (
    embeddings,
    errors,
    files,
    images,
    models,
    parse,
    rerank,
    short_lived,
    tasks,
    tokenizer,
    unserved,
    uploads,
)
from qwenbox.terms.errors import ApiError, ErrorKind


def credential(request: WireRequest) -> str:
    """The key of `Authorization: Bearer`.

    Raises ApiError(UNAUTHENTICATED): the SDK's 2.0 client sends no header when it has no key, and is told so.
    """
    header = request.headers.get("authorization", "").strip()
    if not header:
        raise ApiError(ErrorKind.UNAUTHENTICATED, errors.NO_KEY)
    scheme, _, key = header.partition(" ")
    if scheme.lower() != "bearer":
        raise ApiError(ErrorKind.UNAUTHENTICATED)
    if not key.strip():
        raise ApiError(ErrorKind.UNAUTHENTICATED, errors.NO_KEY)
    return key.strip()


DIALECT = Dialect(
    name="dashscope",
    prefixes=("/api/v1",),
    routes=(
        Route(method="POST", path="/services/aigc/text-generation/generation", verb=Verb.CHAT),
        Route(method="POST", path=images.GENERATION, verb=Verb.CHAT_OR_IMAGE),
        Route(method="POST", path=images.GENERATION_TASKS, verb=Verb.MAKE_IMAGE),
        Route(method="POST", path=images.SYNTHESIS, verb=Verb.MAKE_IMAGE),
        Route(method="POST", path=images.EDITING, verb=Verb.MAKE_IMAGE),
        Route(method="GET", path="/tasks", verb=Verb.LIST_TASKS),
        Route(method="GET", path="/tasks/{id}", verb=Verb.GET_TASK),
        Route(method="POST", path="/tasks/{id}/cancel", verb=Verb.CANCEL_TASK),
        Route(method="POST", path="/services/aigc/code-generation/generation", verb=Verb.CHAT),
        Route(method="POST", path="/services/embeddings/text-embedding/text-embedding", verb=Verb.EMBED),
        Route(method="POST", path="/services/rerank/text-rerank/text-rerank", verb=Verb.RERANK),
        Route(method="POST", path="/tokenizer", verb=Verb.COUNT_TOKENS),
        Route(method="GET", path="/models", verb=Verb.LIST_MODELS),
        Route(method="POST", path="/files", verb=Verb.UPLOAD_FILE),
        Route(method="GET", path="/files", verb=Verb.LIST_FILES),
        Route(method="GET", path="/files/{id}", verb=Verb.GET_FILE),
        Route(method="DELETE", path="/files/{id}", verb=Verb.DELETE_FILE),
        Route(method="GET", path="/uploads", verb=Verb.GRANT_UPLOAD),
        Route(method="POST", path="/tokens", verb=Verb.SHORT_LIVED_KEY),
    ),
    unserved=unserved.FAMILIES,
    credential=credential,
    error_page=errors.error_page,
    parse_chat=parse.chat,
    parse_embedding=embeddings.parse,
    parse_rerank=rerank.parse,
    parse_tokens=tokenizer.parse,
    render_tokens=tokenizer.page,
    parse_image=images.parse,
    tasks=TasksWire(
        is_wanted=images.wants_task,
        endpoint=images.endpoint,
        submitted=tasks.submitted,
        one=tasks.one,
        asked=tasks.asked,
        page=tasks.page,
        cancelled=tasks.cancelled,
        only_tasks=images.ONLY_TASKS,
    ),
    model_of=images.model_of,
    image_families=images.FAMILIES,
    parse_models=models.parse,
    render_models=models.render,
    parse_short_lived=short_lived.parse,
    render_short_lived=short_lived.render,
    files=FilesWire(
        upload=files.upload,
        asked=files.asked,
        uploaded=files.uploaded,
        one=files.one,
        page=files.page,
        deleted=files.deleted,
        content_head=files.content_head,
    ),
    uploads=UploadsWire(asked=uploads.asked, policy=uploads.policy, permit=uploads.permit, granted=uploads.granted, read=uploads.read),
)
