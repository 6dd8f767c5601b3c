// Package template turns a conversation into the text that a model was trained to continue, by the Jinja template in the
// model's own file (tokenizer.chat_template).
//
// A Template owns the compiled template. The gateway renders every chat with it and encodes the result with control tokens
// read as such. What it renders is what Hugging Face's apply_chat_template renders: Jinja with trim_blocks and
// lstrip_blocks, Python's way to write values, JSON that keeps the order of keys.
//
// The template is run by github.com/ardanlabs/jinja. Before, it is rewritten (rewrite.go): white space is settled here,
// filters and methods that differ from Python's are replaced by those of functions.go, and loops, macros, assignments and
// outputs report to a budget (budget.go), because both template and conversation come from strangers.
//
// The invariants: a Template does not change after New and may be used from many goroutines at once; rendering ends, with
// an error, when the template loops too long, nests too deep or writes too much. Not bounded are the concatenations within
// one expression: a hostile template can still make each of them as large as the number of its operands times the largest
// value. Refused when compiled: statements that no chat template needs (include, import, extends, block, with).
package template

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/ardanlabs/jinja"

	"github.com/daisy-llm/daisy/model/gguf"
)

// ErrNone says that a model has no chat template: it completes text, but does not chat.
var ErrNone = errors.New("the model has no chat template: ask it to complete text instead")

// RaisedError is what a template says by raise_exception: the conversation is not one that it knows how to write.
type RaisedError struct{ Message string }

func (e *RaisedError) Error() string { return e.Message }

// Template is one model's chat template. Make it with New or Compile.
type Template struct {
	program    *jinja.Template
	texts      []string // what the template writes out as it stands
	bos, eos   string
	wantsParts bool             // content must be a list of parts, never a string
	arguments  bool             // a tool call's arguments must be an object, never a string of JSON
	now        func() time.Time // for strftime_now
	patience   time.Duration    // for one rendering
}

// New compiles the template of a model file, or gives ErrNone. It keeps nothing of the file.
func New(f *gguf.File) (*Template, error) {
	const key = "tokenizer.chat_template"
	source, ok := f.String(key)
	switch {
	case !f.Has(key), ok && strings.TrimSpace(source) == "":
		return nil, ErrNone
	case !ok:
		return nil, fmt.Errorf("read chat template: %s is no string but %s", key, f.Kind(key))
	}
	tokens, _ := f.Strings("tokenizer.ggml.tokens")
	text := func(key string) string {
		if id, ok := f.Uint(key); ok && id < uint64(len(tokens)) {
			return tokens[id]
		}
		return ""
	}
	t, err := Compile(source, text("tokenizer.ggml.bos_token_id"), text("tokenizer.ggml.eos_token_id"))
	if err != nil {
		return nil, fmt.Errorf("read chat template: %w", err)
	}
	return t, nil
}

// Compile compiles a template; bos and eos are the texts of the tokens that begin and end a sequence, or empty.
func Compile(source, bos, eos string) (*Template, error) {
	return compile(source, bos, eos, time.Now)
}

func compile(source, bos, eos string, now func() time.Time) (*Template, error) {
	t := &Template{bos: bos, eos: eos, now: now}
	segments, err := lex(source)
	if err != nil {
		return nil, err
	}
	var program string
	if program, t.texts, err = rewrite(segments); err != nil {
		return nil, err
	}
	if t.program, err = jinja.Compile(program); err != nil {
		return nil, err
	}
	t.arguments = argumentsAsObject.MatchString(source)
	t.patience = maxProbe
	t.probe()
	t.patience = maxTime
	return t, nil
}

var argumentsAsObject = regexp.MustCompile(`arguments['"]?\]?\s*(\|\s*(tojson|items)|\.items\()`)

// probe finds out whether the template shows the text of a message only if it is given in parts.
func (t *Template) probe() {
	const needle = "d41sy"
	for _, t.wantsParts = range []bool{false, true} {
		text, err := t.render(json.RawMessage(`[{"role":"user","content":"`+needle+`"}]`), nil, true, nil)
		if err == nil && strings.Contains(text, needle) {
			return
		}
	}
	t.wantsParts = false
}

// Render writes the conversation out. messages is a list of objects, as in OpenAI's API; tools a list of tools, or nothing;
// with addGenerationPrompt, the text ends where the assistant is to go on. extra holds further variables for the template,
// such as enable_thinking. An error of type *RaisedError is the template's own.
//
// Contents that are lists of text parts are joined for templates that want strings, and strings made lists for those that
// want parts. Parts of other types are refused.
func (t *Template) Render(messages, tools json.RawMessage, addGenerationPrompt bool, extra map[string]json.RawMessage) (string, error) {
	text, err := t.render(messages, tools, addGenerationPrompt, extra)
	if err != nil {
		return "", fmt.Errorf("render chat template: %w", err)
	}
	return text, nil
}

func (t *Template) render(messages, tools json.RawMessage, addGenerationPrompt bool, extra map[string]json.RawMessage) (text string, err error) {
	b := newBudget(t.patience)
	data := make(map[string]jinja.Value, 64)
	for name, raw := range extra {
		if data[name], err = decode(raw); err != nil {
			return "", fmt.Errorf("variable %q: %w", name, err)
		}
	}
	list, err := decode(messages)
	if err != nil {
		return "", fmt.Errorf("messages: %w", err)
	}
	if err := t.normalise(list); err != nil {
		return "", err
	}
	data["messages"] = list
	if len(tools) > 0 && string(tools) != "null" {
		if data["tools"], err = decode(tools); err != nil {
			return "", fmt.Errorf("tools: %w", err)
		}
	} else if _, ok := data["tools"]; !ok {
		data["tools"] = jinja.None()
	}
	data["add_generation_prompt"] = jinja.NewBool(addGenerationPrompt)
	data["bos_token"], data["eos_token"] = jinja.NewString(t.bos), jinja.NewString(t.eos)
	t.provide(data, b)

	// The library panics on some inputs that Python refuses; what it cannot do is no reason to end the process.
	defer func() {
		if r := recover(); r != nil {
			text, err = "", fmt.Errorf("the template fails: %v", r)
		}
	}()
	return t.program.RenderValues(data)
}

// normalise brings contents and arguments into the form that the template wants.
func (t *Template) normalise(messages jinja.Value) error {
	if !messages.IsList() {
		return errors.New("messages: not a list")
	}
	for i, m := range messages.AsList().Items {
		if !m.IsDict() {
			return fmt.Errorf("message %d: not an object", i)
		}
		message := m.AsDict()
		if content, ok := message.Get("content"); ok {
			content, err := t.content(content)
			if err != nil {
				return fmt.Errorf("message %d: %w", i, err)
			}
			message.Set("content", content)
		}
		if t.arguments {
			parseArguments(message)
		}
	}
	return nil
}

func (t *Template) content(content jinja.Value) (jinja.Value, error) {
	switch {
	case content.IsString() && t.wantsParts:
		part := jinja.NewDict()
		part.AsDict().Set("type", jinja.NewString("text"))
		part.AsDict().Set("text", content)
		return jinja.NewList([]jinja.Value{part}), nil
	case !content.IsList():
		return content, nil
	}
	var texts []string
	for _, part := range content.AsList().Items {
		if !part.IsDict() {
			return content, errors.New("a part of the content is no object")
		}
		kind, _ := part.AsDict().Get("type")
		text, _ := part.AsDict().Get("text")
		if !kind.IsString() || kind.AsString() != "text" || !text.IsString() {
			return content, fmt.Errorf("a part of the content has type %s: only text is understood", kind)
		}
		texts = append(texts, text.AsString())
	}
	if t.wantsParts {
		return content, nil
	}
	return jinja.NewString(strings.Join(texts, "\n")), nil
}

// parseArguments turns the arguments of a message's tool calls, which OpenAI's API writes as strings of JSON, into objects.
func parseArguments(message *jinja.Dict) {
	calls, _ := message.Get("tool_calls")
	if !calls.IsList() {
		return
	}
	for _, call := range calls.AsList().Items {
		if !call.IsDict() {
			continue
		}
		function, _ := call.AsDict().Get("function")
		if !function.IsDict() {
			continue
		}
		arguments, _ := function.AsDict().Get("arguments")
		if !arguments.IsString() {
			continue
		}
		if object, err := decode(json.RawMessage(arguments.AsString())); err == nil && object.IsDict() {
			function.AsDict().Set("arguments", object)
		}
	}
}
