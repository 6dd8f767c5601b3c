// Package gateway is the coordinator's HTTP face: an API that OpenAI's clients, and those of vLLM, can use.
//
// A Gateway owns the meaning of requests and the shape of answers; it has no policy. It checks a request completely before
// anything is generated, turns it into one coordinator.Request for each answer wanted, and turns what the Engine emits into
// JSON or server-sent events. cmd/daisy makes it and serves its Handler.
//
// # Endpoints
//
//	POST /v1/chat/completions, /v1/completions   answers, whole or streamed
//	GET  /v1/models, /v1/models/{id}             the one model there is, and its aliases
//	POST /tokenize, /detokenize                  text <-> token ids, as with vLLM
//	GET  /healthz                                200 while the process lives
//	GET  /readyz                                 200 once a plan is loaded; until then 503 and why
//	GET  /cluster                                coordinator.Status
//
// Beyond OpenAI's fields, requests may have top_k, min_p, repetition_penalty (or repeat_penalty), ignore_eos,
// return_token_ids, min_tokens, add_special_tokens and chat_template_kwargs, all with vLLM's meaning. With
// return_token_ids each choice has token_ids (of each chunk, when streamed) and the first chunk, or the response, has
// prompt_token_ids: beside choices for chat, in each choice for completions.
//
// # Invariants
//
//   - No answer is other than asked for: a field that would change it and is not supported is refused (unsupported.go), one
//     that is unknown is ignored.
//   - A stream ends in "data: [DONE]" only if every answer in it is complete. One that fails after its header is out gets an
//     error event, and its connection is cut.
//   - A request that ends, for whatever reason, leaves no generation and no goroutine behind.
//   - A panic ends one request, never the process.
//
// # What it refuses
//
// Every error has OpenAI's form and names the field at fault. Which error becomes which status is in errors.go alone.
// Bodies above Config.MaxBodyBytes, nested deeper than 64 levels, with a field given twice, or not UTF-8; requests beyond
// Config.MaxRequests; requests that a page of a foreign origin makes a browser send (origin.go).
//
// # Serving it
//
// The http.Server around Handler needs ReadHeaderTimeout and MaxHeaderBytes (10 s and 64 KiB do), and IdleTimeout if idle
// connections shall go. It must have neither ReadTimeout nor WriteTimeout: answers may take as long as they take. Handler
// sets deadlines of its own: Config.BodyTimeout for a body, Config.WriteTimeout for each write. HTTP/1.1 is enough.
// To stop, cancel the server's BaseContext: whole answers still under way get a 503 (499 unless the context has a cause of its
// own), streams an error event and no [DONE]. Server.Shutdown alone waits for them.
package gateway
