package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/peterh/liner"

	"github.com/daisy-llm/daisy/coordinator"
)

const (
	chatPrompt   = "> "
	chatMore     = ". "
	chatHelpText = `  /clear   forget the conversation
  /help    show this
  /exit    end, as Ctrl-D does

A line that ends in \ goes on in the next. Ctrl-C stops an answer; at the prompt it ends the chat.
`
)

// errAnswerStopped is the cause of an answer that Ctrl-C stopped.
var errAnswerStopped = errors.New("the answer was stopped")

// chat is a conversation in a terminal.
type chat struct {
	c       *cli
	api     *client
	start   chatRequest // with the system message alone
	request chatRequest
	editor  *liner.State
}

// chat talks until the user ends it, or ctx ends.
func (c *cli) chat(ctx context.Context, api *client, request chatRequest, s coordinator.Status) error {
	fmt.Fprintf(c.console, "%s, %s. /help says more, Ctrl-D ends.\n", printable(s.Model), shardsLine(s.Shards))
	editor := liner.NewLiner()
	editor.SetCtrlCAborts(true)
	editor.SetMultiLineMode(true)
	forget := c.signals.onExit(func() { editor.Close() })
	defer func() {
		forget()
		editor.Close()
	}()
	conversation := &chat{c: c, api: api, start: request, request: request, editor: editor}
	return conversation.loop(ctx)
}

func (t *chat) loop(ctx context.Context) error {
	lines := make(chan string)
	failed := make(chan error, 1)
	for {
		// The editor cannot be interrupted, and the cluster may fail while it waits for a key.
		go func() {
			line, err := t.read()
			if err != nil {
				failed <- err
				return
			}
			select {
			case lines <- line:
			case <-ctx.Done():
			}
		}()
		select {
		case <-ctx.Done():
			fmt.Fprintln(t.c.out)
			return context.Cause(ctx)
		case err := <-failed:
			if errors.Is(err, io.EOF) || errors.Is(err, liner.ErrPromptAborted) {
				fmt.Fprintln(t.c.out)
				return nil
			}
			return fmt.Errorf("read the terminal: %w", err)
		case line := <-lines:
			if done, err := t.handle(ctx, line); done || err != nil {
				return err
			}
		}
	}
}

// read is one message: a line, or several that end in a backslash.
func (t *chat) read() (string, error) {
	var whole []string
	prompt := chatPrompt
	for {
		line, err := t.editor.Prompt(prompt)
		if err != nil {
			return "", err
		}
		if strings.TrimSpace(line) != "" {
			t.editor.AppendHistory(line)
		}
		line, more := strings.CutSuffix(line, `\`)
		whole = append(whole, line)
		if !more {
			return strings.TrimSpace(strings.Join(whole, "\n")), nil
		}
		prompt = chatMore
	}
}

func (t *chat) handle(ctx context.Context, line string) (done bool, err error) {
	switch line {
	case "":
		return false, nil
	case "/exit", "/quit", "/bye":
		return true, nil
	case "/help", "/?":
		fmt.Fprint(t.c.out, chatHelpText)
		return false, nil
	case "/clear":
		t.request = t.start
		fmt.Fprintln(t.c.out, "The conversation is forgotten.")
		return false, nil
	}
	if !utf8.ValidString(line) {
		fmt.Fprintln(t.c.console, "daisy: the message is not valid UTF-8")
		return false, nil
	}
	return false, t.say(ctx, line)
}

// say sends a message and streams the answer; an error is returned only if the chat cannot go on.
func (t *chat) say(ctx context.Context, line string) error {
	before := t.request.Messages
	// A copy: the start of the conversation is kept apart for /clear.
	t.request.Messages = append(before[:len(before):len(before)], message{"user", line})

	answerContext, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	restore := t.c.signals.onInterrupt(func() bool {
		first := answerContext.Err() == nil
		stop(errAnswerStopped)
		return first
	})
	defer restore()

	out := newAnswerWriter(t.c.out)
	var text strings.Builder
	figures, err := t.api.chat(answerContext, t.request, func(piece string) error {
		text.WriteString(piece)
		return out.write(piece)
	})
	out.end()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, errAnswerStopped):
		fmt.Fprintln(t.c.out, "(stopped)")
	case err != nil:
		fmt.Fprintf(t.c.console, "daisy: %s\n", oneLine(err.Error()))
	default:
		fmt.Fprintf(t.c.console, "(%s)\n", figuresLine(figures, nil))
	}
	if text.Len() == 0 && err != nil { // as if it had not been said: the next message can be another try
		t.request.Messages = before
		return nil
	}
	t.request.Messages = append(t.request.Messages, message{"assistant", text.String()})
	return nil
}
