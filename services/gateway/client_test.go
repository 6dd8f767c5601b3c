package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/daisy-llm/daisy/coordinator"
	"github.com/daisy-llm/daisy/model/token"
)

// client is OpenAI's own.
func client(t *testing.T, e Engine, change ...func(*Config)) *openai.Client {
	s := start(t, e, change...)
	c := openai.NewClient(option.WithBaseURL(s.URL+"/v1"), option.WithAPIKey("none"), option.WithMaxRetries(0),
		option.WithHTTPClient(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}))
	return &c
}

func question(text string) openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{Model: "daisy-test", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(text)}}
}

func TestChat(t *testing.T) {
	engine := say("Grüße, 世界 🌼")
	c := client(t, engine)
	params := question("hi")
	params.Seed, params.Temperature, params.TopP = openai.Int(7), openai.Float(0.5), openai.Float(0.9)
	params.PresencePenalty, params.FrequencyPenalty = openai.Float(0.25), openai.Float(-0.25)
	params.LogitBias = map[string]int64{"5": -100}
	params.MaxCompletionTokens = openai.Int(40)
	params.Stop = openai.ChatCompletionNewParamsStopUnion{OfStringArray: []string{"x", "\n\n"}}
	got, err := c.Chat.Completions.New(t.Context(), params)
	if err != nil {
		t.Fatal(err)
	}
	choice := got.Choices[0]
	if choice.Message.Content != "Grüße, 世界 🌼" || choice.Message.Role != "assistant" || choice.FinishReason != "stop" {
		t.Errorf("choice %+v", choice)
	}
	asked := engine.asked()[0]
	if want := "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"; (byteTokenizer{}).Decode(asked.Prompt, true) != want {
		t.Errorf("prompt %q", byteTokenizer{}.Decode(asked.Prompt, true))
	}
	if asked.Prompt[0] != imStart {
		t.Error("the template's control tokens became text")
	}
	if got.Usage.PromptTokens != int64(len(asked.Prompt)) || got.Usage.CompletionTokens != 20 || got.Usage.TotalTokens != int64(len(asked.Prompt))+20 ||
		got.Usage.PromptTokensDetails.CachedTokens != int64(len(asked.Prompt)/2) {
		t.Errorf("usage %+v", got.Usage)
	}
	p := asked.Sampling
	if p.Seed != 7 || p.Temperature != 0.5 || p.TopP != 0.9 || p.PresencePenalty != 0.25 || p.FrequencyPenalty != -0.25 || p.LogitBias[5] != -100 {
		t.Errorf("sampling %+v", p)
	}
	if asked.MaxTokens != 40 || !slices.Equal(asked.Stop, []string{"x", "\n\n"}) || asked.IgnoreEOS || asked.Logprobs {
		t.Errorf("request %+v", asked)
	}
	if got.Model != "daisy-test" || !strings.HasPrefix(got.ID, "chatcmpl-") || got.Created < 1700000000 {
		t.Errorf("answer %+v", got)
	}
}

func TestDefaults(t *testing.T) {
	engine := say("ok")
	c := client(t, engine)
	for range 2 {
		if _, err := c.Chat.Completions.New(t.Context(), question("hi")); err != nil {
			t.Fatal(err)
		}
	}
	a, b := engine.asked()[0], engine.asked()[1]
	if a.Sampling.Temperature != 1 || a.Sampling.TopP != 1 || a.Sampling.RepetitionPenalty != 1 || a.Sampling.TopK != 0 || a.MaxTokens != 0 {
		t.Errorf("%+v", a)
	}
	if a.Sampling.Seed == b.Sampling.Seed {
		t.Error("two requests without a seed drew the same")
	}
	if _, err := c.Completions.New(t.Context(), openai.CompletionNewParams{Model: "default", Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String("hi")}}); err != nil {
		t.Fatal(err)
	}
	if n := engine.asked()[2].MaxTokens; n != 16 {
		t.Errorf("a completion may have %d tokens", n)
	}
}

func TestZeroTopPKeepsOneToken(t *testing.T) {
	engine := say("ok")
	params := question("hi")
	params.TopP = openai.Float(0)
	if _, err := client(t, engine).Chat.Completions.New(t.Context(), params); err != nil {
		t.Fatal(err)
	}
	if p := engine.asked()[0].Sampling.TopP; p <= 0 || p > 1e-30 {
		t.Errorf("top_p %v", p)
	}
}

func TestChatStream(t *testing.T) {
	const text = "Ein 🌼 für Ünal"
	c := client(t, say(text))
	params := question("hi")
	params.StreamOptions = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
	stream := c.Chat.Completions.NewStreaming(t.Context(), params)
	acc := openai.ChatCompletionAccumulator{}
	for stream.Next() {
		if !acc.AddChunk(stream.Current()) {
			t.Fatal("the chunks do not add up")
		}
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	if acc.Choices[0].Message.Content != text || acc.Choices[0].FinishReason != "stop" || acc.Usage.CompletionTokens != int64(len(text)) ||
		acc.Usage.PromptTokensDetails.CachedTokens != acc.Usage.PromptTokens/2 {
		t.Errorf("%+v", acc.ChatCompletion)
	}
}

func TestSeveralAnswers(t *testing.T) {
	engine := &scripted{generate: func(ctx context.Context, req coordinator.Request, emit func(coordinator.Delta) error) (coordinator.Answer, error) {
		return utter(ctx, req, emit, fmt.Sprintf("answer %d", req.Sampling.Choice))
	}}
	c := client(t, engine, func(c *Config) { c.MaxParallel = 2 })
	params := question("hi")
	params.N = openai.Int(5)
	whole, err := c.Chat.Completions.New(t.Context(), params)
	if err != nil {
		t.Fatal(err)
	}
	stream := c.Chat.Completions.NewStreaming(t.Context(), params)
	acc := openai.ChatCompletionAccumulator{}
	for stream.Next() {
		acc.AddChunk(stream.Current())
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	for _, got := range []*openai.ChatCompletion{whole, &acc.ChatCompletion} {
		if len(got.Choices) != 5 {
			t.Fatalf("%d choices", len(got.Choices))
		}
		for i, choice := range got.Choices {
			if choice.Index != int64(i) || choice.Message.Content != fmt.Sprintf("answer %d", i) {
				t.Errorf("choice %d: %+v", i, choice)
			}
		}
	}
	// What one of the answers had to compute was not cached: the last one's is the least.
	prompt := int64(len(engine.asked()[0].Prompt))
	if whole.Usage.CompletionTokens != 40 || whole.Usage.PromptTokens != prompt || whole.Usage.PromptTokensDetails.CachedTokens != prompt/2-4 {
		t.Errorf("usage %+v", whole.Usage)
	}
	seed := engine.asked()[0].Sampling.Seed
	same := 0
	for _, r := range engine.asked() {
		if r.Sampling.Seed == seed {
			same++
		}
	}
	if same != 5 {
		t.Errorf("%d answers of a request share its seed", same)
	}
}

func TestManyAtOnce(t *testing.T) {
	engine := &scripted{generate: func(ctx context.Context, req coordinator.Request, emit func(coordinator.Delta) error) (coordinator.Answer, error) {
		return utter(ctx, req, emit, "re: "+byteTokenizer{}.Decode(req.Prompt[1:], false))
	}}
	c := client(t, engine)
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			prompt := fmt.Sprintf("question %d", i)
			params := openai.CompletionNewParams{Model: "daisy-test", Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String(prompt)},
				MaxTokens: openai.Int(50)}
			var text string
			if i%2 == 0 {
				got, err := c.Completions.New(t.Context(), params)
				if err != nil {
					t.Error(err)
					return
				}
				text = got.Choices[0].Text
			} else {
				stream := c.Completions.NewStreaming(t.Context(), params)
				for stream.Next() {
					text += stream.Current().Choices[0].Text
				}
				if stream.Err() != nil {
					t.Error(stream.Err())
				}
			}
			if text != "re: "+prompt {
				t.Errorf("%q got %q", prompt, text)
			}
		})
	}
	group.Wait()
}

func TestPromptForms(t *testing.T) {
	engine := &scripted{generate: func(ctx context.Context, req coordinator.Request, emit func(coordinator.Delta) error) (coordinator.Answer, error) {
		return utter(ctx, req, emit, fmt.Sprint(req.Prompt))
	}}
	c := client(t, engine)
	for _, form := range []struct {
		prompt openai.CompletionNewParamsPromptUnion
		want   []string
	}{
		{openai.CompletionNewParamsPromptUnion{OfString: openai.String("a")}, []string{"[256 97]"}},
		{openai.CompletionNewParamsPromptUnion{OfString: openai.String("<|im_end|>")}, []string{"[256 258]"}},
		{openai.CompletionNewParamsPromptUnion{OfArrayOfStrings: []string{"a", "bc"}}, []string{"[256 97]", "[256 98 99]"}},
		{openai.CompletionNewParamsPromptUnion{OfArrayOfTokens: []int64{1, 2, 3}}, []string{"[1 2 3]"}},
		{openai.CompletionNewParamsPromptUnion{OfArrayOfTokenArrays: [][]int64{{1}, {2, 3}}}, []string{"[1]", "[2 3]"}},
	} {
		got, err := c.Completions.New(t.Context(), openai.CompletionNewParams{Model: "daisy-test", Prompt: form.prompt})
		if err != nil {
			t.Fatal(err)
		}
		var texts []string
		for i, choice := range got.Choices {
			if choice.Index != int64(i) {
				t.Errorf("index %d at %d", choice.Index, i)
			}
			texts = append(texts, choice.Text)
		}
		if !slices.Equal(texts, form.want) {
			t.Errorf("got %q, want %q", texts, form.want)
		}
	}
}

func TestChatLogprobs(t *testing.T) {
	c := client(t, say("aé"))
	params := question("hi")
	params.Logprobs, params.TopLogprobs = openai.Bool(true), openai.Int(2)
	got, err := c.Chat.Completions.New(t.Context(), params)
	if err != nil {
		t.Fatal(err)
	}
	list := got.Choices[0].Logprobs.Content
	stream := c.Chat.Completions.NewStreaming(t.Context(), params)
	var streamed []openai.ChatCompletionTokenLogprob
	for stream.Next() {
		streamed = append(streamed, stream.Current().Choices[0].Logprobs.Content...)
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	for _, list := range [][]openai.ChatCompletionTokenLogprob{list, streamed} {
		if len(list) != 3 {
			t.Fatalf("%d tokens", len(list))
		}
		if l := list[0]; l.Token != "a" || l.Logprob != -0.5 || !slices.Equal(l.Bytes, []int64{'a'}) || len(l.TopLogprobs) != 2 ||
			l.TopLogprobs[1].Token != "b" || l.TopLogprobs[1].Logprob != -1.5 {
			t.Errorf("%+v", l)
		}
		if l := list[1]; l.Token != `\xc3` || !slices.Equal(l.Bytes, []int64{0xc3}) {
			t.Errorf("%+v", l)
		}
	}
}

func TestCompletionLogprobs(t *testing.T) {
	c := client(t, say("aéb"))
	params := openai.CompletionNewParams{Model: "daisy-test", Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String("x")}, Logprobs: openai.Int(2)}
	got, err := c.Completions.New(t.Context(), params)
	if err != nil {
		t.Fatal(err)
	}
	l := got.Choices[0].Logprobs
	var s openai.CompletionChoiceLogprobs
	stream := c.Completions.NewStreaming(t.Context(), params)
	for stream.Next() {
		piece := stream.Current().Choices[0].Logprobs
		s.Tokens, s.TextOffset = append(s.Tokens, piece.Tokens...), append(s.TextOffset, piece.TextOffset...)
		s.TokenLogprobs, s.TopLogprobs = append(s.TokenLogprobs, piece.TokenLogprobs...), append(s.TopLogprobs, piece.TopLogprobs...)
	}
	for _, l := range []openai.CompletionChoiceLogprobs{l, s} {
		if !slices.Equal(l.Tokens, []string{"a", `bytes:\xc3`, `bytes:\xa9`, "b"}) || !slices.Equal(l.TextOffset, []int64{0, 1, 1, 2}) ||
			!slices.Equal(l.TokenLogprobs, []float64{-0.5, -0.5, -0.5, -0.5}) {
			t.Errorf("%+v", l)
		}
		if top := l.TopLogprobs[0]; len(top) != 2 || top["a"] != -0.5 || top["b"] != -1.5 {
			t.Errorf("top %v", l.TopLogprobs)
		}
	}
}

func TestClientSeesErrors(t *testing.T) {
	c := client(t, say("ok"))
	params := question("hi")
	params.Model = "gpt-4o"
	_, err := c.Chat.Completions.New(t.Context(), params)
	var failed *openai.Error
	if !errors.As(err, &failed) || failed.StatusCode != 404 || failed.Code != "model_not_found" || failed.Param != "model" || failed.Type != "invalid_request_error" {
		t.Errorf("%v", err)
	}
	stream := c.Chat.Completions.NewStreaming(t.Context(), params)
	if stream.Next() || !errors.As(stream.Err(), &failed) || failed.StatusCode != 404 {
		t.Errorf("%v", stream.Err())
	}
}

// A client that goes away, streamed or not, ends its generation.
func TestCancellation(t *testing.T) {
	for _, stream := range []bool{false, true} {
		ended := make(chan error, 1)
		started := make(chan struct{})
		engine := &scripted{generate: func(ctx context.Context, _ coordinator.Request, emit func(coordinator.Delta) error) (coordinator.Answer, error) {
			err := emit(coordinator.Delta{IDs: []token.ID{'a'}, Text: "a"})
			close(started)
			if err == nil {
				<-ctx.Done()
				err = ctx.Err()
			}
			ended <- err
			return coordinator.Answer{}, err
		}}
		c := client(t, engine)
		ctx, cancel := context.WithCancel(t.Context())
		if stream {
			s := c.Chat.Completions.NewStreaming(ctx, question("hi"))
			if !s.Next() {
				t.Fatal(s.Err())
			}
			<-started
			_ = s.Close()
		} else {
			go func() { <-started; cancel() }()
			if _, err := c.Chat.Completions.New(ctx, question("hi")); !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
		}
		select {
		case err := <-ended:
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the generation outlives its client")
		}
		cancel()
	}
}

func TestModels(t *testing.T) {
	c := client(t, say(""), func(c *Config) { c.Aliases = []string{"org/repo:q4", "daisy-test"} })
	list, err := c.Models.List(t.Context())
	if err != nil || len(list.Data) != 2 || list.Data[0].ID != "daisy-test" || list.Data[1].ID != "org/repo:q4" || list.Data[0].Created != 1700000000 {
		t.Fatalf("%+v %v", list, err)
	}
	for _, name := range []string{"daisy-test", "org/repo:q4"} {
		m, err := c.Models.Get(t.Context(), name)
		if err != nil || m.ID != name || m.OwnedBy != "daisy" {
			t.Errorf("%+v %v", m, err)
		}
	}
	var failed *openai.Error
	if _, err := c.Models.Get(t.Context(), "nobody"); !errors.As(err, &failed) || failed.StatusCode != 404 || failed.Code != "model_not_found" {
		t.Error(err)
	}
}

func TestFingerprint(t *testing.T) {
	of := func(s coordinator.Status, context int) string {
		return build(t, &scripted{status: s}, func(c *Config) { c.Context = context }).fingerprint()
	}
	a := of(coordinator.Status{SHA256: "aa", CacheType: "f16", Plan: "1", Active: 1}, 64)
	if b := of(coordinator.Status{SHA256: "aa", CacheType: "f16", Plan: "2"}, 64); a != b || len(a) != 15 || !strings.HasPrefix(a, "fp_") {
		t.Errorf("%s and %s", a, b)
	}
	for _, b := range []string{
		of(coordinator.Status{SHA256: "ab", CacheType: "f16"}, 64), of(coordinator.Status{SHA256: "aa", CacheType: "f32"}, 64), of(coordinator.Status{SHA256: "aa", CacheType: "f16"}, 65),
	} {
		if a == b {
			t.Error("what changes answers leaves the fingerprint as it is")
		}
	}
}

// The extensions that OpenAI's API lacks have vLLM's names and places.
func TestTokenIDs(t *testing.T) {
	s := start(t, say("é!"))
	const body = `"return_token_ids":true,"n":2,"ignore_eos":true`
	var chat struct {
		PromptIDs []int `json:"prompt_token_ids"`
		Choices   []struct {
			TokenIDs  []int `json:"token_ids"`
			PromptIDs []int `json:"prompt_token_ids"`
		}
	}
	_, got := post(t, s.URL+"/v1/chat/completions", with(body))
	if err := json.Unmarshal(got, &chat); err != nil || len(chat.PromptIDs) == 0 || !slices.Equal(chat.Choices[1].TokenIDs, []int{0xc3, 0xa9, '!'}) || chat.Choices[0].PromptIDs != nil {
		t.Errorf("%v %s", err, got)
	}
	chat.PromptIDs, chat.Choices = nil, nil
	_, got = post(t, s.URL+"/v1/completions", prompted(body))
	if err := json.Unmarshal(got, &chat); err != nil || chat.PromptIDs != nil || !slices.Equal(chat.Choices[1].TokenIDs, []int{0xc3, 0xa9, '!'}) ||
		!slices.Equal(chat.Choices[1].PromptIDs, []int{int(bos), 'h', 'i'}) {
		t.Errorf("%v %s", err, got)
	}
}

func TestEcho(t *testing.T) {
	s := start(t, say("!"))
	for _, prompt := range []string{`"hi"`, `[104,105]`} {
		_, got := post(t, s.URL+"/v1/completions", `{"echo":true,"prompt":`+prompt+`}`)
		if !strings.Contains(string(got), `"text":"hi!"`) {
			t.Errorf("%s", got)
		}
		_, got = post(t, s.URL+"/v1/completions", `{"echo":true,"stream":true,"prompt":`+prompt+`}`)
		if !strings.Contains(string(got), `"text":"hi!"`) || strings.Count(string(got), "hi") != 1 {
			t.Errorf("%s", got)
		}
	}
}
