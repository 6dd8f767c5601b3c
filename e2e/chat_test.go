//go:build linux

package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal is the user's side of a pseudo-terminal.
type terminal struct {
	*os.File
	screen *buffer // all that was shown
}

// inTerminal starts a daisy in a terminal of its own.
func inTerminal(t *testing.T, args ...string) (*process, *terminal) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { user.Close() })
	number, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(user.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80})
	}
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	p := newProcess(t, args...)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = tty, tty, tty
	p.cmd.Env = append(p.cmd.Env, "TERM=xterm")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	p.run(t)
	term := &terminal{File: user, screen: p.stdout}
	go func() {
		piece := make([]byte, 4096)
		for {
			n, err := user.Read(piece)
			term.screen.Write(piece[:n])
			if err != nil {
				return
			}
		}
	}()
	return p, term
}

// expect waits until something new is shown, and returns it with what came before it.
func (term *terminal) expect(t *testing.T, from int, what string) (shown string, to int) {
	t.Helper()
	pattern := regexp.MustCompile(what)
	waitFor(t, what, func() bool {
		shown = term.screen.String()[from:]
		at := pattern.FindStringIndex(shown)
		if at == nil {
			return false
		}
		shown, to = shown[:at[1]], from+at[1]
		return true
	})
	return shown, to
}

const figures = `\((\d+) prompt \+ (\d+) generated tokens`

func TestChatInATerminal(t *testing.T) {
	p, term := inTerminal(t, "run", "--shards", "2", "--max-tokens", "900")
	intro, at := term.expect(t, 0, `Ctrl-D ends\.\r\n> `)
	if !strings.Contains(intro, "2 shards: ") {
		t.Errorf("it began with %q", intro)
	}
	say := func(text string) string {
		term.WriteString(text)
		shown, to := term.expect(t, at, figures)
		at = to
		return shown
	}
	numbers := func(shown string) (prompt, generated int) {
		m := regexp.MustCompile(figures).FindStringSubmatch(shown)
		fmt.Sscan(m[1]+" "+m[2], &prompt, &generated)
		return prompt, generated
	}
	if shown := say("What is a daixx\x7f\x7fsy?\r"); !strings.Contains(shown, "flower") {
		t.Errorf("it answered %q", shown)
	} else if prompt, generated := numbers(shown); prompt < 10 {
		t.Errorf("the first message took %d tokens", prompt)
	} else if next, _ := numbers(say("And a rose?\r")); next < prompt+generated {
		t.Errorf("the second prompt has %d tokens, the conversation before had %d: it was not remembered", next, prompt+generated)
	}

	term.WriteString("/clear\r")
	_, at = term.expect(t, at, `forgotten`)
	if prompt, _ := numbers(say("你好\x1b[D\x1b[D\r")); prompt > 60 {
		t.Errorf("%d prompt tokens: the conversation was not forgotten", prompt)
	}

	term.WriteString("Write the longest story that you can.\r")
	_, at = term.expect(t, at, `story that you can\.(?s:.*)\n\w+`)
	term.WriteString("\x03")
	_, at = term.expect(t, at, `\(stopped\)\r\n> `)
	term.WriteString("\x04")
	if code := p.finish(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestChatEndsAtCtrlC(t *testing.T) {
	p, term := inTerminal(t, "run", "--shards", "1")
	term.expect(t, 0, `Ctrl-D ends\.\r\n> `)
	term.WriteString("\x03")
	if code := p.finish(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
