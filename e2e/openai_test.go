//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

const modelName = "smollm2"

func ask(text string) openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{
		Model:               modelName,
		Messages:            []openai.ChatCompletionMessageParamUnion{openai.SystemMessage("You are brief."), openai.UserMessage(text)},
		Temperature:         openai.Float(0),
		MaxCompletionTokens: openai.Int(120),
	}
}

// OpenAI's own client drives a cluster of three shards.
func TestOpenAIClient(t *testing.T) {
	c := up(t, 3)
	api := openai.NewClient(option.WithBaseURL("http://"+c.address+"/v1"), option.WithAPIKey("none"), option.WithMaxRetries(0))
	for name, test := range map[string]func(*testing.T, *cluster, openai.Client){
		"models":          testModels,
		"chat":            testChat,
		"conversation":    testConversation,
		"stream":          testStream,
		"stop":            testStop,
		"logprobs":        testLogprobs,
		"completions":     testCompletions,
		"several answers": testSeveralAnswers,
		"token ids":       testTokenIDs,
		"errors":          testErrors,
		"client leaves":   testClientLeaves,
	} {
		t.Run(name, func(t *testing.T) { test(t, c, api) })
	}
	c.end(t)
}

func testModels(t *testing.T, _ *cluster, api openai.Client) {
	page, err := api.Models.List(t.Context())
	if err != nil || len(page.Data) == 0 || page.Data[0].ID != modelName {
		t.Errorf("%+v, %v", page, err)
	}
}

func testChat(t *testing.T, _ *cluster, api openai.Client) {
	got, err := api.Chat.Completions.New(t.Context(), ask("What is a daisy?"))
	if err != nil {
		t.Fatal(err)
	}
	choice := got.Choices[0]
	if !strings.Contains(choice.Message.Content, "flower") || choice.FinishReason != "stop" || choice.Message.Role != "assistant" {
		t.Errorf("%+v", choice)
	}
	if u := got.Usage; u.PromptTokens < 20 || u.CompletionTokens < 2 || u.TotalTokens != u.PromptTokens+u.CompletionTokens {
		t.Errorf("usage %+v", u)
	}
	again, err := api.Chat.Completions.New(t.Context(), ask("What is a daisy?"))
	if err != nil || again.Choices[0].Message.Content != choice.Message.Content {
		t.Errorf("the second time: %+v, %v", again, err)
	}
}

func testConversation(t *testing.T, _ *cluster, api openai.Client) {
	params := ask("My cat is called Minka.")
	params.Messages = append(params.Messages, openai.AssistantMessage("What a nice name."), openai.UserMessage("What is my cat called?"))
	got, err := api.Chat.Completions.New(t.Context(), params)
	if err != nil || !strings.Contains(got.Choices[0].Message.Content, "Minka") {
		t.Errorf("%+v, %v", got, err)
	}
}

func testStream(t *testing.T, _ *cluster, api openai.Client) {
	params := ask("Count from one to ten in words.")
	whole, err := api.Chat.Completions.New(t.Context(), params)
	if err != nil {
		t.Fatal(err)
	}
	params.StreamOptions = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
	stream := api.Chat.Completions.NewStreaming(t.Context(), params)
	defer stream.Close()
	var joined openai.ChatCompletionAccumulator
	pieces := 0
	for stream.Next() {
		chunk := stream.Current()
		if !joined.AddChunk(chunk) {
			t.Fatal("the chunks do not add up")
		}
		if len(chunk.Choices) > 0 && chunk.Choices[0].Delta.Content != "" {
			pieces++
		}
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	if got, want := joined.Choices[0], whole.Choices[0]; got.Message.Content != want.Message.Content || got.FinishReason != want.FinishReason || pieces < 5 {
		t.Errorf("streamed in %d pieces: %+v\nwhole: %+v", pieces, got, want)
	}
	if joined.Usage.CompletionTokens != whole.Usage.CompletionTokens || joined.Usage.PromptTokens != whole.Usage.PromptTokens {
		t.Errorf("usage %+v, whole %+v", joined.Usage, whole.Usage)
	}
}

func testStop(t *testing.T, _ *cluster, api openai.Client) {
	params := ask("Count from one to ten in words.")
	whole, err := api.Chat.Completions.New(t.Context(), params)
	if err != nil {
		t.Fatal(err)
	}
	text := whole.Choices[0].Message.Content
	words := strings.Fields(text)
	if len(words) < 4 {
		t.Fatalf("too short an answer to stop: %q", text)
	}
	stop := words[3]
	before, _, _ := strings.Cut(text, stop)
	params.Stop = openai.ChatCompletionNewParamsStopUnion{OfStringArray: []string{"never to be found", stop}}
	got, err := api.Chat.Completions.New(t.Context(), params)
	if err != nil || got.Choices[0].Message.Content != before || got.Choices[0].FinishReason != "stop" {
		t.Errorf("stopped before %q: %+v, %v; want %q", stop, got, err, before)
	}
}

func testLogprobs(t *testing.T, _ *cluster, api openai.Client) {
	params := ask("What is a daisy?")
	params.Logprobs, params.TopLogprobs = openai.Bool(true), openai.Int(3)
	got, err := api.Chat.Completions.New(t.Context(), params)
	if err != nil {
		t.Fatal(err)
	}
	content := got.Choices[0].Logprobs.Content
	var text strings.Builder
	for i, p := range content {
		text.WriteString(p.Token)
		if len(p.TopLogprobs) != 3 || p.Logprob > 0 || p.TopLogprobs[0].Token != p.Token || p.TopLogprobs[0].Logprob != p.Logprob ||
			p.TopLogprobs[1].Logprob > p.Logprob || p.TopLogprobs[2].Logprob > p.TopLogprobs[1].Logprob {
			t.Errorf("token %d, taken greedily: %+v", i, p)
		}
	}
	if len(content) == 0 || !strings.HasPrefix(text.String(), got.Choices[0].Message.Content) || math.IsInf(content[0].Logprob, 0) {
		t.Errorf("log probabilities of %q, the answer is %q", text.String(), got.Choices[0].Message.Content)
	}
}

func testCompletions(t *testing.T, _ *cluster, api openai.Client) {
	params := openai.CompletionNewParams{
		Model: modelName, Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String("The capital of France is")},
		Temperature: openai.Float(0), MaxTokens: openai.Int(5),
	}
	got, err := api.Completions.New(t.Context(), params)
	if err != nil || !strings.HasPrefix(got.Choices[0].Text, " Paris") || got.Usage.CompletionTokens != 5 || got.Choices[0].FinishReason != "length" {
		t.Errorf("%+v, %v", got, err)
	}
	stream := api.Completions.NewStreaming(t.Context(), params)
	defer stream.Close()
	text := ""
	for stream.Next() {
		for _, choice := range stream.Current().Choices {
			text += choice.Text
		}
	}
	if err := stream.Err(); err != nil || text != got.Choices[0].Text {
		t.Errorf("streamed %q, %v; whole %q", text, err, got.Choices[0].Text)
	}
}

func testSeveralAnswers(t *testing.T, _ *cluster, api openai.Client) {
	params := ask("Tell me a story.")
	params.Temperature, params.Seed, params.N, params.MaxCompletionTokens = openai.Float(1), openai.Int(5), openai.Int(3), openai.Int(12)
	var texts []string
	for range 2 {
		got, err := api.Chat.Completions.New(t.Context(), params)
		if err != nil || len(got.Choices) != 3 {
			t.Fatalf("%+v, %v", got, err)
		}
		for _, choice := range got.Choices {
			texts = append(texts, choice.Message.Content)
		}
	}
	if !slices.Equal(texts[:3], texts[3:]) || texts[0] == texts[1] && texts[1] == texts[2] {
		t.Errorf("three answers, twice, with one seed: %q", texts)
	}
}

func testTokenIDs(t *testing.T, c *cluster, _ openai.Client) {
	whole, err := c.complete(map[string]any{"prompt": "Hello", "temperature": 0, "max_tokens": 20, "ignore_eos": true})
	if err != nil || len(whole.IDs) != 20 || whole.Finish != "length" {
		t.Fatalf("%+v, %v", whole, err)
	}
	status, body, err := c.post("/v1/completions", map[string]any{
		"prompt": "Hello", "temperature": 0, "max_tokens": 20, "ignore_eos": true, "stream": true, "return_token_ids": true,
	})
	if err != nil || status != http.StatusOK {
		t.Fatalf("status %d, %v: %s", status, err, body)
	}
	var ids []int
	for line := range strings.Lines(string(body)) {
		data, ok := strings.CutPrefix(line, "data: ")
		var chunk struct{ Choices []answer }
		if ok && json.Unmarshal([]byte(data), &chunk) == nil && len(chunk.Choices) == 1 {
			ids = append(ids, chunk.Choices[0].IDs...)
		}
	}
	if !slices.Equal(ids, whole.IDs) {
		t.Errorf("streamed ids %v, whole %v", ids, whole.IDs)
	}
}

func testErrors(t *testing.T, c *cluster, api openai.Client) {
	for name, test := range map[string]struct {
		change func(*openai.ChatCompletionNewParams)
		status int
		says   string
	}{
		"unknown model": {func(p *openai.ChatCompletionNewParams) { p.Model = "gpt-9" }, 404, "gpt-9"},
		"too long": {func(p *openai.ChatCompletionNewParams) {
			p.Messages[1] = openai.UserMessage(strings.Repeat("daisy ", 3000))
		}, 400, "1024"},
		"temperature": {func(p *openai.ChatCompletionNewParams) { p.Temperature = openai.Float(-3) }, 400, "temperature"},
		"no messages": {func(p *openai.ChatCompletionNewParams) { p.Messages = []openai.ChatCompletionMessageParamUnion{} }, 400, "messages"},
	} {
		params := ask("hi")
		test.change(&params)
		_, err := api.Chat.Completions.New(t.Context(), params)
		var problem *openai.Error
		if !errors.As(err, &problem) || problem.StatusCode != test.status || !strings.Contains(problem.Message, test.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, body := range []string{`{"messages": [`, `[]`, `{"messages": "hi"}`, ``, `{"messages":[{"role":"user","content":"hi"}],"max_tokens":"many"}`} {
		res, err := http.Post("http://"+c.address+"/v1/chat/completions", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := io.ReadAll(res.Body)
		res.Body.Close()
		var problem struct {
			Error struct{ Message, Type string }
		}
		if err := json.Unmarshal(raw, &problem); res.StatusCode != http.StatusBadRequest || err != nil || problem.Error.Message == "" || problem.Error.Type == "" {
			t.Errorf("%s: status %d, %s", body, res.StatusCode, raw)
		}
	}
	if _, err := api.Chat.Completions.New(t.Context(), ask("hi")); err != nil {
		t.Errorf("after all these errors: %v", err)
	}
}

// A client that goes away ends its generation, and what it held on the shards is free again.
func testClientLeaves(t *testing.T, c *cluster, api openai.Client) {
	for range 3 * 4 { // more often than sequences can be cached at once
		ctx, leave := context.WithCancel(t.Context())
		params := ask("Write a very long story.")
		params.MaxCompletionTokens = openai.Int(900)
		stream := api.Chat.Completions.NewStreaming(ctx, params, option.WithJSONSet("ignore_eos", true))
		for range 3 {
			if !stream.Next() {
				t.Fatal(stream.Err())
			}
		}
		leave()
		stream.Close()
	}
	waitFor(t, "the generations to end", func() bool {
		s := c.status(t)
		return s.Active == 0 && s.Waiting == 0
	})
	if _, err := c.complete(map[string]any{"prompt": strings.Repeat("daisy ", 300), "temperature": 0, "max_tokens": 500, "ignore_eos": true}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
