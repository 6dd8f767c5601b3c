package gateway

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/daisy-llm/daisy/coordinator"
)

// with is a chat request with more fields.
func with(fields string) string {
	return `{"model":"daisy-test","messages":[{"role":"user","content":"hi"}],` + fields + `}`
}

// prompted is a completions request with more fields.
func prompted(fields string) string { return `{"model":"daisy-test","prompt":"hi",` + fields + `}` }

func TestRefusesBadRequests(t *testing.T) {
	engine := say("never")
	s := start(t, engine, func(c *Config) { c.MaxBodyBytes = 8 << 10; c.MaxChoices = 8 })
	const chat, complete = "/v1/chat/completions", "/v1/completions"
	for _, c := range []struct {
		path, body  string
		status      int
		code, param string
		says        string
	}{
		// What is no JSON object.
		{chat, ``, 400, "invalid_json", "", "empty"},
		{chat, ` `, 400, "invalid_json", "", "empty"},
		{chat, `{`, 400, "invalid_json", "", "line 1, column 2"},
		{chat, "{\n \"model\": daisy}", 400, "invalid_json", "", "line 2, column 11"},
		{chat, `{"a":1}}`, 400, "invalid_json", "", "column 8"},
		{chat, `[1]`, 400, "invalid_json", "", "an array"},
		{chat, `null`, 400, "invalid_json", "", "null"},
		{chat, `"x"`, 400, "invalid_json", "", "a string"},
		{chat, `{"temperature":NaN}`, 400, "invalid_json", "", "column 16"},
		{chat, `{"temperature":-Infinity}`, 400, "invalid_json", "", "column 17"},
		{chat, "{\"model\":\"\xff\"}", 400, "invalid_json", "", "not valid UTF-8 at line 1, column 11"},
		{chat, strings.Repeat("[", 5000), 400, "invalid_json", "", "nests deeper"},
		{chat, `{"x":` + strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 101), 400, "invalid_json", "", "nests deeper"},
		{chat, `{"model":"` + strings.Repeat("x", 9000) + `"}`, 413, "request_too_large", "", "8192 bytes"},
		{chat, `{"n":1,"n":2}`, 400, "duplicate_field", "n", "twice"},
		{chat, `{"n":1,"\u006e":2}`, 400, "duplicate_field", "n", "twice"},
		{chat, `{"messages":[{"role":"user","role":"user","content":"x"}]}`, 400, "duplicate_field", "messages[0].role", "twice"},

		// The model.
		{chat, `{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]}`, 404, "model_not_found", "model", "gpt-4o"},
		{complete, `{"model":"","prompt":"x"}`, 404, "model_not_found", "model", "daisy-test"},
		{chat, `{"model":7}`, 400, "invalid_type", "model", "a string, not the number 7"},
		{"/tokenize", `{"model":"gpt-4o","prompt":"x"}`, 404, "model_not_found", "model", ""},

		// Messages.
		{chat, `{"model":"daisy-test"}`, 400, "missing_required_parameter", "messages", ""},
		{chat, `{"messages":null}`, 400, "missing_required_parameter", "messages", ""},
		{chat, `{"messages":[]}`, 400, "empty_array", "messages", ""},
		{chat, `{"messages":{}}`, 400, "invalid_type", "messages", "an array, not an object"},
		{chat, `{"messages":"hi"}`, 400, "invalid_type", "messages", "a string"},
		{chat, `{"messages":["hi"]}`, 400, "invalid_type", "messages[0]", "an object, not a string"},
		{chat, `{"messages":[null]}`, 400, "invalid_type", "messages[0]", "null"},
		{chat, `{"messages":[{"content":"hi"}]}`, 400, "missing_required_parameter", "messages[0].role", ""},
		{chat, `{"messages":[{"role":"robot","content":"hi"}]}`, 400, "invalid_value", "messages[0].role", "robot"},
		{chat, `{"messages":[{"role":1,"content":"hi"}]}`, 400, "invalid_type", "messages[0].role", ""},
		{chat, `{"messages":[{"role":"user"}]}`, 400, "missing_required_parameter", "messages[0].content", ""},
		{chat, `{"messages":[{"role":"user","content":null}]}`, 400, "missing_required_parameter", "messages[0].content", ""},
		{chat, `{"messages":[{"role":"user","content":5}]}`, 400, "invalid_type", "messages[0].content", ""},
		{chat, `{"messages":[{"role":"user","content":[5]}]}`, 400, "invalid_type", "messages[0].content[0]", ""},
		{chat, `{"messages":[{"role":"user","content":[{"text":"x"}]}]}`, 400, "missing_required_parameter", "messages[0].content[0].type", ""},
		{chat, `{"messages":[{"role":"user","content":[{"type":"text"}]}]}`, 400, "missing_required_parameter", "messages[0].content[0].text", ""},
		{chat, `{"messages":[{"role":"user","content":[{"type":"text","text":5}]}]}`, 400, "invalid_type", "messages[0].content[0].text", ""},
		{chat, `{"messages":[{"role":"user","content":[{"type":"text","text":"x"},{"type":"image_url","image_url":{"url":"data:"}}]}]}`,
			400, "unsupported_content", "messages[0].content[1].type", "image_url"},

		// Types.
		{chat, with(`"temperature":"hot"`), 400, "invalid_type", "temperature", "a number, not a string"},
		{chat, with(`"temperature":true`), 400, "invalid_type", "temperature", "a boolean"},
		{chat, with(`"temperature":[1]`), 400, "invalid_type", "temperature", "an array"},
		{chat, with(`"top_p":{}`), 400, "invalid_type", "top_p", "an object"},
		{chat, with(`"max_tokens":"many"`), 400, "invalid_type", "max_tokens", "an integer"},
		{chat, with(`"max_tokens":1.5`), 400, "invalid_type", "max_tokens", "an integer"},
		{chat, with(`"max_completion_tokens":"1"`), 400, "invalid_type", "max_completion_tokens", ""},
		{chat, with(`"n":1.5`), 400, "invalid_type", "n", ""},
		{chat, with(`"seed":"1"`), 400, "invalid_type", "seed", ""},
		{chat, with(`"stream":"yes"`), 400, "invalid_type", "stream", "a boolean"},
		{chat, with(`"stream":1`), 400, "invalid_type", "stream", "a boolean"},
		{chat, with(`"stop":5`), 400, "invalid_type", "stop", "a string"},
		{chat, with(`"stop":["a",5]`), 400, "invalid_type", "stop[1]", "a string"},
		{chat, with(`"stop":{"a":1}`), 400, "invalid_type", "stop", ""},
		{chat, with(`"logprobs":1`), 400, "invalid_type", "logprobs", "a boolean"},
		{chat, with(`"logprobs":true,"top_logprobs":"2"`), 400, "invalid_type", "top_logprobs", ""},
		{chat, with(`"logit_bias":[1]`), 400, "invalid_type", "logit_bias", "an object"},
		{chat, with(`"logit_bias":{"1":"x"}`), 400, "invalid_type", "logit_bias.1", "a number"},
		{chat, with(`"stream":true,"stream_options":1`), 400, "invalid_type", "stream_options", ""},
		{chat, with(`"stream":true,"stream_options":{"include_usage":1}`), 400, "invalid_type", "stream_options.include_usage", ""},
		{chat, with(`"ignore_eos":1`), 400, "invalid_type", "ignore_eos", ""},
		{chat, with(`"return_token_ids":"x"`), 400, "invalid_type", "return_token_ids", ""},
		{complete, prompted(`"logprobs":true`), 400, "invalid_type", "logprobs", "an integer"},
		{complete, prompted(`"echo":1`), 400, "invalid_type", "echo", ""},

		// Ranges.
		{chat, with(`"temperature":-0.1`), 400, "invalid_value", "temperature", "between 0 and 2"},
		{chat, with(`"temperature":2.5`), 400, "invalid_value", "temperature", ""},
		{chat, with(`"temperature":1e999`), 400, "invalid_value", "temperature", "1e999"},
		{chat, with(`"temperature":1` + strings.Repeat("0", 500)), 400, "invalid_value", "temperature", "..."},
		{chat, with(`"top_p":1.5`), 400, "invalid_value", "top_p", ""},
		{chat, with(`"top_k":-2`), 400, "invalid_value", "top_k", ""},
		{chat, with(`"min_p":-1`), 400, "invalid_value", "min_p", ""},
		{chat, with(`"repetition_penalty":0`), 400, "invalid_value", "repetition_penalty", ""},
		{chat, with(`"repeat_penalty":-1`), 400, "invalid_value", "repeat_penalty", ""},
		{chat, with(`"presence_penalty":3`), 400, "invalid_value", "presence_penalty", ""},
		{chat, with(`"frequency_penalty":-3`), 400, "invalid_value", "frequency_penalty", ""},
		{chat, with(`"n":0`), 400, "invalid_value", "n", "between 1 and 8"},
		{chat, with(`"n":9`), 400, "invalid_value", "n", ""},
		{chat, with(`"n":1e300`), 400, "invalid_value", "n", ""},
		{chat, with(`"max_tokens":0`), 400, "invalid_value", "max_tokens", "at least 1"},
		{chat, with(`"max_tokens":-1`), 400, "invalid_value", "max_tokens", ""},
		{chat, with(`"max_tokens":99999999999999999999`), 400, "invalid_value", "max_tokens", ""},
		{chat, with(`"seed":9223372036854775808`), 400, "invalid_value", "seed", ""},
		{chat, with(`"stop":""`), 400, "invalid_value", "stop", ""},
		{chat, with(`"stop":["a",""]`), 400, "invalid_value", "stop[1]", ""},
		{chat, with(`"stop":["` + strings.Repeat("x", 1025) + `"]`), 400, "invalid_value", "stop[0]", "1025"},
		{chat, with(`"stop":["x"` + strings.Repeat(`,"x"`, 64) + `]`), 400, "array_above_max_length", "stop", "64"},
		{chat, with(`"logprobs":true,"top_logprobs":21`), 400, "invalid_value", "top_logprobs", "between 0 and 20"},
		{chat, with(`"top_logprobs":2`), 400, "invalid_value", "top_logprobs", "'logprobs'"},
		{chat, with(`"logit_bias":{"1":101}`), 400, "invalid_value", "logit_bias.1", ""},
		{chat, with(`"logit_bias":{"259":1}`), 400, "invalid_value", "logit_bias", "0 to 258"},
		{chat, with(`"logit_bias":{"-1":1}`), 400, "invalid_value", "logit_bias", ""},
		{chat, with(`"logit_bias":{"cat":1}`), 400, "invalid_value", "logit_bias", "cat"},
		{chat, with(`"logit_bias":{"7":1,"07":2}`), 400, "duplicate_field", "logit_bias", ""},
		{chat, with(`"stream_options":{"include_usage":true}`), 400, "invalid_value", "stream_options", "'stream'"},
		{complete, prompted(`"logprobs":21`), 400, "invalid_value", "logprobs", ""},

		// Prompts.
		{complete, `{"model":"daisy-test"}`, 400, "missing_required_parameter", "prompt", ""},
		{complete, `{"prompt":null}`, 400, "missing_required_parameter", "prompt", ""},
		{complete, `{"prompt":5}`, 400, "invalid_type", "prompt", "the number 5"},
		{complete, `{"prompt":{}}`, 400, "invalid_type", "prompt", ""},
		{complete, `{"prompt":[]}`, 400, "invalid_value", "prompt", "empty"},
		{complete, `{"prompt":[[]]}`, 400, "invalid_value", "prompt[0]", "no tokens"},
		{complete, `{"prompt":"","add_special_tokens":false}`, 400, "invalid_value", "prompt", "no tokens"},
		{complete, `{"prompt":["a",5]}`, 400, "invalid_type", "prompt[1]", ""},
		{complete, `{"prompt":[5,"a"]}`, 400, "invalid_type", "prompt[1]", "an integer, not a string"},
		{complete, `{"prompt":[1.5]}`, 400, "invalid_type", "prompt[0]", ""},
		{complete, `{"prompt":[1,259]}`, 400, "invalid_value", "prompt[1]", "between 0 and 258"},
		{complete, `{"prompt":[[1],[2,-1]]}`, 400, "invalid_value", "prompt[1][1]", ""},
		{complete, `{"prompt":[[1],"a",[null]]}`, 400, "invalid_type", "prompt[2][0]", ""},
		{complete, `{"prompt":["a","a","a","a","a","a","a","a","a"]}`, 400, "array_above_max_length", "prompt", "8"},
		{complete, `{"prompt":["a","a","a"],"n":3}`, 400, "invalid_value", "n", "9 answers"},
		{complete, `{"prompt":"` + strings.Repeat("x", 63) + `"}`, 400, "context_length_exceeded", "prompt", "64 tokens. Your prompt has 64 tokens"},
		{complete, `{"prompt":["a","` + strings.Repeat("x", 99) + `"]}`, 400, "context_length_exceeded", "prompt[1]", "100 tokens"},
		{complete, `{"prompt":[1` + strings.Repeat(",1", 999) + `]}`, 400, "context_length_exceeded", "prompt", "1000 tokens"},
		{chat, `{"messages":[{"role":"user","content":"` + strings.Repeat("x", 99) + `"}]}`, 400, "context_length_exceeded", "messages", "64 tokens"},

		// What would change the answer and cannot be honoured.
		{chat, with(`"response_format":{"type":"json_object"}`), 400, "unsupported_parameter", "response_format", "text"},
		{chat, with(`"response_format":{"type":"json_schema","json_schema":{}}`), 400, "unsupported_parameter", "response_format", ""},
		{chat, with(`"response_format":"json"`), 400, "unsupported_parameter", "response_format", ""},
		{chat, with(`"functions":[{"name":"f"}]`), 400, "unsupported_parameter", "functions", "'tools'"},
		{chat, with(`"modalities":["text","audio"]`), 400, "unsupported_parameter", "modalities", ""},
		{chat, with(`"reasoning_effort":"high"`), 400, "unsupported_parameter", "reasoning_effort", ""},
		{chat, with(`"guided_choice":["a","b"]`), 400, "unsupported_parameter", "guided_choice", ""},
		{chat, with(`"structured_outputs":{"choice":["a"]}`), 400, "unsupported_parameter", "structured_outputs", ""},
		{chat, with(`"stop_token_ids":[2]`), 400, "unsupported_parameter", "stop_token_ids", "'stop'"},
		{chat, with(`"min_tokens":5`), 400, "unsupported_parameter", "min_tokens", ""},
		{chat, with(`"min_tokens":5,"ignore_eos":true,"stop":"x"`), 400, "unsupported_parameter", "min_tokens", ""},
		{chat, with(`"use_beam_search":true`), 400, "unsupported_parameter", "use_beam_search", ""},
		{chat, with(`"skip_special_tokens":false`), 400, "unsupported_parameter", "skip_special_tokens", ""},
		{chat, with(`"echo":true`), 400, "unsupported_parameter", "echo", ""},
		{chat, with(`"mirostat":2`), 400, "unsupported_parameter", "mirostat", ""},
		{chat, with(`"typical_p":0.5`), 400, "unsupported_parameter", "typical_p", ""},
		{complete, prompted(`"suffix":"end"`), 400, "unsupported_parameter", "suffix", ""},
		{complete, prompted(`"best_of":3`), 400, "unsupported_parameter", "best_of", ""},
		{complete, prompted(`"echo":true,"logprobs":1`), 400, "unsupported_parameter", "echo", ""},

		{"/tokenize", `{}`, 400, "missing_required_parameter", "prompt", ""},
		{"/tokenize", `{"prompt":["a"]}`, 400, "invalid_type", "prompt", ""},
		{"/detokenize", `{}`, 400, "missing_required_parameter", "tokens", ""},
		{"/detokenize", `{"tokens":"a"}`, 400, "invalid_type", "tokens", ""},
		{"/detokenize", `{"tokens":[1,1000]}`, 400, "invalid_value", "tokens[1]", ""},
	} {
		t.Run(c.path+" "+abridge(c.body), func(t *testing.T) {
			res, body := post(t, s.URL+c.path, c.body)
			f := readFailure(t, body)
			param := ""
			if f.Error.Param != nil {
				param = *f.Error.Param
			}
			if res.StatusCode != c.status || *f.Error.Code != c.code || param != c.param || !strings.Contains(f.Error.Message, c.says) {
				t.Errorf("got %d %s\nwant %d, code %s, param %q, a message with %q", res.StatusCode, body, c.status, c.code, c.param, c.says)
			}
			if f.Error.Type != "invalid_request_error" {
				t.Errorf("type %q", f.Error.Type)
			}
			if res.Header.Get("Content-Type") != "application/json" {
				t.Errorf("content type %q", res.Header.Get("Content-Type"))
			}
		})
	}
	if asked := engine.asked(); len(asked) != 0 {
		t.Errorf("bad requests reached the engine: %+v", asked)
	}
}

func TestTellsErrorsOfTheEngine(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		code   string
		retry  bool
	}{
		{fmt.Errorf("admit: %w", coordinator.ErrBusy), 429, "rate_limit_exceeded", true},
		{fmt.Errorf("plan 3: %w", coordinator.ErrNotReady), 503, "not_ready", true},
		{fmt.Errorf("stage 2: %w", coordinator.ErrLost), 503, "shard_lost", true},
		{fmt.Errorf("prompt: %w", coordinator.ErrTooLong), 400, "context_length_exceeded", false},
		{fmt.Errorf("logit bias: %w", coordinator.ErrInvalid), 400, "invalid_value", false},
		{fmt.Errorf("pass: %w", context.DeadlineExceeded), 504, "timeout", false},
		{fmt.Errorf("the engine stops: %w", context.Canceled), 503, "not_ready", true},
		{fmt.Errorf("secret at 10.0.0.7"), 500, "internal_error", false},
	} {
		t.Run(c.code, func(t *testing.T) {
			for _, stream := range []bool{false, true} {
				s := start(t, &scripted{generate: func(context.Context, coordinator.Request, func(coordinator.Delta) error) (coordinator.Answer, error) {
					return coordinator.Answer{}, c.err
				}})
				res, body := post(t, s.URL+"/v1/completions", prompted(fmt.Sprintf(`"stream":%v`, stream)))
				f := readFailure(t, body)
				if res.StatusCode != c.status || *f.Error.Code != c.code || (res.Header.Get("Retry-After") != "") != c.retry {
					t.Errorf("stream %v: got %d %s, Retry-After %q", stream, res.StatusCode, body, res.Header.Get("Retry-After"))
				}
				if strings.Contains(f.Error.Message, "secret") {
					t.Errorf("an internal error is told: %s", f.Error.Message)
				}
			}
		})
	}
}

func TestIgnoresUnknownAndIdleFields(t *testing.T) {
	engine := say("ok")
	s := start(t, engine)
	for _, fields := range []string{
		`"frobnicate":{"a":[1]}`, `"user":"me","store":true,"metadata":{},"service_tier":"auto","parallel_tool_calls":true`,
		`"response_format":{ "type": "text" }`, `"suffix":null`, `"suffix":""`, `"modalities":["text"]`, `"tool_choice":"none"`, `"tools":[]`,
		`"use_beam_search":false`, `"stop":[]`, `"stop":null`, `"n":null`, `"temperature":null`, `"logit_bias":{}`, `"logit_bias":null`,
		`"min_tokens":0`, `"best_of":1`, `"echo":false`, `"typical_p":1`, `"mirostat":0`, `"stream_options":null`, `"seed":null`,
		`"skip_special_tokens":true`, `"max_tokens":16.0`, `"max_tokens":1e1`, `"min_tokens":3,"ignore_eos":true,"max_tokens":4`, `"top_k":-1`,
		`"seed":-1`, `"logit_bias":{"5":-100}`, `"reasoning_effort":"none"`, `"logprobs":false,"top_logprobs":0`,
	} {
		if res, body := post(t, s.URL+"/v1/chat/completions", with(fields)); res.StatusCode != 200 || !bytes.Contains(body, []byte(`"content":"ok"`)) {
			t.Errorf("%s: %d %s", fields, res.StatusCode, body)
		}
	}
	// Without a model the one there is answers.
	if res, body := post(t, s.URL+"/v1/completions", `{"prompt":"x"}`); res.StatusCode != 200 {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

func TestRefusesABodyItCannotRead(t *testing.T) {
	s := start(t, say("ok"))
	res, body := do(t, http.MethodPost, s.URL+"/v1/completions", "x", map[string]string{"Content-Encoding": "gzip"})
	if f := readFailure(t, body); res.StatusCode != 415 || *f.Error.Code != "unsupported_encoding" {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

// A request that comes while a plan is being loaded is the engine's to hold back; only one that nothing is loaded for is
// refused at once.
func TestLoadingIsWorthAWait(t *testing.T) {
	for state, want := range map[string]int{coordinator.StateLoading: http.StatusOK, coordinator.StateWaiting: http.StatusServiceUnavailable} {
		engine := say("hello")
		engine.waiting, engine.status.State = true, state
		server := start(t, engine)
		res, err := http.Post(server.URL+"/v1/completions", "application/json", strings.NewReader(`{"prompt":"x"}`))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("while %s: status %d, want %d", state, res.StatusCode, want)
		}
	}
}
