//go:build linux

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"syscall"
	"testing"

	"github.com/daisy-llm/daisy/coordinator"
)

// cluster is a `daisy up`, or a coordinator with shards, that serves.
type cluster struct {
	*process
	address string // of the API
}

var readyLine = regexp.MustCompile(`(?m)^Daisy is ready: http://([^/ ]+)/v1 `)

// up starts a whole cluster and waits until it says that it is ready.
func up(t testing.TB, shards int, args ...string) *cluster {
	t.Helper()
	args = append([]string{"up", "--listen", "127.0.0.1:0", "--shards", strconv.Itoa(shards), "--context", "1024"}, args...)
	c := &cluster{process: start(t, args...)}
	waitFor(t, "daisy up to be ready", func() bool {
		select {
		case <-c.done:
			t.Fatalf("%s ended: %v", c, c.err)
		default:
		}
		if m := readyLine.FindStringSubmatch(c.stdout.String()); m != nil {
			c.address = m[1]
		}
		return c.address != ""
	})
	return c
}

// end is what Ctrl-C does.
func (c *cluster) end(t testing.TB) {
	t.Helper()
	c.signal(t, syscall.SIGINT)
	if code := c.finish(t); code != 0 {
		t.Errorf("%s: exit code %d after Ctrl-C", c, code)
	}
}

func (c *cluster) status(t *testing.T) coordinator.Status {
	t.Helper()
	var s coordinator.Status
	stdout, _, code := daisy(t, "status", "--coordinator", c.address, "--json")
	if err := json.Unmarshal([]byte(stdout), &s); code != 0 || err != nil {
		t.Fatalf("daisy status: exit code %d, %v", code, err)
	}
	return s
}

// post sends a request and returns the answer's status and body.
func (c *cluster) post(path string, body any) (int, []byte, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return 0, nil, err
	}
	res, err := http.Post("http://"+c.address+path, "application/json", bytes.NewReader(raw))
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	raw, err = io.ReadAll(res.Body)
	return res.StatusCode, raw, err
}

// answer is what a completion gave.
type answer struct {
	Text   string `json:"text"`
	IDs    []int  `json:"token_ids"`
	Finish string `json:"finish_reason"`
}

// complete asks for one completion.
func (c *cluster) complete(request map[string]any) (answer, error) {
	request["return_token_ids"] = true
	status, body, err := c.post("/v1/completions", request)
	if err != nil {
		return answer{}, err
	}
	var got struct {
		Choices []answer `json:"choices"`
		Usage   struct {
			Completion int `json:"completion_tokens"`
		} `json:"usage"`
	}
	if err := json.Unmarshal(body, &got); status != http.StatusOK || err != nil || len(got.Choices) != 1 {
		return answer{}, fmt.Errorf("status %d, %v: %s", status, err, body)
	}
	if got.Usage.Completion != len(got.Choices[0].IDs) {
		return answer{}, fmt.Errorf("%d tokens by the usage, %d ids", got.Usage.Completion, len(got.Choices[0].IDs))
	}
	return got.Choices[0], nil
}

// freePort is one that nobody listens on just now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
