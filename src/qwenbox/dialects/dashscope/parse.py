"""This is where a native chat request becomes terms, and how to answer it is decided (wire reference 1.3, 1.4, 2, 3.1)."""

from qwenbox.dialects.base import Parsed, WireRequest
from qwenbox.dialects.dashscope import body, errors, messages, parameters, tools
from qwenbox.dialects.dashscope.parameters import wrong
from qwenbox.dialects.dashscope.render import Manner, Shape, StreamReply, WholeReply
from qwenbox.dialects.dashscope.schema import Body, Input, Parameters
from qwenbox.terms.caller import Compat
from qwenbox.terms.chat import ChatRequest, ToolNamed
from qwenbox.terms.errors import ApiError, ErrorKind

NO_JSON_WORD = "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
JSON_WHILE_THINKING = "Json mode response is not supported when enable_thinking is true"
THINKING_NEEDS_STREAM = "parameter.enable_thinking must be set to false for non-streaming calls"
THINKING_NEEDS_INCREMENTS = 'The incremental_output parameter must be "true" when enable_thinking is true'
NEEDS_MESSAGE = 'The result_format parameter must be "message" when {}'
ENCRYPTED = "Encrypted input is not supported. Send the input parameter in json format, without enable_encryption."
NO_PLUGINS = "Plugins are not supported."
NO_TASKS = "Current user api does not support asynchronous calls."

_NO_PARAMETERS = Parameters()


def chat(request: WireRequest, compat: Compat) -> Parsed[ChatRequest]:
    """What to do and how to answer.

    The card of the model is not known here, so every model counts as a classic one at level `strict`: text format and cumulative streams.
    Whoever knows better builds the reply from another Manner.
    Raises ApiError: INVALID_REQUEST in the service's words, naming the field; FORBIDDEN for an asynchronous call.
    """
    _check_headers(request)
    given = body.decode(request.body)
    asked, said = _envelope(given, request)
    is_multimodal = "/multimodal-generation/" in request.path
    is_stream = _wants_stream(request)
    parameters.check(said, compat)
    chat_request = _request(given.model or "", asked, said, is_multimodal=is_multimodal, compat=compat)
    shape = Shape.PARTS if is_multimodal else _shape(said, chat_request, has_messages=asked.messages is not None, compat=compat)
    manner = Manner(
        shape=shape,
        is_incremental=_is_incremental(said, chat_request, compat),
        is_default=said.incremental_output is None,
        is_call_forced=isinstance(chat_request.tool_choice, ToolNamed),
        n=chat_request.n,
    )
    if said.enable_thinking and compat is Compat.STRICT:
        _check_thinking(manner, is_stream=is_stream)
    reply = StreamReply(request.id, manner) if is_stream else WholeReply(request.id, manner)
    return Parsed(request=chat_request, reply=reply)


def _check_headers(request: WireRequest) -> None:
    if request.headers.get("x-dashscope-async", "").lower() == "enable":
        raise ApiError(ErrorKind.FORBIDDEN, NO_TASKS, param="X-DashScope-Async")
    if "x-dashscope-plugin" in request.headers:
        raise ApiError(ErrorKind.INVALID_REQUEST, NO_PLUGINS, param="X-DashScope-Plugin")


def _wants_stream(request: WireRequest) -> bool:
    """Either header asks for a stream; the body has no field for it."""
    if "text/event-stream" in request.headers.get("accept", ""):
        return True
    return request.headers.get("x-dashscope-sse", "").lower() == "enable"


def _envelope(given: Body, request: WireRequest) -> tuple[Input, Parameters]:
    if not given.model:
        raise ApiError(ErrorKind.INVALID_REQUEST, errors.EMPTY_MODEL, param="model")
    if given.input is None:
        raise ApiError(ErrorKind.INVALID_REQUEST, errors.EMPTY_INPUT, param="input")
    if isinstance(given.input, str):
        text = ENCRYPTED if "x-dashscope-encryptionkey" in request.headers else errors.ILLEGAL_INPUT
        raise ApiError(ErrorKind.INVALID_REQUEST, text, param="input")
    return given.input, given.parameters or _NO_PARAMETERS


def _request(model: str, asked: Input, said: Parameters, *, is_multimodal: bool, compat: Compat) -> ChatRequest:
    turns = messages.read(asked, is_multimodal=is_multimodal, compat=compat)
    stop, stop_tokens = parameters.stops(said)
    shown = tools.specs(said, compat)
    form = parameters.response_format(said.response_format)
    if compat is Compat.STRICT and said.response_format is not None and said.response_format.type == "json_object":
        if said.enable_thinking:
            raise wrong(JSON_WHILE_THINKING, "response_format")
        if not any("json" in turn.text.lower() for turn in turns):
            raise ApiError(ErrorKind.INVALID_REQUEST, NO_JSON_WORD, param="input.messages")
    return ChatRequest(
        model=model,
        messages=turns,
        sampling=parameters.sampling(said),
        max_output_tokens=parameters.max_output_tokens(said),
        stop=stop,
        stop_tokens=stop_tokens,
        n=said.n or 1,
        top_logprobs=(said.top_logprobs or 0) if said.logprobs else None,
        tools=shown,
        tool_choice=tools.choice(said, shown, compat),
        is_parallel_tool_calls=bool(said.parallel_tool_calls),
        response_format=form,
        thinking=parameters.thinking(said),
        is_high_resolution=bool(said.vl_high_resolution_images),
        wants_picture_sizes=bool(said.vl_enable_image_hw_output),
    )


def _shape(said: Parameters, request: ChatRequest, *, has_messages: bool, compat: Compat) -> Shape:
    """Text or message format. What text format cannot hold asks for message format; who demands text all the same hears so."""
    if said.result_format not in (None, "text", "message"):
        raise wrong('The result_format parameter must be "text" or "message"', "result_format")
    if said.result_format == "message":
        return Shape.MESSAGE
    is_strict = compat is Compat.STRICT
    if request.tools:
        if is_strict:
            raise wrong(NEEDS_MESSAGE.format("tools are used"), "result_format")
        return Shape.MESSAGE
    reason = _needs_message(request)
    if reason:
        if is_strict or said.result_format == "text":
            raise wrong(NEEDS_MESSAGE.format(reason), "result_format")
        return Shape.MESSAGE
    if said.result_format == "text" or is_strict or not has_messages:
        return Shape.TEXT
    return Shape.MESSAGE


def _needs_message(request: ChatRequest) -> str:
    if request.thinking.is_enabled:
        return "enable_thinking is true"
    if request.n > 1:
        return "n is greater than 1"
    if request.top_logprobs is not None:
        return "logprobs is true"
    return ""


def _is_incremental(said: Parameters, request: ChatRequest, compat: Compat) -> bool:
    """Unset: what the document's example prints, except with tools, where a widespread client subtracts what it had."""
    if said.incremental_output is not None:
        return said.incremental_output
    return compat is Compat.DOCUMENTED and not request.tools


def _check_thinking(manner: Manner, *, is_stream: bool) -> None:
    if not is_stream:
        raise wrong(THINKING_NEEDS_STREAM, "enable_thinking")
    if not manner.is_incremental:
        raise wrong(THINKING_NEEDS_INCREMENTS, "incremental_output")
