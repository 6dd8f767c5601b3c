package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/daisy-llm/daisy/coordinator"
	"github.com/daisy-llm/daisy/model/kvcache"
	"github.com/daisy-llm/daisy/model/sample"
	"github.com/daisy-llm/daisy/model/token"
)

// randomIDs are tokens that look drawn at random, others at each turn: no cache can know them.
func randomIDs(n, vocab, turn int) []token.ID {
	ids := make([]token.ID, n)
	for i := range ids {
		ids[i] = token.ID((uint64(i)*7919 + uint64(turn)*104729 + 100) % uint64(vocab))
	}
	return ids
}

// wholeSubject measures a model in this process.
type wholeSubject struct {
	*whole
	sampler *sample.Sampler
	turn    int
}

// withWhole loads the model, to be used and closed.
func (c *cli) withWhole(ctx context.Context, path string, b *bench, use func(context.Context, subject, int64) error) error {
	set, err := selectKernels(b.Kernels)
	if err != nil {
		return err
	}
	cache, err := kvcache.Parse(b.CacheType)
	if err != nil {
		return err
	}
	bar := newProgress(c.console)
	w, err := loadWhole(ctx, path, wholeOptions{Context: b.context(), Threads: b.threads, CacheType: cache, Kernels: set, Progress: bar.set})
	bar.end()
	if err != nil {
		return err
	}
	defer w.close()
	return use(ctx, &wholeSubject{whole: w, sampler: sample.New(set, w.cfg.Vocab)}, w.weights)
}

func (s *wholeSubject) prompt(ctx context.Context, tokens int) (time.Duration, error) {
	s.turn++
	ids := randomIDs(tokens, s.cfg.Vocab, s.turn)
	begin := time.Now()
	var x []float32
	for from := 0; from < tokens; from += wholeRows {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		var err error
		if x, err = s.step(ids[from:min(from+wholeRows, tokens)], token.Position(from)); err != nil {
			return 0, err
		}
	}
	_, err := s.head(x[len(x)-s.cfg.Hidden:])
	return time.Since(begin), err
}

func (s *wholeSubject) generate(ctx context.Context, tokens int) (time.Duration, error) {
	s.turn++
	ids := randomIDs(1, s.cfg.Vocab, s.turn)
	greedy := sample.Params{}
	begin := time.Now()
	for position := range token.Position(tokens) {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		x, err := s.step(ids, position)
		if err != nil {
			return 0, err
		}
		logits, err := s.head(x)
		if err != nil {
			return 0, err
		}
		choice, err := s.sampler.Sample(&sample.Request{Logits: logits, Params: &greedy})
		if err != nil {
			return 0, err
		}
		ids[0] = choice.Token
	}
	return time.Since(begin), nil
}

// stagesSubject measures a cluster through its API, as any client could.
type stagesSubject struct {
	api   *client
	vocab int
	turn  int
}

// withStages starts a local cluster, to be used and ended.
func (c *cli) withStages(ctx context.Context, path string, b *bench, use func(context.Context, subject, int64) error) error {
	cfg, shape, err := measureModel(path, path, shapeOptions{Context: b.context(), Parallel: 1, CacheType: b.CacheType, Threads: b.threads})
	if err != nil {
		return err
	}
	weights := shape.Head + shape.Norm
	for _, layer := range shape.Layers {
		weights += layer.Weights
	}
	o := localOptions{
		Model: path, Listen: "127.0.0.1:0", Shards: b.Stages, Threads: b.threads, Context: b.context(), Parallel: 1,
		CacheType: b.CacheType, Kernels: b.Kernels, Recovery: defaultRecovery, Quiet: c.logLevel != "debug", Brief: true,
	}
	return c.withCluster(ctx, o, func(ctx context.Context, l *localCluster, _ coordinator.Status) error {
		return use(ctx, &stagesSubject{api: l.api, vocab: cfg.Vocab}, weights)
	})
}

// prompt measures until the first token of the answer is there.
func (s *stagesSubject) prompt(ctx context.Context, tokens int) (time.Duration, error) {
	begin := time.Now()
	arrivals, err := s.complete(ctx, tokens, 1)
	if err != nil {
		return 0, err
	}
	return arrivals[0].at.Sub(begin), nil
}

// generate measures from the first token on, which is the prompt's work.
func (s *stagesSubject) generate(ctx context.Context, tokens int) (time.Duration, error) {
	arrivals, err := s.complete(ctx, 1, tokens+1)
	if err != nil {
		return 0, err
	}
	first, last := arrivals[0], arrivals[len(arrivals)-1]
	counted := tokens + 1 - first.tokens
	if counted < 1 {
		return 0, errors.New("all tokens came at once: there is nothing to measure")
	}
	return time.Duration(float64(last.at.Sub(first.at)) / float64(counted) * float64(tokens)), nil
}

// arrival is some tokens of an answer that came together.
type arrival struct {
	at     time.Time
	tokens int
}

// complete has a prompt of so many tokens continued by exactly so many, and says when they came.
func (s *stagesSubject) complete(ctx context.Context, prompt, tokens int) ([]arrival, error) {
	s.turn++
	res, err := s.api.send(ctx, http.MethodPost, "/v1/completions", map[string]any{
		"prompt": randomIDs(prompt, s.vocab, s.turn), "max_tokens": tokens, "temperature": 0, "ignore_eos": true,
		"stream": true, "return_token_ids": true,
	})
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var arrivals []arrival
	total, done := 0, false
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(make([]byte, 0, 64<<10), maxEventBytes)
	for !done && lines.Scan() {
		data, isData := strings.CutPrefix(lines.Text(), "data: ")
		if !isData {
			continue
		}
		if data == "[DONE]" {
			done = true
			continue
		}
		at := time.Now()
		var chunk completionChunk
		if err := json.Unmarshal([]byte(data), &chunk); err != nil {
			return nil, fmt.Errorf("read the answer: %w", err)
		}
		if chunk.Error != nil {
			return nil, fmt.Errorf("the answer broke off: %s", printable(chunk.Error.Message))
		}
		for _, choice := range chunk.Choices {
			if n := len(choice.TokenIDs); n > 0 {
				arrivals, total = append(arrivals, arrival{at, n}), total+n
			}
		}
	}
	switch {
	case context.Cause(ctx) != nil:
		return nil, context.Cause(ctx)
	case lines.Err() != nil:
		return nil, fmt.Errorf("the answer broke off: %w", lines.Err())
	case !done:
		return nil, errors.New("the answer broke off: the coordinator closed the connection")
	case total != tokens:
		return nil, fmt.Errorf("the answer has %d tokens: %d were asked for", total, tokens)
	}
	return arrivals, nil
}

// completionChunk is one event of a streamed completion.
type completionChunk struct {
	Choices []struct {
		TokenIDs []token.ID `json:"token_ids"`
	} `json:"choices"`
	Error *struct {
		Message string `json:"message"`
	} `json:"error"`
}
