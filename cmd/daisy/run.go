package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/daisy-llm/daisy/coordinator"
	"github.com/daisy-llm/daisy/model/sample"
)

const maxPromptBytes = 16 << 20 // of standard input

// samplingOptions say how tokens are chosen; nil is the server's to choose.
type samplingOptions struct {
	Temperature *float64 `json:"temperature,omitempty"`
	TopK        *int     `json:"top_k,omitempty"`
	TopP        *float64 `json:"top_p,omitempty"`
	MinP        *float64 `json:"min_p,omitempty"`
	Seed        *int64   `json:"seed,omitempty"`
	MaxTokens   *int     `json:"max_tokens,omitempty"`
}

// runOptions are the flags of `run`.
type runOptions struct {
	localOptions
	System                  string
	temperature, topP, minP float64
	topK, maxTokens         int
	seed                    int64
}

func newRunCommand(c *cli) *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run [PROMPT]",
		Short: "Answer one prompt, or chat, on a cluster that lives as long as that takes",
		Long: `Start a coordinator and shards on this machine, answer one prompt, and end them again.

The prompt is the arguments, or else what is piped in. Without either, in a terminal, it is a chat.
The answer goes to standard output, everything else to standard error.`,
		Example: `  daisy run "Explain what a transformer is to a child."
  echo "What is a daisy?" | daisy run --shards 2
  daisy run`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.validateSampling(); err != nil {
				return err
			}
			prompt, err := c.prompt(cmd.Context(), args)
			if err != nil {
				return err
			}
			o.Quiet, o.Brief = c.logLevel != "debug", true
			return c.withCluster(cmd.Context(), o.localOptions, func(ctx context.Context, l *localCluster, s coordinator.Status) error {
				request := chatRequest{Model: s.Model, samplingOptions: o.sampling(cmd)}
				if o.System != "" {
					request.Messages = []message{{"system", o.System}}
				}
				if prompt == "" {
					return c.chat(ctx, l.api, request, s)
				}
				return c.answer(ctx, l.api, request, prompt)
			})
		},
	}
	o.bind(cmd, c.env, "127.0.0.1:0")
	f := cmd.Flags()
	f.StringVar(&o.System, "system", "", "what the model is told before the conversation")
	f.Float64Var(&o.temperature, "temperature", 0, "how daring the choice of tokens is; 0 always takes the most probable")
	f.IntVar(&o.topK, "top-k", 0, "choose among the `K` most probable tokens (default: all)")
	f.Float64Var(&o.topP, "top-p", 1, "choose among the most probable tokens that together reach probability `P`")
	f.Float64Var(&o.minP, "min-p", 0, "drop tokens less probable than `P` times the most probable")
	f.Int64Var(&o.seed, "seed", 0, "of the random choices: the same seed gives the same answer (default: drawn)")
	f.IntVar(&o.maxTokens, "max-tokens", 0, "end the answer after so many tokens (default: when the model or the context ends it)")
	return cmd
}

// sampling passes on what was asked for. Temperature always is: without a word about it, the answer to a prompt should
// be the same each time.
func (o *runOptions) sampling(cmd *cobra.Command) samplingOptions {
	s := samplingOptions{Temperature: &o.temperature}
	changed := cmd.Flags().Changed
	if changed("top-k") {
		s.TopK = &o.topK
	}
	if changed("top-p") {
		s.TopP = &o.topP
	}
	if changed("min-p") {
		s.MinP = &o.minP
	}
	if changed("seed") {
		s.Seed = &o.seed
	}
	if changed("max-tokens") {
		s.MaxTokens = &o.maxTokens
	}
	return s
}

// validateSampling refuses what the server would refuse, before there is one.
func (o *runOptions) validateSampling() error {
	p := sample.Params{Temperature: float32(o.temperature), TopK: o.topK, TopP: float32(o.topP), MinP: float32(o.minP)}
	if err := p.Validate(0); err != nil {
		return err
	}
	if o.maxTokens < 0 {
		return fmt.Errorf("--max-tokens %d: use 1 or more", o.maxTokens)
	}
	return nil
}

// prompt is the arguments, else what is piped in; "" asks for a chat.
func (c *cli) prompt(ctx context.Context, args []string) (string, error) {
	prompt := strings.Join(args, " ")
	if len(args) == 0 {
		if isTerminal(c.in) {
			if !isTerminal(c.out) {
				return "", errors.New("there is no prompt: give one as an argument, or pipe it in")
			}
			return "", nil
		}
		var err error
		if prompt, err = readPiped(ctx, c.in); err != nil {
			return "", err
		}
	}
	if strings.TrimSpace(prompt) == "" {
		return "", errors.New("the prompt is empty")
	}
	if !utf8.ValidString(prompt) {
		return "", errors.New("the prompt is not valid UTF-8")
	}
	return prompt, nil
}

// readPiped reads a prompt to its end, unless ctx ends before.
func readPiped(ctx context.Context, from io.Reader) (string, error) {
	type result struct {
		raw []byte
		err error
	}
	read := make(chan result, 1)
	go func() {
		raw, err := io.ReadAll(io.LimitReader(from, maxPromptBytes+1))
		read <- result{raw, err}
	}()
	select {
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case r := <-read:
		if r.err != nil {
			return "", fmt.Errorf("read the prompt: %w", r.err)
		}
		if len(r.raw) > maxPromptBytes {
			return "", fmt.Errorf("the prompt is longer than %s", formatSize(maxPromptBytes))
		}
		return string(bytes.TrimRight(r.raw, "\r\n")), nil
	}
}

// answer streams one answer and sums it up.
func (c *cli) answer(ctx context.Context, api *client, request chatRequest, prompt string) error {
	request.Messages = append(request.Messages, message{"user", prompt})
	out := newAnswerWriter(c.out)
	figures, err := api.chat(ctx, request, out.write)
	if endErr := out.end(); err == nil {
		err = endErr
	}
	if err != nil {
		return err
	}
	status, err := api.status(ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.console, figuresLine(figures, status.Shards))
	return err
}

// answerWriter writes a model's text. What goes to a terminal holds nothing that would steer it.
type answerWriter struct {
	to    *os.File
	tty   bool
	wrote bool
	last  byte
}

func newAnswerWriter(to *os.File) *answerWriter {
	return &answerWriter{to: to, tty: isTerminal(to)}
}

func (w *answerWriter) write(text string) error {
	if w.tty {
		text = printable(text)
	}
	if text == "" {
		return nil
	}
	w.wrote, w.last = true, text[len(text)-1]
	_, err := w.to.WriteString(text)
	return err
}

// end makes sure that what comes next starts on a line of its own.
func (w *answerWriter) end() error {
	if !w.wrote || w.last == '\n' {
		return nil
	}
	_, err := w.to.WriteString("\n")
	return err
}
