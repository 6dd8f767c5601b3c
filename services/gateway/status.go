package gateway

import (
	"fmt"
	"net/http"

	"github.com/daisy-llm/daisy/coordinator"
)

// health answers while the process lives.
func (g *Gateway) health(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, []byte(`{"status":"ok"}`))
}

// readiness answers 200 once requests can be served, and otherwise says what is waited for.
func (g *Gateway) readiness(w http.ResponseWriter, _ *http.Request) {
	type answer struct {
		Ready  bool   `json:"ready"`
		State  string `json:"state"`
		Detail string `json:"detail,omitempty"`
	}
	s := g.cfg.Engine.Status()
	if !g.cfg.Engine.Ready() {
		w.Header().Set("Retry-After", "2")
		writeJSON(w, http.StatusServiceUnavailable, encode(answer{false, s.State, s.Detail}))
		return
	}
	writeJSON(w, http.StatusOK, encode(answer{true, s.State, s.Detail}))
}

// cluster is what `daisy status` shows.
func (g *Gateway) cluster(w http.ResponseWriter, _ *http.Request) {
	s := g.cfg.Engine.Status()
	if s.Shards == nil {
		s.Shards = []coordinator.ShardStatus{} // an empty list, not null
	}
	writeJSON(w, http.StatusOK, encode(s))
}

// notReady is coordinator.ErrNotReady with what is waited for.
func (g *Gateway) notReady() error {
	s := g.cfg.Engine.Status()
	if s.Detail == "" {
		return fmt.Errorf("%w: it is %s", coordinator.ErrNotReady, s.State)
	}
	return fmt.Errorf("%w: it is %s: %s", coordinator.ErrNotReady, s.State, s.Detail)
}
