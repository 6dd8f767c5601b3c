package daisy_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// documents are the pages whose commands must exist. The lab runs on Linux alone, and so does this test.
var documents = []string{"README.md", "docs/*.md", "deploy/lab/README.md"}

// programs are what these pages call, each by its folder and as `go run` has it.
var programs = map[string]string{
	"daisy": "./cmd/daisy", "lab": "./deploy/lab", "chaos": "./deploy/lab/chaos", "compare": "./tools/compare",
}

var (
	fence     = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```")
	span      = regexp.MustCompile("`([^`\n]+)`")
	separator = regexp.MustCompile(`\s\|\s|[;&()]|\n`)
	remark    = regexp.MustCompile(`(?m)(^|\s)#.*$`)
	word      = regexp.MustCompile(`^[a-z][a-z|-]*$`)
	flagName  = regexp.MustCompile(`^\[?(--[a-z][a-z0-9-]*|-[a-z])([]=]|$)`)
	listed    = regexp.MustCompile(`(?m)^  ([a-z-]+) +\S`)
)

// TestDocumentedCommands holds every command and flag that the documents name against what the programs themselves say of them.
func TestDocumentedCommands(t *testing.T) {
	m := &manual{t: t, bin: t.TempDir(), pages: map[string]string{}, seen: map[string]bool{}}
	for name, folder := range programs {
		if out, err := exec.Command("go", "build", "-o", filepath.Join(m.bin, name), folder).CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", folder, err, out)
		}
	}
	for _, pattern := range documents {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no such document (%v)", pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, problem := range m.problems(string(text)) {
				t.Errorf("%s: %s", file, problem)
			}
		}
	}
	for name := range programs {
		if !m.seen[name] {
			t.Errorf("the documents do not call %s, or it is not seen how", name)
		}
	}

	for page, want := range map[string]string{
		"`daisy frobnicate`":         `"daisy frobnicate": there is no command "frobnicate"`,
		"`daisy token create|steal`": `"daisy token create|steal": there is no command "steal"`,
		"`daisy status [--jsonl]`":   `"daisy status [--jsonl]": daisy status has no flag --jsonl`,
		"`daisy plan -n 2`":          `"daisy plan -n 2": daisy plan has no flag -n`,
		"`--shard`":                  `"--shard": no command has the flag --shard`,
		"```sh\nA=b ./daisy run \\\n  --no=1 | cat # --x\n```": `"daisy run --no=1": daisy run has no flag --no`,
		"```sh\ngo run ./deploy/lab exec a daisy x\n```":       `"daisy x": there is no command "x"`,
		"```sh\ngo run ./tools/compare --lama DIR\n```":        `"compare --lama DIR": compare has no flag --lama`,
	} {
		if got := strings.Join(m.problems(page), "; "); got != want {
			t.Errorf("a page with %s: %q, want %q", page, got, want)
		}
	}
}

// commandLines are the lines of a page's shell blocks and its code spans.
func commandLines(page string) (lines []string) {
	for _, block := range fence.FindAllStringSubmatch(page, -1) {
		if block[1] == "sh" {
			text := remark.ReplaceAllString(strings.ReplaceAll(block[2], "\\\n", " "), "")
			lines = append(lines, separator.Split(text, -1)...)
		}
	}
	for _, s := range span.FindAllStringSubmatch(fence.ReplaceAllString(page, ""), -1) {
		lines = append(lines, separator.Split(s[1], -1)...)
	}
	return lines
}

// calls are what a line runs of the programs: name and arguments. One may run another, as lab exec does.
func calls(line string) (found [][]string) {
	args := strings.Fields(line)
	for i := 0; i < len(args); i++ {
		name := strings.TrimPrefix(args[i], "./")
		if args[i] == "go" && i+2 < len(args) && args[i+1] == "run" {
			i += 2
			name = programAt(args[i])
		}
		switch {
		case programs[name] != "":
			found = append(found, []string{name})
		case len(found) > 0:
			last := len(found) - 1
			found[last] = append(found[last], args[i])
		}
	}
	return found
}

func programAt(folder string) string {
	for name, at := range programs {
		if at == folder {
			return name
		}
	}
	return folder
}

// manual is what the programs say of themselves.
type manual struct {
	t     *testing.T
	bin   string
	pages map[string]string // by command, its words with spaces between
	seen  map[string]bool   // the programs that were called
}

// help is the page about a command.
func (m *manual) help(command []string) string {
	key := strings.Join(command, " ")
	if _, ok := m.pages[key]; !ok {
		args := append(slices.Clone(command[1:]), "--help")
		out, err := exec.Command(filepath.Join(m.bin, command[0]), args...).CombinedOutput()
		if err != nil || len(out) == 0 {
			m.t.Fatalf("%s --help: %v\n%s", key, err, out)
		}
		m.pages[key] = string(out)
	}
	return m.pages[key]
}

// subcommands are those that the page about a command lists.
func (m *manual) subcommands(command []string) (names []string) {
	_, list, _ := strings.Cut(m.help(command), "Available Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	for _, found := range listed.FindAllStringSubmatch(list, -1) {
		names = append(names, found[1])
	}
	return names
}

// has says whether the page about a command lists a flag.
func (m *manual) has(command []string, flag string) bool {
	pattern := `(?m)^ +(-\w, )?-?` + regexp.QuoteMeta(flag[1:]) + `(?:\s|$)` // package flag writes -name for --name
	if !strings.HasPrefix(flag, "--") {
		pattern = `(?m)^ +` + flag + `[,\s]`
	}
	return regexp.MustCompile(pattern).MatchString(m.help(command))
}

// problems are the commands and flags of a page that do not exist.
func (m *manual) problems(page string) (problems []string) {
	for _, line := range commandLines(page) {
		for _, call := range calls(line) {
			m.seen[call[0]] = true
			if problem := m.problem(call); problem != "" {
				problems = append(problems, fmt.Sprintf("%q: %s", strings.Join(call, " "), problem))
			}
		}
		if name := flagName.FindStringSubmatch(line); name != nil && !m.anywhere(name[1]) {
			problems = append(problems, fmt.Sprintf("%q: no command has the flag %s", line, name[1]))
		}
	}
	return problems
}

// problem follows the words of a call as far as they are commands, and looks for its flags there.
func (m *manual) problem(call []string) string {
	commands, rest := [][]string{call[:1]}, call[1:]
	for len(rest) > 0 && word.MatchString(rest[0]) {
		parent := commands[0]
		names := m.subcommands(parent)
		if len(names) == 0 {
			break
		}
		commands = nil
		for name := range strings.SplitSeq(rest[0], "|") {
			if !slices.Contains(names, name) {
				return fmt.Sprintf("there is no command %q", name)
			}
			commands = append(commands, append(slices.Clone(parent), name))
		}
		rest = rest[1:]
	}
	for _, arg := range rest {
		for _, command := range commands {
			if name := flagName.FindStringSubmatch(arg); name != nil && !m.has(command, name[1]) {
				return fmt.Sprintf("%s has no flag %s", strings.Join(command, " "), name[1])
			}
		}
	}
	return ""
}

// anywhere says whether some command of some program has a flag.
func (m *manual) anywhere(flag string) bool {
	var below func(command []string) bool
	below = func(command []string) bool {
		if m.has(command, flag) {
			return true
		}
		return slices.ContainsFunc(m.subcommands(command), func(name string) bool {
			return name != "completion" && name != "help" && below(append(slices.Clone(command), name))
		})
	}
	for name := range programs {
		if below([]string{name}) {
			return true
		}
	}
	return false
}
