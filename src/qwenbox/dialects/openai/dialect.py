"""This is where the OpenAI-compatible dialect is put together."""

from qwenbox.dialects.base import BatchesWire, Dialect, FilesWire, ResponsesWire, Route, Verb
from qwenbox.dialects.openai import batches, completions, embeddings, errors, files, images, models, parse, rerank, unserved
from qwenbox.dialects.openai.responses import stored
from qwenbox.dialects.openai.responses.parse import Draft

DIALECT = Dialect(
    name="openai",
    # The third is where the service has its `/reranks`, the last where it had `/responses` first.
    prefixes=("/compatible-mode/v1", "/v1", "/compatible-api/v1", "/api/v2/apps/protocols/compatible-mode/v1"),
    routes=(
        Route(method="POST", path="/chat/completions", verb=Verb.CHAT),
        Route(method="POST", path="/completions", verb=Verb.COMPLETE),
        Route(method="POST", path="/embeddings", verb=Verb.EMBED),
        Route(method="POST", path="/reranks", verb=Verb.RERANK),
        Route(method="POST", path="/rerank", verb=Verb.RERANK),
        Route(method="POST", path="/images/generations", verb=Verb.MAKE_IMAGE),
        Route(method="GET", path="/models", verb=Verb.LIST_MODELS),
        Route(method="GET", path="/models/{model}", verb=Verb.GET_MODEL),
        Route(method="POST", path="/files", verb=Verb.UPLOAD_FILE),
        Route(method="GET", path="/files", verb=Verb.LIST_FILES),
        Route(method="GET", path="/files/{id}", verb=Verb.GET_FILE),
        Route(method="DELETE", path="/files/{id}", verb=Verb.DELETE_FILE),
        Route(method="GET", path="/files/{id}/content", verb=Verb.FILE_CONTENT),
        Route(method="POST", path="/batches", verb=Verb.CREATE_BATCH),
        Route(method="GET", path="/batches", verb=Verb.LIST_BATCHES),
        Route(method="GET", path="/batches/{id}", verb=Verb.GET_BATCH),
        Route(method="POST", path="/batches/{id}/cancel", verb=Verb.CANCEL_BATCH),
        Route(method="POST", path="/responses", verb=Verb.CREATE_RESPONSE),
        Route(method="POST", path="/responses/input_tokens", verb=Verb.COUNT_RESPONSE),
        Route(method="GET", path="/responses/{id}", verb=Verb.GET_RESPONSE),
        Route(method="DELETE", path="/responses/{id}", verb=Verb.DELETE_RESPONSE),
        Route(method="GET", path="/responses/{id}/input_items", verb=Verb.RESPONSE_INPUT),
    ),
    unserved=unserved.FAMILIES,
    credential=parse.credential,
    error_page=errors.page,
    parse_chat=parse.chat,
    parse_completion=completions.parse,
    parse_embedding=embeddings.parse,
    parse_rerank=rerank.parse,
    parse_image=images.parse,
    parse_models=models.parse,
    render_models=models.page,
    files=FilesWire(
        upload=files.upload,
        asked=files.asked,
        uploaded=files.uploaded,
        one=files.one,
        page=files.page,
        deleted=files.deleted,
        content_head=files.content_head,
    ),
    responses=ResponsesWire(
        draft=Draft,
        one=stored.one,
        deleted=stored.deleted,
        input_page=stored.input_page,
        counted=stored.counted,
    ),
    batches=BatchesWire(new=batches.new, asked=batches.asked, one=batches.one, page=batches.page),
)
